"""Bugs that were found, each kept as a test named after what is right instead."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from controller.leadership import Leadership
from executions.adapters.settings import settings_from_environment
from executions.answer import Answer, Reply
from executions.control import suspend
from executions.errors import InvalidSettings, LaunchUnclear
from executions.lifecycle import launch_failed
from executions.operations.commands import Commands
from executions.policy import Policy
from executions.record import RecordUnreadable, Status, encoded, execution_from_stored
from executions.retry import request_retry
from executions.task import task_from_document
from tests.support.builders import NOW_MS, POLICY, a_task, intended, pending, running
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.unit.controller.test_reconciler import World as ReconcilerWorld
from tests.unit.controller.test_sweep import World as SweepWorld
from tests.unit.domain.states import at_work, cancelling, claimed_again, failed, outcome, reported

ANSWER = Answer(Reply.ACCEPTED, "task-1")


async def put(store: MemoryStore, execution: Any) -> None:
    await store.commit(await store.read(execution.task_id), execution, ANSWER)


async def test_a_resent_retry_is_the_one_that_was_marked_not_the_one_after_it() -> None:
    """Between the commit of the next time and the read the attempt is claimed and fails."""
    policy = Policy(max_retries=3)
    queue = MemoryQueue()

    class Racing(MemoryStore):
        armed = False

        async def commit(self, snapshot: Any, execution: Any, answer: Any, **options: Any) -> Any:
            result = await super().commit(snapshot, execution, answer, **options)
            if self.armed:
                self.armed = False
                other = await self.read("task-1")
                await super().commit(other, reported(at_work(claimed_again(other.execution))), ANSWER)
            return result

    store = Racing()
    marked = request_retry(failed(), "task-1", requested_by="j", now_ms=NOW_MS, policy=policy).execution
    await put(store, marked)
    store.now += 60_000
    store.armed = True
    await Commands(store, queue, policy, "local").resend_retry("task-1")
    assert [item["attempt"] for item in queue.sent] in ([], [2])


async def test_a_worker_that_cannot_be_stopped_does_not_keep_the_others_from_being_judged() -> None:
    class Unstoppable(FakeLauncher):
        async def stop(self, worker_id: str, reason: str) -> bool:
            raise LaunchUnclear("throttled")

    world = SweepWorld(launcher=Unstoppable(), policy=Policy(attempt_timeout_ms=1000))
    await world.put(running("old", now_ms=NOW_MS - 10_000))
    await world.put(running("task-1", now_ms=NOW_MS))
    world.launcher.end("worker-of-task-1")
    for _ in range(2):
        try:
            await world.look(POLICY.lost_worker_grace_ms)
        except LaunchUnclear:
            pass  # run() logs it and begins the next pass, which ends at the same place
    assert (await world.latest()).status is Status.FAILED


async def test_a_suspended_attempt_between_two_launches_is_not_reconciled_without_a_pause() -> None:
    world = ReconcilerWorld()
    await world.put(
        launch_failed(intended(), 1, 1, code="X", message="x", permanent=False, now_ms=NOW_MS, policy=POLICY)
    )
    await world.put(suspend(await world.found(), suspended=True))
    world.store.now += 10_000
    await world.reconcile()
    assert [seconds for _, seconds in world.wakes] == [] or world.wakes[0][1] > 0


async def test_a_missing_launcher_is_told_once_per_look(capsys: pytest.CaptureFixture[str]) -> None:
    world = ReconcilerWorld()
    await world.put(intended().with_latest(launcher="ecs"))
    reads = 0
    original = world.store.read

    async def read(task_id: str) -> Any:
        nonlocal reads
        reads += 1
        return await original(task_id)

    world.store.read = read  # type: ignore[method-assign]
    await world.reconciler().reconcile("task-1")
    assert reads == 1


async def test_a_replay_sends_the_token_that_is_written_down() -> None:
    """After a hand edited the record (new incarnation) the recomputed token differs: a second worker."""
    world = ReconcilerWorld()
    world.launcher.lose_reply()
    await world.put(pending())
    with pytest.raises(LaunchUnclear):
        await world.reconcile()
    raw = orjson.loads(world.store.records["task-1"]["1"])
    world.store.records["task-1"]["1"] = orjson.dumps({**raw, "note": "edited"})
    await world.put(await world.found())  # the resync adopts it
    await world.reconcile()
    assert sum(world.launcher.starts.values()) == 1


@pytest.mark.parametrize("field", ["01", "+1", " 1", "1_0", "\uff11", "9" * 30])
def test_a_field_that_is_no_attempt_number_is_unreadable(field: str) -> None:
    with pytest.raises(RecordUnreadable):
        execution_from_stored("t", {field: b'{"status":"failed"}'}, None, is_ours=False, incarnation="i")


def test_a_record_that_could_not_be_written_again_is_unreadable() -> None:
    """Otherwise the resync's adoption raises TypeError/ValueError for ever and takes over nothing after it."""
    deep = b'{"status":"failed","taskSnapshot":' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}"
    with pytest.raises(RecordUnreadable):
        execution_from_stored("t", {"1": deep}, None, is_ours=False, incarnation="i")


@pytest.mark.parametrize("name", ["LOST_WORKER_GRACE_SECONDS", "SWEEP_INTERVAL_SECONDS", "FINISHED_TTL_SECONDS"])
def test_an_endless_duration_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://x")
    monkeypatch.setenv("SQS_QUEUE_URL", "http://x")
    monkeypatch.setenv(name, "inf")
    with pytest.raises(InvalidSettings):
        settings_from_environment().policy  # noqa: B018


async def test_the_work_ends_with_the_lease_even_when_the_store_hangs() -> None:
    hung = asyncio.Event()

    class Hanging:
        asked = 0

        async def hold(self) -> int | None:
            self.asked += 1
            if self.asked > 1:
                await hung.wait()
            return 1

        async def release(self) -> None: ...

    ended = asyncio.Event()

    async def work(fence: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running_ = asyncio.create_task(Leadership(Hanging(), work, ttl_seconds=0.3).run())
    try:
        async with asyncio.timeout(2):
            await ended.wait()
    finally:
        running_.cancel()
        await asyncio.gather(running_, return_exceptions=True)


async def test_a_record_made_anew_with_the_same_content_is_a_new_incarnation() -> None:
    """DEL, resync, the same HSET again: the launch token of the next attempt is that of the removed record's."""
    store = MemoryStore()
    incarnations = []
    for _ in range(2):
        store.records["task-1"] = {"1": b'{"status":"failed"}'}
        snapshot = await store.read("task-1")
        await store.commit(snapshot, snapshot.execution, ANSWER)
        incarnations.append((await store.read("task-1")).execution.state.incarnation)  # type: ignore[union-attr]
        store.records.pop("task-1")
        await store.commit(await store.read("task-1"), None, ANSWER)
    assert incarnations[0] != incarnations[1]


async def test_removing_an_attempt_by_hand_does_not_bring_an_old_retry_back() -> None:
    """HDEL of attempt 2 makes the mark of attempt 2, which stays in the state, look unclaimed and due."""
    store, queue = MemoryStore(), MemoryQueue()
    commands = Commands(store, queue, POLICY, "local")
    await put(store, failed())
    await commands.retry("task-1", requested_by="j")
    await commands.dispatch(a_task(attempt=2), message_id="m")
    queue.sent.clear()
    store.now += 3_600_000
    del store.records["task-1"]["2"]
    await put(store, (await store.read("task-1")).execution)  # the resync adopts it
    world = ReconcilerWorld(store=store, queue=queue)
    await world.reconciler().reconcile("task-1")
    assert queue.sent == []


async def test_a_message_that_came_too_early_is_claimed_when_it_comes_again_in_its_turn() -> None:
    """It is left in the queue, so it was not acted on, and must not be remembered as if it was."""
    store = MemoryStore()
    commands = Commands(store, MemoryQueue(), POLICY, "local")
    await put(store, running())
    early = await commands.dispatch(a_task(attempt=2), message_id="m")
    assert early.reply is Reply.OUT_OF_ORDER
    await commands.complete(outcome())
    again = await commands.dispatch(a_task(attempt=2), message_id="m")
    assert again.reply is Reply.CLAIMED


async def test_a_launch_whose_payload_a_hand_removed_ends_as_payload_lost() -> None:
    world = ReconcilerWorld()
    await world.put(intended().with_latest(task_snapshot=None))
    await world.reconcile()
    latest = (await world.found()).latest
    assert (latest.status, latest.error_code) == (Status.FAILED, "PAYLOAD_LOST")


def test_a_foreign_field_with_the_name_of_ours_in_python_stays_what_it_is() -> None:
    raw = b'{"status":"failed","worker_id":"not ours"}'
    found = execution_from_stored("t", {"1": raw}, None, is_ours=False, incarnation="i").latest
    assert found.worker_id is None
    assert orjson.loads(encoded(found))["worker_id"] == "not ours"


async def test_an_attempt_of_a_launcher_that_is_not_here_can_be_cancelled_as_the_log_says() -> None:
    world = ReconcilerWorld()
    await world.put(cancelling(running().with_latest(launcher="gone")))
    for _ in range(3):
        await world.reconcile()
    assert (await world.found()).latest.status is Status.CANCELLED


async def test_a_retry_does_not_hand_the_work_back_to_the_assignee_of_the_old_message() -> None:
    store, queue = MemoryStore(), MemoryQueue()
    commands = Commands(store, queue, POLICY, "local")
    await commands.dispatch(a_task(metadata={"assignee": "jane"}), message_id="m1")
    await put(store, at_work((await store.read("task-1")).execution))  # type: ignore[arg-type]
    await commands.assign("task-1", assignee="joe")  # a live worker goes on
    await commands.complete(outcome())
    await commands.retry("task-1", requested_by="x")
    await commands.dispatch(task_from_document(queue.sent[-1]), message_id="m2")
    found = (await store.read("task-1")).execution
    assert found is not None
    assert (found.latest.number, found.state.assignee) == (2, "joe")
