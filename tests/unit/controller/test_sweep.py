"""The sweep with fakes: who is looked at, who is judged, and who is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from controller.loops.sweep import LOOK_BATCH, Sweep
from executions.answer import Answer, Reply
from executions.control import suspend
from executions.evidence import Observation, WorkerState
from executions.lifecycle import launch_failed
from executions.operations.commands import Commands
from executions.policy import Policy
from executions.record import Attempt, Execution, Status
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.support.waiting import until
from tests.unit.domain.states import at_work, by_hand, cancelling, claimed_again, failed, outcome, succeeded
from tests.unit.domain.test_retry import clicked

ANSWER = Answer(Reply.ACCEPTED, "")
GRACE_MS = POLICY.lost_worker_grace_ms
WORKER = "worker-of-task-1"


@dataclass
class World:
    """A sweep and all that it touches."""

    store: MemoryStore = field(default_factory=MemoryStore)
    launcher: FakeLauncher = field(default_factory=FakeLauncher)
    policy: Policy = POLICY
    woken: list[str] = field(default_factory=list)
    may_judge: Callable[[int], bool] = lambda _: True

    def sweep(self) -> Sweep:
        return Sweep(self.store, {"local": self.launcher}, self.policy, self.woken.append, self.may_judge)

    async def put(self, execution: Execution) -> None:
        await self.store.commit(await self.store.read(execution.task_id), execution, ANSWER)
        worker_id = execution.latest.worker_id
        if worker_id and execution.latest.status is Status.RUNNING:
            self.launcher.see(worker_id, WorkerState.RUNNING)

    async def latest(self, task_id: str = "task-1") -> Attempt:
        execution = (await self.store.read(task_id)).execution
        assert execution is not None
        return execution.latest

    async def version(self, task_id: str = "task-1") -> int:
        return (await self.store.read(task_id)).version

    async def look(self, after_ms: int = 0, task_id: str = "task-1") -> Attempt:
        """One pass, so much later."""
        self.store.now += after_ms
        self.woken.clear()
        await self.sweep().pass_once()
        return await self.latest(task_id)

    @property
    def looks(self) -> list[tuple[str, ...]]:
        return [call[1:] for call in self.launcher.calls if call[0] == "observe"]


@pytest.fixture
def world() -> World:
    return World()


# Lost workers


async def test_a_worker_that_dies_is_suspected_first_and_lost_after_the_grace_and_a_second_look(world: World) -> None:
    await world.put(running())
    world.launcher.end(WORKER)
    latest = await world.look()
    assert latest.status is Status.RUNNING
    assert latest.suspicion is not None
    assert latest.suspicion.since == NOW_MS
    assert world.woken == []
    assert (await world.look(GRACE_MS - 1)).status is Status.RUNNING
    latest = await world.look(1)
    assert (latest.status, latest.error_code, latest.suspicion) == (Status.FAILED, "WORKER_LOST", None)
    assert latest.error_message == "the worker is gone without a callback for 60 s: exit code 1"
    assert [item.detail for item in latest.evidence] == ["exit code 1"] * 2
    assert world.woken == ["task-1"]


async def test_the_first_look_never_judges_however_late_it_comes(world: World) -> None:
    await world.put(running())
    world.launcher.end(WORKER)
    assert (await world.look(100 * GRACE_MS)).status is Status.RUNNING
    assert (await world.look(GRACE_MS)).status is Status.FAILED


async def test_a_worker_that_the_launcher_does_not_know_is_judged_in_the_same_way(world: World) -> None:
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.MISSING)
    assert (await world.look()).suspicion is not None
    assert (await world.look(GRACE_MS)).error_code == "WORKER_LOST"


async def test_a_lost_worker_can_be_retried_and_its_attempt_is_spent(world: World) -> None:
    await world.put(running())
    world.launcher.end(WORKER)
    await world.look()
    await world.look(GRACE_MS)
    answer = await Commands(world.store, MemoryQueue(), POLICY, "local").retry("task-1", requested_by="jane")
    assert (answer.reply, answer.attempt) == (Reply.QUEUED, 2)


async def test_a_running_worker_costs_no_commit(world: World) -> None:
    await world.put(running())
    before = await world.version()
    for _ in range(3):
        assert (await world.look(GRACE_MS)).status is Status.RUNNING
    assert await world.version() == before
    assert world.looks == [(WORKER,)] * 3


async def test_a_worker_seen_alive_after_all_is_cleared_with_one_commit(world: World) -> None:
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.MISSING)
    await world.look()
    world.launcher.see(WORKER, WorkerState.RUNNING)
    before = await world.version()
    for _ in range(3):
        assert (await world.look(GRACE_MS)).suspicion is None
    assert await world.version() == before + 1
    world.launcher.see(WORKER, WorkerState.MISSING)
    assert (await world.look()).status is Status.RUNNING
    assert world.woken == []


@pytest.mark.parametrize("number", [1, 3])
async def test_a_later_attempt_is_judged_like_the_first(world: World, number: int) -> None:
    execution = running() if number == 1 else at_work(claimed_again(failed(attempts=number - 1)))
    await world.put(execution)
    world.launcher.end(str(execution.latest.worker_id))
    await world.look()
    latest = await world.look(GRACE_MS)
    assert (latest.number, latest.status, latest.error_code) == (number, Status.FAILED, "WORKER_LOST")


# What is no evidence


async def test_an_error_of_the_api_judges_nobody(world: World) -> None:
    await world.put(running())
    world.launcher.end(WORKER)
    await world.look()
    before = await world.version()
    world.launcher.is_blind = True
    for _ in range(5):
        assert (await world.look(GRACE_MS)).status is Status.RUNNING
    assert await world.version() == before


async def test_a_worker_that_could_not_be_looked_at_is_left_alone_and_the_others_are_not(world: World) -> None:
    for task_id in ("task-1", "task-2"):
        await world.put(running(task_id))
        world.launcher.end(f"worker-of-{task_id}")
    world.launcher.overlook(WORKER)
    await world.look()
    await world.look(GRACE_MS)
    assert (await world.latest()).status is Status.RUNNING
    assert (await world.latest()).suspicion is None
    assert (await world.latest("task-2")).error_code == "WORKER_LOST"


async def test_an_answer_about_somebody_else_is_passed_over(world: World) -> None:
    class Talkative(FakeLauncher):
        async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
            return [Observation("stranger", WorkerState.STOPPED, "fake", "x"), *await super().observe(worker_ids)]

    world.launcher = Talkative()
    await world.put(running())
    assert (await world.look()).suspicion is None


async def test_no_verdict_is_spoken_while_kept_outcomes_may_still_be_waiting(world: World) -> None:
    world.may_judge = lambda now_ms: now_ms >= NOW_MS + 10 * GRACE_MS
    await world.put(running())
    await world.put(running("task-2"))
    world.launcher.end(WORKER)
    world.launcher.see("worker-of-task-2", WorkerState.STOPPED, never_started=True)
    for _ in range(5):
        latest = await world.look(GRACE_MS)
        assert (latest.status, (await world.latest("task-2")).status) == (Status.RUNNING, Status.RUNNING)
        assert world.woken == []
    assert latest.suspicion is not None
    assert latest.suspicion.looks == 5
    latest = await world.look(5 * GRACE_MS)
    assert (latest.status, (await world.latest("task-2")).status) == (Status.FAILED, Status.PENDING)


class Interrupted(FakeLauncher):
    """Something happens between the look and the judgement."""

    async def happens(self) -> None:
        raise NotImplementedError

    async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
        found = await super().observe(worker_ids)
        await self.happens()
        return found


async def test_an_outcome_that_comes_between_look_and_verdict_counts(world: World) -> None:
    class Reported(Interrupted):
        async def happens(self) -> None:
            await Commands(world.store, MemoryQueue(), POLICY, "local").complete(outcome(succeeded=True))

    await world.put(running())
    world.launcher.end(WORKER)
    await world.look()
    world.launcher = Reported()
    world.launcher.end(WORKER)
    assert (await world.look(GRACE_MS)).status is Status.SUCCEEDED


async def test_a_verdict_on_one_worker_is_not_spoken_on_the_next(world: World) -> None:
    class Relaunched(Interrupted):
        async def happens(self) -> None:
            snapshot = await world.store.read("task-1")
            assert snapshot.execution is not None
            again = snapshot.execution.with_latest(worker_id="another", suspicion=None)
            await world.store.commit(snapshot, again, ANSWER)

    await world.put(running())
    world.launcher.end(WORKER)
    await world.look()
    world.launcher = Relaunched()
    world.launcher.end(WORKER)
    latest = await world.look(GRACE_MS)
    assert (latest.status, latest.worker_id, latest.suspicion) == (Status.RUNNING, "another", None)


async def test_a_verdict_on_one_incarnation_is_not_spoken_on_the_next(world: World) -> None:
    class MadeAnew(Interrupted):
        async def happens(self) -> None:
            world.store.records["task-1"] = {
                "1": b'{"status":"running","launcher":"local","taskArn":"worker-of-task-1"}'
            }

    await world.put(running())
    world.launcher.end(WORKER)
    await world.look()
    world.launcher = MadeAnew()
    world.launcher.end(WORKER)
    latest = await world.look(GRACE_MS)
    assert (latest.status, latest.suspicion) == (Status.RUNNING, None)


# Never started


async def test_a_worker_that_never_started_is_launched_again_within_the_attempt(world: World) -> None:
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.STOPPED, "no capacity", never_started=True)
    latest = await world.look()
    assert (latest.number, latest.status, latest.launch, latest.worker_id) == (1, Status.PENDING, None, None)
    assert (latest.run, latest.launch_tries, latest.launch_not_before) == (1, 1, NOW_MS + 1000)
    assert [item.detail for item in latest.evidence] == ["no capacity"]
    assert world.woken == ["task-1"]


async def test_a_worker_that_never_started_in_the_last_try_fails_with_its_code(world: World) -> None:
    world.policy = Policy(max_launch_tries=1)
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.STOPPED, "no capacity", never_started=True)
    latest = await world.look()
    assert (latest.status, latest.error_code) == (Status.FAILED, "WORKER_NEVER_STARTED")


async def test_a_record_written_by_hand_whose_worker_never_started_is_not_left_running(world: World) -> None:
    await world.put(by_hand(worker_id="arn", launcher="local"))
    world.launcher.see("arn", WorkerState.STOPPED, "no capacity", never_started=True)
    assert (await world.look()).error_code == "WORKER_NEVER_STARTED"


# Deadlines


async def test_a_worker_that_runs_too_long_is_stopped_and_judged_once_it_is_gone(world: World) -> None:
    world.policy = Policy(attempt_timeout_ms=600_000)
    await world.put(running())
    assert (await world.look(599_999)).status is Status.RUNNING
    assert [call for call in world.launcher.calls if call[0] == "stop"] == []
    assert (await world.look(1)).status is Status.RUNNING
    assert [call for call in world.launcher.calls if call[0] == "stop"] == [
        ("stop", WORKER, "the attempt is past its deadline")
    ]
    assert (await world.look(1)).suspicion is not None
    latest = await world.look(GRACE_MS)
    assert (latest.status, latest.error_code) == (Status.FAILED, "ATTEMPT_TIMEOUT")


async def test_a_worker_that_starts_too_late_is_stopped_and_launched_again(world: World) -> None:
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.STARTING)
    await world.look(POLICY.start_timeout_ms)
    assert world.launcher.calls[-1][0] == "stop"
    world.launcher.see(WORKER, WorkerState.STOPPED, never_started=True)
    latest = await world.look(1)
    assert (latest.status, latest.number, latest.launch) == (Status.PENDING, 1, None)


# Cancellation


async def test_a_cancelled_attempt_ends_at_the_first_look_that_finds_its_worker_gone(world: World) -> None:
    world.may_judge = lambda _: False
    await world.put(cancelling(running()))
    assert (await world.look(GRACE_MS)).status is Status.RUNNING
    assert world.woken == ["task-1"]
    world.launcher.end(WORKER)
    latest = await world.look()
    assert (latest.status, latest.error_message, latest.error_code) == (Status.CANCELLED, "not needed", None)


async def test_the_wish_to_cancel_an_earlier_attempt_cancels_no_other(world: World) -> None:
    execution = at_work(claimed_again(failed()))
    await world.put(execution.with_state(cancellation=cancelling(running()).state.cancellation))
    world.launcher.end("worker-2")
    assert (await world.look()).status is Status.RUNNING
    assert (await world.look(GRACE_MS)).error_code == "WORKER_LOST"


# Who is looked at, who is woken


async def test_workers_are_looked_at_in_batches_of_100(world: World) -> None:
    for number in range(250):
        await world.put(running(f"task-{number}"))
    await world.look(task_id="task-0")
    assert LOOK_BATCH == 100
    assert sorted(len(ids) for ids in world.looks) == [50, 100, 100]
    assert len({worker_id for ids in world.looks for worker_id in ids}) == 250


async def test_what_is_finished_or_waits_is_not_looked_at(world: World) -> None:
    waiting, done = pending("task-1"), succeeded()
    await world.put(waiting)
    await world.put(Execution("task-2", done.attempts, done.state))
    await world.look()
    assert world.looks == []


async def test_a_launch_without_an_answer_is_woken_and_not_looked_at(world: World) -> None:
    await world.put(intended())
    await world.look()
    assert (world.woken, world.looks) == (["task-1"], [])


async def test_what_waits_or_is_due_is_woken_in_the_order_of_age(world: World) -> None:
    await world.put(pending("young", now_ms=NOW_MS - 1))
    await world.put(pending("old", now_ms=NOW_MS - 2))
    await world.put(pending("held", now_ms=NOW_MS - 3))
    await world.put(suspend(pending("held", now_ms=NOW_MS - 3), suspended=True))
    again = launch_failed(
        intended("again"), 1, 1, code="X", message="x", permanent=False, now_ms=NOW_MS - 1000, policy=POLICY
    )
    await world.put(again)
    await world.put(clicked(failed()))
    await world.look()
    assert world.woken == ["again", "held", "old", "young", "again"]
    await world.look(POLICY.retry_redeliver_ms)
    assert world.woken[:2] == ["again", "task-1"]


async def test_nothing_is_woken_before_its_time(world: World) -> None:
    await world.put(clicked(failed()))
    await world.look(POLICY.retry_redeliver_ms - 1)
    assert world.woken == []


async def test_workers_of_another_launcher_are_left_alone_and_ours_are_not(world: World) -> None:
    await world.put(running("task-2").with_latest(launcher="ecs"))
    await world.put(running())
    world.launcher.end(WORKER)
    world.launcher.see("worker-of-task-2", WorkerState.STOPPED)
    await world.look()
    await world.look(GRACE_MS)
    assert (await world.latest("task-2")).suspicion is None
    assert (await world.latest()).error_code == "WORKER_LOST"
    assert world.looks == [(WORKER,)] * 2


async def test_a_running_record_without_a_worker_is_woken_and_judged_by_nobody(world: World) -> None:
    await world.put(by_hand(launcher="local"))
    assert (await world.look(100 * GRACE_MS)).status is Status.RUNNING
    assert (world.woken, world.looks) == (["task-1"], [])


async def test_a_record_that_is_gone_or_unreadable_stops_nobody(world: World) -> None:
    for task_id in ("gone", "broken", "task-1"):
        await world.put(running(task_id))
        world.launcher.end(f"worker-of-{task_id}")
    world.store.records.pop("gone")
    world.store.records["broken"] = {"1": b"{"}
    await world.look()
    assert (await world.look(GRACE_MS)).error_code == "WORKER_LOST"
    assert world.store.records["broken"] == {"1": b"{"}


# For ever


async def test_a_pass_that_fails_is_followed_by_the_next(world: World) -> None:
    await world.put(running())
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        world.store.unavailable = beats in (2, 3)
        if beats == 4:
            world.launcher.end(WORKER)

    work = asyncio.create_task(world.sweep().run(0.001, beat))
    try:
        await until(lambda: beats >= 6)
        assert (await world.latest()).suspicion is not None
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_defect_of_a_launcher_does_not_end_the_sweep(world: World) -> None:
    class Defective(FakeLauncher):
        async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
            self.calls.append(("observe", *worker_ids))
            raise RuntimeError("a defect")

    world.launcher = Defective()
    await world.put(running())
    work = asyncio.create_task(world.sweep().run(0.001))
    try:
        await until(lambda: len(world.looks) >= 2)
        assert (await world.latest()).status is Status.RUNNING
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
