"""What ECS does to its callers: refusals that are none, throttling, answers that prove nothing, a thousand workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from devstack.aws import AwsServer
from executions.adapters.ecs_client import EcsClient, EcsUnclear
from executions.adapters.ecs_launcher import EcsLauncher, started_by
from executions.adapters.token_bucket import TokenBucket
from executions.errors import LaunchRefused, LaunchUnclear
from executions.evidence import WorkerState
from executions.ports import LaunchIntent
from executions.record import Rung
from tests.support.ecs_shim import HOUR_SECONDS, EcsShim, Fault, Refusal
from tests.support.ecs_world import (
    ACCESS_DENIED,
    ENVIRONMENT,
    FOREIGN_VARIABLES,
    REGION,
    SETTINGS,
    EcsWorld,
    make_cluster,
)
from tests.support.launcher_contract import an_intent, state_of


@pytest.fixture(scope="module")
def cluster(aws: AwsServer) -> dict[str, Any]:
    return make_cluster(aws.url)


@pytest.fixture
async def world(
    aws: AwsServer, cluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EcsWorld]:
    for name in FOREIGN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    async with EcsShim(aws.url) as shim:
        world = EcsWorld(shim, cluster, tmp_path)
        yield world
        await world.launcher.close()


@pytest.mark.parametrize("unlisted", [0, 1])
async def test_airflow_16150_failures_are_verified_before_another_launch(world: EcsWorld, unlisted: int) -> None:
    """A retry on ``failures[]`` left two tasks running, one of them a ghost."""
    intent = an_intent(world)
    world.shim.fail("ListTasks", Fault.NOT_LISTED, unlisted)
    world.shim.fail("RunTask", Fault.FAILURES_AFTER)
    answer = await world.launcher.launch(intent)
    assert world.shim.alive(intent.order.token) == [answer.worker_id]
    assert answer.rung is Rung.VERIFIED
    assert answer.detail == "RunTask placed no task: RESOURCE:MEMORY; ListTasks shows that it started"


@pytest.mark.parametrize("reason", ["RESOURCE:MEMORY", "RESOURCE:CPU", "Capacity is unavailable at this time", "AGENT"])
async def test_prefect_20765_failures_without_a_task_are_a_lack_of_capacity_and_not_the_tasks_end(
    world: EcsWorld, reason: str
) -> None:
    """Managed instances answer RESOURCE:MEMORY while they scale."""
    world.shim.failure_reason = reason
    world.shim.fail("RunTask", Fault.FAILURES)
    with pytest.raises(LaunchRefused, match=reason) as refused:
        await world.launcher.launch(an_intent(world))
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_CAPACITY", False)
    assert world.shim.requests["ListTasks"] == [
        {"cluster": world.ecs_settings.cluster, "startedBy": item["startedBy"]}
        for item in world.shim.requests["RunTask"] * 2
    ]


@pytest.mark.parametrize(
    ("code", "message", "expected", "permanent"),
    [
        ("ClientException", "You have reached the limit on the number of tasks in PROVISIONING", "CAPACITY", False),
        ("ClientException", "Task definition placement: provisioning quota exceeded", "CAPACITY", False),
        ("ClientException", "something new", "CAPACITY", False),
        ("InvalidParameterException", "No Container Instances were found in your cluster.", "CAPACITY", False),
        ("ClientException", "TaskDefinition is inactive", "REJECTED", True),
        ("ClientException", "Unable to find task definition", "REJECTED", True),
        ("InvalidParameterException", "Invalid subnet; the limit is 16", "REJECTED", True),
        ("AccessDeniedException", "is not authorized to perform: iam:PassRole", "REJECTED", True),
        ("ClusterNotFoundException", "Cluster not found.", "REJECTED", True),
        ("PlatformUnknownException", "no such platform", "REJECTED", True),
        ("PlatformTaskDefinitionIncompatibilityException", "no", "REJECTED", True),
        ("UnsupportedFeatureException", "no", "REJECTED", True),
        ("BlockedException", "Your account is blocked", "REJECTED", True),
    ],
)
async def test_what_each_refusal_means(
    world: EcsWorld, code: str, message: str, expected: str, permanent: bool
) -> None:
    world.shim.fail("RunTask", Refusal(code, message))
    with pytest.raises(LaunchRefused) as refused:
        await world.launcher.launch(an_intent(world))
    assert message in str(refused.value)
    assert (refused.value.code, refused.value.permanent) == (f"LAUNCH_{expected}", permanent)
    assert world.shim.launches == []


async def test_aws_sdk_ruby_3047_a_quota_that_shows_as_an_exception_is_a_lack_of_capacity(world: EcsWorld) -> None:
    """ClientException is also what wrong requests get; taken as one, a full quota ended tasks for good."""
    world.shim.fail("RunTask", Refusal("ClientException", "You've reached the limit on the number of tasks"))
    with pytest.raises(LaunchRefused) as refused:
        await world.launcher.launch(an_intent(world))
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_CAPACITY", False)


async def test_a_refused_repeat_adopts_what_the_first_sending_started(world: EcsWorld) -> None:
    """Rights taken away between two sendings prove nothing about the first."""
    intent = an_intent(world)
    world.shim.fail("RunTask", Fault.LOSE_REPLY)
    world.shim.fail("RunTask", ACCESS_DENIED)
    with pytest.raises(LaunchUnclear):
        await world.launcher.launch(intent)
    assert (await world.launcher.launch(intent)).worker_id == world.shim.launches[0].arn


@pytest.mark.parametrize("fault", [ACCESS_DENIED, Fault.THROTTLE, Fault.LOSE_REQUEST])
async def test_a_refusal_that_cannot_be_verified_is_unclear(world: EcsWorld, fault: Fault | Refusal) -> None:
    world.shim.fail("RunTask", Fault.FAILURES)
    world.shim.fail("ListTasks", fault)
    with pytest.raises(LaunchUnclear, match="not verified"):
        await world.launcher.launch(an_intent(world))


@pytest.mark.parametrize(
    ("code", "status"),
    [("ExpiredTokenException", 400), ("UnrecognizedClientException", 400), ("InvalidSignatureException", 403)],
)
async def test_bad_credentials_are_not_the_tasks_fault_and_reach_no_message(
    world: EcsWorld, code: str, status: int
) -> None:
    world.shim.fail("RunTask", Refusal(code, "x-amz-security-token:FwoGsessiontoken", status))
    with pytest.raises(LaunchUnclear, match=code) as unclear:
        await world.launcher.launch(an_intent(world))
    assert "FwoG" not in repr(unclear.value)
    assert unclear.value.__cause__ is not None
    assert unclear.value.__cause__.__cause__ is None


async def test_a_request_that_boto3_itself_refuses_is_rejected(world: EcsWorld) -> None:
    intent = an_intent(world)
    with pytest.raises(LaunchRefused) as refused:
        await world.launcher.launch(LaunchIntent(intent.order, {**intent.request, "taskDefinition": 7}))
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_REJECTED", True)


# Looks


async def test_boto3_842_a_task_that_ecs_does_not_know_yet_is_missing_and_then_seen(world: EcsWorld) -> None:
    """MISSING right after RunTask killed waiters."""
    world.shim.missing_looks = 2
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    looks = [await state_of(world.launcher, worker_id) for _ in range(3)]
    assert looks == [WorkerState.MISSING, WorkerState.MISSING, WorkerState.RUNNING]


async def test_a_young_task_that_ecs_does_not_know_yet_is_not_taken_as_stopped(world: EcsWorld) -> None:
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    world.shim.missing_looks = 1
    world.shim.fail("StopTask", Refusal("InvalidParameterException", "The referenced task was not found."))
    assert await world.launcher.stop(worker_id, "enough") is False
    world.now_seconds = 60
    world.shim.missing_looks = 2
    world.shim.fail("StopTask", Refusal("InvalidParameterException", "The referenced task was not found."))
    assert await world.launcher.stop(worker_id, "enough") is True


async def test_looking_changes_nothing_and_a_start_is_seen(world: EcsWorld) -> None:
    world.shim.first_status = "PROVISIONING"
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    for _ in range(10):
        assert await state_of(world.launcher, worker_id) is WorkerState.STARTING
    world.shim.become(worker_id, "RUNNING")
    assert await state_of(world.launcher, worker_id) is WorkerState.RUNNING
    world.shim.finish(worker_id, exit_code=137, container_reason="OutOfMemoryError: container killed")
    (observation,) = await world.launcher.observe([worker_id])
    assert (observation.state, observation.exit_code) == (WorkerState.STOPPED, 137)
    assert (observation.code, observation.version) == ("WORKER_OOM", 4)
    assert observation.detail.startswith("STOPPED, EssentialContainerExited")
    world.shim.advance(HOUR_SECONDS)
    assert await state_of(world.launcher, worker_id) is WorkerState.MISSING


async def test_a_thousand_workers_are_seen_with_ten_calls(world: EcsWorld) -> None:
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    ids = world.shim.seed(worker_id, 1000)
    gone = ids[::7]
    for arn in gone:
        world.shim.become(arn, "STOPPED", stopCode="SpotInterruption")
    begun = time.monotonic()
    observations = await world.launcher.observe(ids)
    print(f"1000 workers, {len(gone)} of them gone, seen in {time.monotonic() - begun:.2f} s")  # noqa: T201
    assert world.shim.calls["DescribeTasks"] == 10
    assert {item.worker_id for item in observations} == set(ids)
    assert {item.worker_id for item in observations if item.state is WorkerState.STOPPED} == set(gone)
    await world.launcher.observe(ids[:101])
    assert world.shim.calls["DescribeTasks"] == 12
    await world.launcher.observe(ids[:100])
    assert world.shim.calls["DescribeTasks"] == 13


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.SERVER_ERROR, ACCESS_DENIED, Refusal("ClientException")])
async def test_a_failed_look_is_no_evidence(world: EcsWorld, fault: Fault | Refusal) -> None:
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    ids = world.shim.seed(worker_id, 150)
    world.shim.fail("DescribeTasks", fault)
    assert len(await world.launcher.observe(ids)) in (50, 100), "the other batch is still seen"
    world.shim.fail("DescribeTasks", fault, 2)
    with pytest.raises(LaunchUnclear):
        await world.launcher.observe(ids)
    assert await state_of(world.launcher, worker_id) is WorkerState.RUNNING


async def test_ids_of_another_region_are_left_out_and_malformed_ones_spoil_no_batch(world: EcsWorld) -> None:
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    elsewhere = worker_id.replace(REGION, "us-east-1")
    malformed = f"{worker_id}?"
    observations = await world.launcher.observe([elsewhere, malformed, worker_id])
    assert {item.worker_id: item.state for item in observations} == {
        malformed: WorkerState.MISSING,
        worker_id: WorkerState.RUNNING,
    }


# Throttling


async def test_prefect_18584_throttled_launches_do_not_starve_the_looks(world: EcsWorld) -> None:
    """Throttling of one call held up every other for hours."""
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    intents = [an_intent(world, f"task-{number}") for number in range(40)]
    world.shim.fail("RunTask", Fault.THROTTLE, 1000)
    waiting = [asyncio.create_task(world.launcher.launch(intent)) for intent in intents]
    begun = time.monotonic()
    for _ in range(10):
        assert await state_of(world.launcher, worker_id) is WorkerState.RUNNING
    assert time.monotonic() - begun < 5
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {LaunchUnclear}
    assert world.shim.alive(intents[0].order.token) == []
    # Each is the same launch when it is sent again.
    world.shim.heal()
    restarted = world.reopened()
    assert (await restarted.launch(intents[0])).worker_id == world.shim.launches[-1].arn
    await restarted.close()


async def test_prefect_18584_throttled_looks_starve_neither_launches_nor_stops(world: EcsWorld) -> None:
    """As hints and passes make them: the looks wait, and nothing waits for them."""
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    world.shim.fail("DescribeTasks", Fault.THROTTLE, 1000)
    looking = [asyncio.create_task(world.launcher.observe([worker_id])) for _ in range(100)]
    await asyncio.sleep(0)
    for number in range(5):
        other = (await world.launcher.launch(an_intent(world, f"task-{number}"))).worker_id
        assert await world.launcher.stop(other, "enough") is True
    results = await asyncio.gather(*looking, return_exceptions=True)
    assert {type(result) for result in results} == {LaunchUnclear}


async def test_after_a_throttled_launch_the_next_ones_wait_and_in_the_end_are_not_sent(world: EcsWorld) -> None:
    now, slept = 1000.0, list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    client = EcsClient(
        region=REGION,
        endpoint_url=world.shim.url,
        buckets=lambda burst, per_second: TokenBucket(burst, per_second, clock=lambda: now, sleep=sleep),
    )
    launcher = EcsLauncher(world.ecs_settings, client, SETTINGS, world.payloads)
    intent = an_intent(world)
    world.shim.fail("RunTask", Fault.THROTTLE, 100)
    for _ in range(5):
        with pytest.raises(LaunchUnclear, match="was throttled"):
            await launcher.launch(intent)
    with pytest.raises(LaunchUnclear, match="was not sent: too many calls are waiting, or ECS throttles us"):
        await launcher.launch(intent)
    assert slept == [0.5, 1, 2, 4]
    assert world.shim.calls["RunTask"] == 5
    world.shim.fail("ListTasks", Fault.THROTTLE)
    with pytest.raises(LaunchUnclear, match="ListTasks was throttled"):
        await launcher.find(intent)
    assert await state_of(launcher, "arn:aws:ecs:eu-west-1:000000000000:task/c/" + "0" * 32) is WorkerState.MISSING
    assert slept == [0.5, 1, 2, 4], "looks wait neither for launches nor for their verification"
    await launcher.close()


async def test_launches_that_hang_leave_threads_to_the_looks(world: EcsWorld) -> None:
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    launcher = world.reopened(answer_seconds=3)
    world.shim.fail("RunTask", Fault.NO_REPLY, 100)
    waiting = [asyncio.create_task(launcher.launch(an_intent(world, f"task-{number}"))) for number in range(8)]
    async with asyncio.timeout(3):
        assert await state_of(launcher, worker_id) is WorkerState.RUNNING
    assert not any(task.done() for task in waiting)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {LaunchUnclear}
    await launcher.close()


async def test_a_list_that_never_ends_is_given_up(world: EcsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id
    world.shim.seed(worker_id, 250)
    monkeypatch.setattr("executions.adapters.ecs_client._PAGES", 2)
    client = EcsClient(region=REGION, endpoint_url=world.shim.url)
    with pytest.raises(EcsUnclear, match="more than 2 pages"):
        await client.live_tasks(world.ecs_settings.cluster, started_by(world.shim.launches[0].token))
    await client.close()
