"""The sweep with fakes: who is judged, as what, and when. Who is looked at is in ``test_sweep_looks``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from controller.loops.sweep import Sweep
from executions.answer import Answer, Reply
from executions.errors import LaunchUnclear
from executions.evidence import OWN_STOP, Observation, WorkerState
from executions.operations.commands import Commands
from executions.outcome import Outcome
from executions.policy import Policy
from executions.record import Attempt, Execution, Status, StopOrder
from tests.support.builders import NOW_MS, POLICY, running
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.unit.domain.states import (
    at_work,
    by_hand,
    cancelling,
    claimed_again,
    failed,
    outcome,
    stop_reported,
)

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

    def sweep(self, *, ecs: FakeLauncher | None = None, **options: float) -> Sweep:
        launchers = {"local": self.launcher} | ({"ecs": ecs} if ecs else {})
        return Sweep(self.store, launchers, self.policy, self.woken.append, self.may_judge, **options)

    def commands(self) -> Commands:
        return Commands(self.store, MemoryQueue(), self.policy, "local")

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
    assert latest.error_message == (
        "the worker is gone without a callback for 60 s (probable; a callback of launch 1 would refute it): exit code 1"
    )
    assert [item.detail for item in latest.evidence] == ["exit code 1"] * 2
    assert latest.verdict is not None
    assert (latest.verdict.kind, latest.verdict.grade, latest.verdict.code) == ("lost", "probable", "WORKER_LOST")
    assert latest.verdict.detected_after_ms == GRACE_MS
    assert world.woken == ["task-1"]


async def test_the_first_look_never_judges_however_late_it_comes(world: World) -> None:
    await world.put(running())
    world.launcher.end(WORKER)
    assert (await world.look(100 * GRACE_MS)).status is Status.RUNNING
    assert (await world.look(GRACE_MS)).status is Status.FAILED


async def test_a_worker_that_the_launcher_does_not_know_is_judged_after_more_looks(world: World) -> None:
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.MISSING)
    assert (await world.look()).suspicion is None, "it may be too young to be known"
    assert (await world.look(60_000)).suspicion is not None
    assert (await world.look(GRACE_MS)).status is Status.RUNNING
    latest = await world.look()
    assert (latest.error_code, latest.verdict.grade if latest.verdict else None) == ("WORKER_LOST", "presumed")


async def test_when_a_worker_was_last_seen_alive_is_remembered_for_the_verdict(world: World) -> None:
    world.policy = Policy(lost_worker_grace_ms=1_000)
    sweep = world.sweep()
    await world.put(running())
    await sweep.pass_once()
    world.launcher.see(WORKER, WorkerState.MISSING)
    for _ in range(3):
        world.store.now += 500
        await sweep.pass_once()
    verdict = (await world.latest()).verdict
    assert verdict is not None
    assert (verdict.grade, verdict.last_seen_alive_at, verdict.detected_after_ms) == ("probable", NOW_MS, 1_500)


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
    world.launcher.end(WORKER)
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
        ("stop", WORKER, "the attempt is past its deadline (ATTEMPT_TIMEOUT)")
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


async def test_that_a_worker_is_told_to_stop_is_durable_before_it_is_told(world: World) -> None:
    """Told first, a worker could report its signal before we know that it was ours."""

    class Told(FakeLauncher):
        async def stop(self, worker_id: str, reason: str) -> bool:
            told.append((await world.latest()).stop)
            raise LaunchUnclear("the answer was lost")

    told = list[StopOrder | None]()
    world.policy, world.launcher = Policy(attempt_timeout_ms=600_000), Told()
    await world.put(running())
    await world.look(600_000)
    version = await world.version()
    latest = await world.look(60_000)
    assert told == [StopOrder(code="ATTEMPT_TIMEOUT", asked_at=NOW_MS + 600_000)] * 2
    assert (latest.status, await world.version()) == (Status.RUNNING, version), "written down once, asked again"


@pytest.mark.parametrize(
    ("report", "status", "code"),
    [
        pytest.param(outcome(succeeded=True), Status.SUCCEEDED, None, id="a success still counts"),
        pytest.param(
            outcome(error={"message": "stopped by signal SIGTERM", "code": "WORKER_STOPPED_EXTERNALLY"}),
            Status.FAILED,
            "ATTEMPT_TIMEOUT",
            id="a worker that only felt the signal does not know",
        ),
        pytest.param(outcome(), Status.FAILED, "ATTEMPT_TIMEOUT", id="nor does one that broke while it was stopped"),
    ],
)
async def test_a_worker_that_was_told_to_stop_and_reports(
    world: World, report: Outcome, status: Status, code: str | None
) -> None:
    world.policy = Policy(attempt_timeout_ms=600_000)
    await world.put(running())
    await world.look(600_000)
    answer = await world.commands().complete(report)
    assert answer.reply is Reply.RECORDED
    latest = await world.latest()
    assert (latest.status, latest.error_code) == (status, code)
    if code:
        assert str(latest.error_message).startswith("the attempt ran too long and was told to stop; its worker said: ")


async def test_a_worker_that_was_told_to_stop_before_it_began_must_not_begin(world: World) -> None:
    """Otherwise it would work beside the one that is launched in its place."""
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.STARTING)
    await world.look(POLICY.start_timeout_ms)
    claim = await world.commands().claim("task-1", attempt=1, launch_try=1, claim_id="late")
    assert claim.reply is Reply.REFUSED
    world.launcher.see(WORKER, WorkerState.STOPPED, never_started=True, code=OWN_STOP)
    latest = await world.look(1)
    assert (latest.status, latest.stop, latest.verdict.code if latest.verdict else None) == (
        Status.PENDING,
        None,
        "START_TIMEOUT",
    )


async def test_a_worker_whose_attempt_is_cancelled_is_not_stopped_for_its_deadline_as_well(world: World) -> None:
    world.policy = Policy(attempt_timeout_ms=600_000)
    await world.put(cancelling(running()))
    latest = await world.look(600_000)
    assert (latest.stop, [call for call in world.launcher.calls if call[0] == "stop"]) == (None, [])


# Taken away by the platform


async def test_a_worker_that_was_taken_away_is_launched_again_within_the_attempt(world: World) -> None:
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.STOPPED, "SpotInterruption", code="WORKER_PREEMPTED")
    assert (await world.look()).status is Status.RUNNING, "its callback may be on the way"
    latest = await world.look(GRACE_MS)
    assert (latest.number, latest.status, latest.launch, latest.run) == (1, Status.PENDING, None, 1)
    assert (latest.launch_tries, latest.suspicion, latest.error_code) == (1, None, None)
    assert latest.verdict is not None
    assert (latest.verdict.kind, latest.verdict.code, latest.verdict.launch_try) == ("preempted", "WORKER_PREEMPTED", 1)
    assert world.woken == ["task-1"]


async def test_a_worker_that_was_taken_away_in_the_last_try_fails_with_its_code(world: World) -> None:
    world.policy = Policy(max_launch_tries=1)
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.STOPPED, "SpotInterruption", code="WORKER_PREEMPTED")
    await world.look()
    latest = await world.look(GRACE_MS)
    assert (latest.status, latest.error_code) == (Status.FAILED, "WORKER_PREEMPTED")


async def test_a_worker_without_an_image_is_not_launched_again(world: World) -> None:
    await world.put(running())
    world.launcher.see(WORKER, WorkerState.STOPPED, "CannotPull", never_started=True, code="IMAGE_ERROR")
    latest = await world.look()
    assert (latest.status, latest.error_code, latest.launch_tries) == (Status.FAILED, "IMAGE_ERROR", 1)


@pytest.mark.parametrize(
    ("found", "status", "code"),
    [
        pytest.param("WORKER_PREEMPTED", Status.PENDING, None, id="the platform took it: launched again"),
        pytest.param("WORKER_FAILED", Status.FAILED, "WORKER_STOPPED_EXTERNALLY", id="its exit code says less"),
        pytest.param(None, Status.FAILED, "WORKER_STOPPED_EXTERNALLY", id="nobody says"),
    ],
)
async def test_a_worker_that_felt_a_signal_is_looked_at_before_its_word_counts(
    world: World, found: str | None, status: Status, code: str | None
) -> None:
    """A platform that takes a worker away sends it the same signal as anybody else, and that spends no retry."""
    await world.put(running())
    report = outcome(error={"message": "stopped by signal SIGTERM", "code": "WORKER_STOPPED_EXTERNALLY"})
    for _ in range(2):
        answer = await world.commands().complete(report)
        assert (answer.reply, answer.status) == (Reply.RECORDED, Status.RUNNING)
    assert (await world.look()).is_stopping
    world.launcher.see(WORKER, WorkerState.STOPPED, "exit code 143", code=found)
    latest = await world.look(1)
    assert (latest.status, latest.error_code, latest.is_stopping) == (status, code, False)
    assert [item.detail for item in latest.evidence] == ["stopped by signal SIGTERM", "exit code 143"]
    if code:
        assert latest.error_message == "stopped by signal SIGTERM"
        assert latest.result is not None
        assert latest.result.received_at == NOW_MS


async def test_a_worker_that_said_that_it_stops_and_does_not_is_believed_after_the_grace(world: World) -> None:
    await world.put(stop_reported(running()))
    assert (await world.look(GRACE_MS - 1)).status is Status.RUNNING
    assert (await world.look(1)).error_code == "WORKER_STOPPED_EXTERNALLY"


async def test_a_report_of_a_worker_that_nobody_here_can_look_at_counts_after_the_grace(world: World) -> None:
    await world.put(stop_reported(running()).with_latest(launcher="ecs"))
    assert (await world.look(GRACE_MS - 1)).status is Status.RUNNING
    assert (await world.look(1)).error_code == "WORKER_STOPPED_EXTERNALLY"


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
