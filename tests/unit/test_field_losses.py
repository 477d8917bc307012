"""What users of other systems suffered from when workers were lost, and cannot suffer from here.

Each test is named after the report that it answers. Looks are read from answers of ECS DescribeTasks where the report
is about ECS.
"""

from __future__ import annotations

from typing import Any

import pytest

from executions.answer import Reply
from executions.conditions import phase, why_execution
from executions.control import cancel
from executions.ecs_evidence import observation_from_task, observation_of_failure
from executions.evidence import Observation, WorkerState
from executions.lifecycle import intend_launch, launched
from executions.notices import notices_from
from executions.policy import Policy
from executions.record import Attempt, Execution, Status
from tests.support.builders import NOW_MS, POLICY, intended, running
from tests.unit.controller.test_sweep import GRACE_MS, WORKER, World
from tests.unit.domain.states import outcome

LAUNCHED = {"containerOverrides": [{"name": "worker", "environment": [{"name": "ALAKAI_TASK_ID", "value": "task-1"}]}]}


@pytest.fixture
def world() -> World:
    return World()


class Ecs:
    """What DescribeTasks answers of the one worker from now on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def says(self, **task: Any) -> None:
        self._see(observation_from_task({"overrides": LAUNCHED, **task}, WORKER))

    def knows_nothing(self) -> None:
        observation = observation_of_failure({"arn": WORKER, "reason": "MISSING"}, WORKER)
        assert observation is not None
        self._see(observation)

    def _see(self, seen: Observation) -> None:
        self._world.launcher.see(
            WORKER,
            seen.state,
            seen.detail,
            exit_code=seen.exit_code,
            never_started=seen.never_started,
            code=seen.code,
        )


@pytest.fixture
def ecs(world: World) -> Ecs:
    return Ecs(world)


async def judged(world: World, looks: int = 12) -> Attempt:
    """The attempt after so many looks, 15 s apart, or as soon as it is over or waits for its next launch."""
    for _ in range(looks):
        latest = await world.look(15_000)
        if not latest.is_live:
            break
    return latest


async def seen_by_a_user(world: World) -> tuple[Execution, list[str]]:
    """The execution, and the reasons of the Events that are told of it."""
    execution = (await world.store.read("task-1")).execution
    assert execution is not None
    return execution, [item.why.reason for item in notices_from(execution, POLICY, since_attempt=1)]


async def test_airflow_29455_the_message_names_the_true_cause(world: World, ecs: Ecs) -> None:
    """ "Not all zombies are caused by missed heartbeat"."""
    await world.put(running())
    ecs.says(
        lastStatus="STOPPED",
        stopCode="EssentialContainerExited",
        stoppedReason="Essential container in task exited",
        containers=[{"name": "worker", "exitCode": 137, "reason": "OutOfMemoryError: Container killed"}],
    )
    await judged(world)
    execution, events = await seen_by_a_user(world)
    why = why_execution(execution)
    assert (why.reason, events) == ("WorkerOom", ["WorkerOom"])
    assert why.message.startswith("the worker ran out of memory (confirmed; a callback of launch 1 would refute it): ")
    assert "OutOfMemoryError: Container killed" in why.message


@pytest.mark.parametrize("looks", [0, 1, 5])
async def test_airflow_12396_a_task_that_finished_successfully_is_never_failed_afterwards(
    world: World, looks: int
) -> None:
    await world.put(running())
    world.launcher.end(WORKER, exit_code=0)
    for _ in range(looks):
        await world.look(GRACE_MS // 6)
    assert (await world.commands().complete(outcome(succeeded=True))).reply is Reply.RECORDED
    before = await world.latest()
    for _ in range(3):
        assert await world.look(GRACE_MS) == before
    assert before.status is Status.SUCCEEDED


async def test_airflow_12396_a_success_that_comes_after_the_verdict_is_kept_told_and_changes_nothing(
    world: World,
) -> None:
    await world.put(running())
    world.launcher.end(WORKER)
    lost = await judged(world)
    assert (await world.commands().complete(outcome(succeeded=True))).reply is Reply.ALREADY_FINISHED
    execution, events = await seen_by_a_user(world)
    latest = execution.latest
    assert latest.late_results[0].succeeded
    assert latest.model_copy(update={"late_results": []}) == lost
    assert events == ["WorkerLost", "VerdictRefuted"]


async def test_airflow_51969_the_same_worker_is_judged_once(world: World) -> None:
    await world.put(running())
    world.launcher.end(WORKER)
    lost, version = await judged(world), await world.version()
    for _ in range(3):
        assert await world.look(GRACE_MS) == lost
    assert await world.version() == version
    assert (await seen_by_a_user(world))[1] == ["WorkerLost"]


async def test_airflow_66773_a_worker_that_never_gave_a_sign_of_life_is_found(world: World, ecs: Ecs) -> None:
    """No heartbeat, no claim, never seen: what is missing is compared with the launch intent, which is always there."""
    await world.put(running())
    ecs.knows_nothing()
    latest = await judged(world)
    assert (latest.status, latest.error_code) == (Status.FAILED, "WORKER_LOST")
    assert latest.verdict is not None
    assert (latest.verdict.grade, latest.verdict.last_seen_alive_at) == ("presumed", None)
    assert intended().latest.is_live, "an intent without an answer is live, and its replay wakes it"


async def test_prefect_22410_a_task_that_failed_to_start_without_containers_is_launched_again(
    world: World, ecs: Ecs
) -> None:
    await world.put(running())
    ecs.says(lastStatus="STOPPED", stopCode="TaskFailedToStart", stoppedReason="Timeout waiting for ENI", containers=[])
    latest = await judged(world, looks=1)
    assert (latest.number, latest.status, latest.launch_not_before is not None) == (1, Status.PENDING, True)


async def test_prefect_20466_a_failed_start_is_visible_without_any_event_of_the_platform(
    world: World, ecs: Ecs
) -> None:
    await world.put(running())
    ecs.says(lastStatus="STOPPED", stopCode="TaskFailedToStart", stoppedReason="Timeout waiting for ENI", containers=[])
    await judged(world, looks=1)
    execution, events = await seen_by_a_user(world)
    assert (why_execution(execution).reason, events) == ("WaitingForRelaunch", ["WorkerRelaunched"])
    assert "Timeout waiting for ENI" in why_execution(execution).message


async def test_dagster_17448_a_worker_killed_for_memory_does_not_stay_started(world: World, ecs: Ecs) -> None:
    """With no setting that had to be switched on."""
    world.policy = Policy()
    await world.put(running())
    ecs.says(
        lastStatus="STOPPED", stopCode="EssentialContainerExited", containers=[{"name": "worker", "exitCode": 137}]
    )
    assert (await judged(world)).error_code == "WORKER_OOM"


async def test_containers_roadmap_2040_a_task_whose_agent_is_gone_is_no_loss_and_does_not_run_for_ever(
    world: World, ecs: Ecs
) -> None:
    """Agents reconnect several times an hour; a deadline, and in the end the platform, settle what they leave open."""
    world.policy = Policy(attempt_timeout_ms=600_000)
    await world.put(running())
    ecs.says(lastStatus="RUNNING", connectivity="DISCONNECTED", desiredStatus="RUNNING")
    for _ in range(39):
        latest = await world.look(15_000)
        assert (latest.suspicion, latest.stop) == (None, None)
    world.launcher.stop_calls_needed = 100  # an agent that is gone stops nothing
    for _ in range(3):
        latest = await world.look(15_000)
    assert latest.stop is not None
    assert len([call for call in world.launcher.calls if call[0] == "stop"]) == 3
    ecs.knows_nothing()
    latest = await judged(world)
    assert (latest.status, latest.error_code) == (Status.FAILED, "ATTEMPT_TIMEOUT")


@pytest.mark.parametrize("state", [WorkerState.STOPPED, WorkerState.MISSING])
async def test_argo_3006_8456_nothing_stays_running_without_a_worker(world: World, state: WorkerState) -> None:
    await world.put(running())
    world.launcher.see(WORKER, state)
    latest = await judged(world)
    assert (latest.status, latest.error_code) == (Status.FAILED, "WORKER_LOST")


async def test_airflow_52943_a_failed_start_repeats_the_launch_and_never_ends_as_success(
    world: World, ecs: Ecs
) -> None:
    execution = running()
    for launch_try in range(1, POLICY.max_launch_tries + 1):
        await world.put(execution)
        ecs.says(lastStatus="STOPPED", stopCode="TaskFailedToStart", stoppedReason="no network", containers=[])
        latest = await judged(world, looks=1)
        found = (await world.store.read("task-1")).execution
        assert found is not None
        assert latest.launch_tries == launch_try
        if latest.status is Status.PENDING:
            execution = launched(
                intend_launch(found, 1, token="u" * 64, request={}, now_ms=world.store.now, policy=POLICY),
                1,
                launch_try + 1,
                worker_id=WORKER,
                now_ms=world.store.now,
            )
    assert (latest.number, latest.status, latest.error_code) == (1, Status.FAILED, "WORKER_NEVER_STARTED")


async def test_oasis_platform_975_a_worker_that_runs_out_of_memory_is_not_started_again_for_ever(
    world: World, ecs: Ecs
) -> None:
    """It is the task's own doing: no relaunch within the attempt, and a retry only within the budget."""
    await world.put(running())
    ecs.says(
        lastStatus="STOPPED", stopCode="EssentialContainerExited", containers=[{"name": "worker", "exitCode": 137}]
    )
    latest = await judged(world)
    assert (latest.number, latest.status, latest.launch_tries) == (1, Status.FAILED, 1)
    assert not Policy(max_retries=0).may_retry(latest.number)


async def test_kubernetes_95431_a_worker_that_hangs_is_stopped_and_its_task_can_be_retried(world: World) -> None:
    world.policy = Policy(attempt_timeout_ms=600_000)
    await world.put(running())
    latest = await judged(world, looks=60)
    assert (latest.status, latest.error_code) == (Status.FAILED, "ATTEMPT_TIMEOUT")
    assert (await world.commands().retry("task-1", requested_by="jane")).reply is Reply.QUEUED


async def test_kubernetes_95431_a_worker_that_is_never_scheduled_is_replaced(world: World, ecs: Ecs) -> None:
    await world.put(running())
    ecs.says(lastStatus="PROVISIONING", containers=[])
    latest = await world.look(POLICY.start_timeout_ms)
    assert latest.stop is not None
    ecs.says(lastStatus="STOPPED", stopCode="UserInitiated", stoppedReason="alakai: late", containers=[])
    latest = await judged(world, looks=1)
    assert (latest.number, latest.status) == (1, Status.PENDING)
    assert latest.verdict is not None
    assert latest.verdict.code == "START_TIMEOUT"


@pytest.mark.parametrize("missing_seconds", [15, 45])
async def test_boto3_842_3393_and_dask_cloudprovider_483_missing_right_after_the_launch_kills_nobody(
    world: World, ecs: Ecs, missing_seconds: int
) -> None:
    await world.put(running())
    ecs.knows_nothing()
    for _ in range(missing_seconds // 15):
        assert (await world.look(15_000)).suspicion is None
    ecs.says(lastStatus="RUNNING")
    assert (await world.look(15_000)).is_live


async def test_kelos_1348_what_the_platform_takes_away_spends_no_retry(world: World, ecs: Ecs) -> None:
    """Neither when the worker says nothing, nor when it reports the signal that it felt."""
    report = outcome(error={"message": "stopped by signal SIGTERM", "code": "WORKER_STOPPED_EXTERNALLY"})
    for has_reported in (False, True):
        await world.put(running())
        if has_reported:
            await world.commands().complete(report)
        ecs.says(lastStatus="STOPPED", stopCode="SpotInterruption", containers=[{"name": "worker", "exitCode": 143}])
        latest = await judged(world)
        assert (latest.number, latest.status, latest.run) == (1, Status.PENDING, 1)


async def test_a_user_who_cancels_is_not_told_of_a_loss(world: World) -> None:
    cancelled = cancel(running(), "task-1", reason="not needed", requested_by="jane", now_ms=NOW_MS).execution
    assert cancelled is not None
    await world.put(cancelled)
    world.launcher.end(WORKER)
    await world.look(15_000)
    execution, events = await seen_by_a_user(world)
    assert (phase(execution), events, execution.latest.verdict) == ("Cancelled", ["Cancelled"], None)
