"""Kept outcomes: applied once the store is back, and when it may be said that none is waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from controller.loops.outcomes import Outcomes
from executions.answer import Answer, Reply
from executions.callback_token import LaunchProof
from executions.errors import InvalidOutcome, QueueUnavailable, StoreUnavailable
from executions.kept_outcome import kept_outcome, kept_outcome_from_body
from executions.operations.commands import Commands
from executions.policy import Policy
from executions.record import Status
from tests.support.builders import NOW_MS, running
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.support.waiting import until

pytestmark = pytest.mark.looptime
"""The loop's time passes as soon as nobody has anything to do, so that waits cost none."""

SUCCESS = {"taskId": "task-1", "result": {"status": "success", "pullRequestUrl": "https://github.com/o/r/pull/7"}}
FAILURE = {"taskId": "task-1", "taskType": "digest", "status": "failure", "error": {"message": "no", "code": "E_NO"}}


def kept(outcome: object, received_ms: object = NOW_MS + 5) -> str:
    return json.dumps({"receivedAtMs": received_ms, "outcome": outcome})


class Bench:
    def __init__(self) -> None:
        self.queue = MemoryQueue()
        self.store = MemoryStore(now_ms=NOW_MS + 1000)
        self.beats = 0
        commands = Commands(self.store, MemoryQueue(), Policy(), launcher="local")
        self.outcomes = Outcomes(
            self.queue, self.store, commands, wait_seconds=0.03, heartbeat=self._beat, draw=lambda: 0.0
        )

    def _beat(self) -> None:
        self.beats += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.outcomes.run())
        try:
            yield
            assert not task.done(), "the loop ended by itself"
        finally:
            self.outcomes.stop()
            await asyncio.wait_for(task, 5)

    async def handled(self) -> None:
        await until(lambda: not self.queue.entries)

    async def drained(self) -> None:
        await until(lambda: self.outcomes.is_drained)

    async def status(self) -> Status:
        execution = (await self.store.read("task-1")).execution
        assert execution is not None
        return execution.latest.status


@pytest.fixture(autouse=True)
def quick_back_offs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.loops.polling._BACKOFF_FIRST_SECONDS", 0.02)
    monkeypatch.setattr("controller.loops.outcomes._PATIENCE_SECONDS", 5.0)


@pytest.fixture
async def bench() -> Bench:
    """With task-1 running since NOW_MS."""
    bench = Bench()
    await bench.store.commit(await bench.store.read("task-1"), running(), Answer(Reply.CLAIMED, "task-1"))
    return bench


@pytest.fixture
def logs() -> Any:
    with capture_logs() as captured:
        yield captured


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(SUCCESS, Status.SUCCEEDED), (FAILURE, Status.FAILED), ({**SUCCESS, "attempt": 1}, Status.SUCCEEDED)],
)
async def test_a_kept_outcome_decides_the_attempt_and_is_deleted(
    bench: Bench, outcome: dict[str, Any], status: Status
) -> None:
    await bench.queue.put(kept(outcome))
    async with bench.running():
        await bench.handled()
    execution = (await bench.store.read("task-1")).execution
    assert execution is not None
    assert execution.latest.status is status
    assert execution.latest.result is not None
    assert execution.latest.result.received_at == NOW_MS + 5


async def test_an_outcome_from_before_the_attempt_began_changes_nothing(bench: Bench) -> None:
    await bench.queue.put(kept(FAILURE, NOW_MS - 1))
    async with bench.running():
        await bench.handled()
    assert await bench.status() is Status.RUNNING


async def test_the_first_of_two_outcomes_counts_and_a_redelivery_does_nothing(
    bench: Bench, logs: list[EventDict]
) -> None:
    await bench.queue.put(kept(SUCCESS), message_id="m-1")
    async with bench.running():
        await bench.handled()
        await bench.queue.put(kept(FAILURE), message_id="m-2")
        await bench.handled()
        await bench.queue.put(kept(SUCCESS), message_id="m-1")
        await bench.handled()
    assert await bench.status() is Status.SUCCEEDED
    replies = [line["reply"] for line in logs if line["event"] == "Kept outcome applied"]
    assert replies == ["recorded", "already_finished", "recorded"]
    assert len(bench.store.feed) == 2


async def test_an_outcome_of_an_unknown_task_is_deleted_with_a_log_line(bench: Bench, logs: list[EventDict]) -> None:
    await bench.queue.put(kept({**SUCCESS, "taskId": "nobody"}))
    async with bench.running():
        await bench.handled()
    (line,) = [line for line in logs if line["event"] == "Kept outcome applied"]
    assert (line["log_level"], line["task_id"], line["reply"]) == ("warning", "nobody", "not_found")


INVALID = [
    "",
    "[]",
    "{}",
    kept(SUCCESS, None),
    kept(SUCCESS, True),
    kept(SUCCESS, "5"),
    kept(SUCCESS, -1),
    kept(SUCCESS, 1.5),
    kept(None),
    kept({"taskId": "task-1"}),
    kept({**SUCCESS, "taskId": "../hush"}),
    json.dumps({"receivedAtMs": 1, "outcome": SUCCESS, "launch": {"attempt": "hush", "launchTry": 1, "id": "x"}}),
    json.dumps({"receivedAtMs": 1, "outcome": SUCCESS, "launch": []}),
]


@pytest.mark.parametrize("body", INVALID)
def test_an_invalid_document_is_refused_without_an_echo(body: str) -> None:
    with pytest.raises(InvalidOutcome) as caught:
        kept_outcome_from_body(body)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("proof", [None, LaunchProof(1, 2, "t" * 32)])
def test_what_is_kept_is_found_again_without_its_token(proof: LaunchProof | None) -> None:
    document = kept_outcome({**SUCCESS, "token": "hush"}, proof, received_ms=NOW_MS)
    assert "hush" not in str(document)
    found = kept_outcome_from_body(json.dumps(document))
    assert (found.received_ms, found.outcome.succeeded, found.proof) == (NOW_MS, True, proof)


@pytest.mark.parametrize(("launch_id", "status"), [("t" * 32, Status.SUCCEEDED), ("u" * 32, Status.RUNNING)])
async def test_a_kept_outcome_decides_the_launch_that_it_was_proven_for_and_no_other(
    bench: Bench, launch_id: str, status: Status
) -> None:
    await bench.queue.put(json.dumps(kept_outcome(SUCCESS, LaunchProof(1, 1, launch_id), received_ms=NOW_MS)))
    async with bench.running():
        await bench.handled()
    assert await bench.status() is status


async def test_invalid_outcomes_are_logged_once_and_go_to_the_dead_letters(bench: Bench, logs: list[EventDict]) -> None:
    bench.queue.visibility_seconds, bench.queue.max_receives = 0.02, 3
    for body in INVALID:
        await bench.queue.put(body)
    await bench.queue.put(kept(SUCCESS))
    async with bench.running():
        await until(lambda: len(bench.queue.dead) == len(INVALID))
        await bench.handled()
    assert await bench.status() is Status.SUCCEEDED
    assert len([line for line in logs if line["event"] == "Message left to the dead-letter policy"]) == len(INVALID)


async def test_an_outcome_waits_for_the_store_and_costs_no_receive(bench: Bench) -> None:
    bench.store.unavailable = True
    await bench.queue.put(kept(SUCCESS))
    async with bench.running():
        await until(lambda: bench.beats >= 2)
        assert bench.queue.receives == 0
        assert not bench.outcomes.is_drained
        bench.store.unavailable = False
        await bench.handled()
    assert await bench.status() is Status.SUCCEEDED


async def test_it_is_drained_after_two_empty_polls_by_the_stores_clock(bench: Bench) -> None:
    asked: list[int] = []
    now_ms = bench.store.now_ms

    async def noting() -> int:
        asked.append(bench.queue.receives)
        return await now_ms()

    bench.store.now_ms = noting  # type: ignore[method-assign]
    assert not bench.outcomes.is_drained
    async with bench.running():
        await bench.drained()
        assert asked == [2]
        assert bench.outcomes.drained_at_ms == NOW_MS + 1000
        bench.store.now += 60_000
        receives = bench.queue.receives
        await until(lambda: bench.queue.receives >= receives + 2)
        assert bench.outcomes.drained_at_ms == NOW_MS + 1000


async def test_a_message_and_an_outage_of_the_store_undo_it(bench: Bench) -> None:
    async with bench.running():
        await bench.drained()
        bench.store.now += 1
        await bench.queue.put(kept(SUCCESS))
        await until(lambda: not bench.outcomes.is_drained)
        await bench.drained()
        assert bench.outcomes.drained_at_ms == NOW_MS + 1001
        bench.store.unavailable = True
        await until(lambda: not bench.outcomes.is_drained)
        bench.store.now += 1
        bench.store.unavailable = False
        await bench.drained()
        assert bench.outcomes.drained_at_ms == NOW_MS + 1002


async def test_one_that_could_not_be_applied_and_is_hidden_keeps_it_from_being_drained(bench: Bench) -> None:
    """Given back once, then left to its visibility time-out: polls are empty, and the outcome is still to come."""
    commit, failures = bench.store.commit, 2

    async def failing(*given: Any, **named: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailable("in between (test)")
        return await commit(*given, **named)

    bench.store.commit = failing  # type: ignore[method-assign]
    bench.queue.visibility_seconds = 1.0
    await bench.queue.put(kept(SUCCESS))
    drained_while: list[Status] = []
    async with bench.running():
        while not drained_while or bench.queue.entries:
            if bench.outcomes.is_drained:
                drained_while.append(await bench.status())
            await asyncio.sleep(0.01)
    assert set(drained_while) == {Status.SUCCEEDED}


async def test_one_that_another_replica_has_taken_keeps_it_from_being_drained(bench: Bench) -> None:
    await bench.queue.put(kept(SUCCESS))
    (taken,) = await bench.queue.receive(wait_seconds=0)
    async with bench.running():
        receives = bench.queue.receives
        await until(lambda: bench.queue.receives >= receives + 10)
        assert not bench.outcomes.is_drained
        await bench.queue.delete([taken])
        await bench.drained()


async def test_what_nobody_can_read_or_have_keeps_it_for_a_while_only(bench: Bench, logs: list[EventDict]) -> None:
    """A queue without dead letters gives an unreadable message for days."""
    await bench.queue.put("nonsense")
    began = asyncio.get_running_loop().time()
    async with bench.running():
        await until(lambda: bench.outcomes.is_drained, seconds=20)
        assert 5 <= asyncio.get_running_loop().time() - began < 8
        since = bench.outcomes.drained_at_ms
        bench.store.now += 1
        receives = bench.queue.receives
        await until(lambda: bench.queue.receives >= receives + 300, seconds=30)
        assert bench.outcomes.drained_at_ms == since
    assert [line["event"] for line in logs if "lie in their queue" in line["event"]] != []


async def test_a_queue_that_does_not_say_what_it_holds_is_reported_once(bench: Bench, logs: list[EventDict]) -> None:
    async def refused() -> int:
        raise QueueUnavailable("not permitted (test)")

    bench.queue.waiting = refused  # type: ignore[method-assign]
    async with bench.running():
        await until(lambda: bench.queue.receives >= 10)
        assert not bench.outcomes.is_drained
        await until(lambda: bench.outcomes.is_drained, seconds=20)
    assert [line["reason"] for line in logs if "does not say" in line["event"]] == ["not permitted (test)"]


async def test_a_queue_that_is_away_drains_nothing_and_undoes_nothing(bench: Bench) -> None:
    bench.queue.unavailable = True
    async with bench.running():
        await until(lambda: bench.beats >= 3)
        assert not bench.outcomes.is_drained
        bench.queue.unavailable = False
        await bench.drained()
        bench.queue.unavailable = True
        beats = bench.beats
        await until(lambda: bench.beats >= beats + 2)
        assert bench.outcomes.is_drained
