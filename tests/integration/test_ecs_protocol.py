"""The launch-intent protocol with the reconciler on ECS: whatever breaks off where, the shim's own log shows one live
task per attempt at most, and one that is known or being stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from devstack.aws import AwsServer
from executions.adapters.ecs_client import EcsClient
from executions.adapters.ecs_launcher import EcsLauncher
from executions.errors import LaunchUnclear
from executions.lifecycle import ended, launch_failed
from executions.plan import REPLAY_LIMIT_MS
from executions.policy import Policy
from executions.record import Execution, Rung, Status
from tests.support.builders import POLICY, pending
from tests.support.ecs_controller import Crash, EcsController
from tests.support.ecs_shim import DAY_SECONDS, HOUR_SECONDS, EcsShim, Fault, Refusal
from tests.support.ecs_world import ENVIRONMENT, FOREIGN_VARIABLES, REGION, SETTINGS, EcsWorld, make_cluster
from tests.support.launcher_contract import an_intent
from tests.unit.domain.states import cancelling, claimed_again


@pytest.fixture(scope="module")
def cluster(aws: AwsServer) -> dict[str, Any]:
    return make_cluster(aws.url)


@pytest.fixture
async def world(
    aws: AwsServer, cluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EcsController]:
    for name in FOREIGN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    async with EcsShim(aws.url) as shim:
        world = EcsController(EcsWorld(shim, cluster, tmp_path))
        await world.put(pending().with_latest(launcher="ecs"))
        yield world
        await world.close()


def the_worker_is_the_only_one(world: EcsController, found: Execution, rung: Rung) -> None:
    (started,) = world.shim.launches
    assert world.alive() == [started.arn]
    assert (found.latest.status, found.latest.worker_id, found.latest.launch_tries) == (Status.RUNNING, started.arn, 1)
    assert found.latest.launch is not None
    assert found.latest.launch.rung is rung


# Crashes and lost answers while the token lives


@pytest.mark.parametrize("when", ["dies_before", "dies_after"])
async def test_prefect_20485_a_controller_that_dies_around_the_sending_is_followed_by_one_that_sends_the_same(
    world: EcsController, when: str
) -> None:
    """A crash between writing down that the task is pending and RunTask left it pending for ever."""
    reconciler, launcher = world.controller()
    setattr(launcher, when, True)
    with pytest.raises(Crash):
        await reconciler.reconcile("task-1")
    the_worker_is_the_only_one(world, await world.settle(), Rung.SENT)


@pytest.mark.parametrize("fault", [Fault.LOSE_REQUEST, Fault.LOSE_REPLY, Fault.SERVER_ERROR_AFTER, Fault.THROTTLE])
async def test_a_lost_or_throttled_answer_is_asked_for_again(world: EcsController, fault: Fault) -> None:
    world.shim.fail("RunTask", fault, 2)
    the_worker_is_the_only_one(world, await world.settle(), Rung.SENT)
    assert world.shim.calls["RunTask"] == 3


async def test_a_refused_launch_that_started_is_adopted_and_says_how(world: EcsController) -> None:
    world.shim.fail("RunTask", Fault.FAILURES_AFTER)
    found = await world.settle()
    the_worker_is_the_only_one(world, found, Rung.VERIFIED)
    assert [(item.source, item.detail) for item in found.latest.evidence] == [
        ("ecs:launch", "RunTask placed no task: RESOURCE:MEMORY; ListTasks shows that it started")
    ]


async def test_a_conflict_adopts_what_the_token_started_and_says_so(world: EcsController) -> None:
    """The request of a launch must not change; where it did all the same, no second worker starts."""
    world.shim.fail("RunTask", Fault.LOSE_REPLY)
    with pytest.raises(LaunchUnclear):
        await world.controller()[0].reconcile("task-1")
    latest = (await world.found()).latest
    assert latest.launch is not None
    changed = {**latest.launch.request, "taskDefinition": str(latest.launch.request["taskDefinition"])[:-1] + "2"}
    await world.alter(
        lambda found: found.with_latest(launch=latest.launch.model_copy(update={"request": changed}))  # type: ignore[union-attr]
    )
    found = await world.settle()
    the_worker_is_the_only_one(world, found, Rung.CONFLICT)
    assert "other parameters" in found.latest.evidence[-1].detail


# Refusals


async def test_a_refused_launch_is_verified_and_then_tried_with_a_token_of_its_own(world: EcsController) -> None:
    """ECS answers the repeat of a token with its first answer, so the same one could be refused for 24 hours."""
    world.shim.fail("RunTask", Fault.FAILURES, 3)
    found = await world.settle()
    assert (found.latest.status, found.latest.launch_tries, found.latest.number) == (Status.RUNNING, 4, 1)
    sent = [item["clientToken"] for item in world.shim.requests["RunTask"]]
    assert len(set(sent)) == 4
    assert [item.token for item in world.shim.launches] == sent[-1:]
    verified = {item["startedBy"] for item in world.shim.requests["ListTasks"]}
    assert verified == {item["startedBy"] for item in world.shim.requests["RunTask"][:3]}
    assert {item.detail for item in found.latest.evidence} == {
        "RunTask placed no task: RESOURCE:MEMORY (ListTasks shows no task of this launch)"
    }


async def test_sleeper_6099_refusals_are_bounded_and_spend_no_retry(world: EcsController) -> None:
    """Launch failures were retried for ever, at somebody's cost."""
    world.policy = Policy(max_launch_tries=3, max_retries=1)
    world.shim.fail("RunTask", Fault.FAILURES, 100)
    began = world.store.now
    latest = (await world.settle()).latest
    assert (latest.status, latest.error_code, latest.number) == (Status.FAILED, "LAUNCH_CAPACITY", 1)
    assert world.shim.calls["RunTask"] == 3
    assert world.store.now - began == 1000 + 2000, "the back-off doubles"
    assert world.policy.may_retry(latest.number)


async def test_a_refusal_that_cannot_be_verified_is_followed_by_the_same_launch(world: EcsController) -> None:
    world.shim.fail("RunTask", Fault.FAILURES_AFTER)
    world.shim.fail("ListTasks", Fault.THROTTLE)
    the_worker_is_the_only_one(world, await world.settle(), Rung.SENT)
    assert len({item["clientToken"] for item in world.shim.requests["RunTask"]}) == 1


# Launches that grew old


async def unanswered(world: EcsController, fault: Fault = Fault.LOSE_REPLY) -> None:
    world.shim.fail("RunTask", fault)
    with pytest.raises(LaunchUnclear):
        await world.controller()[0].reconcile("task-1")
    world.shim.calls.clear()


async def test_a_task_that_outlived_its_token_is_adopted(world: EcsController) -> None:
    await unanswered(world)
    world.pass_time(DAY_SECONDS + 1)
    the_worker_is_the_only_one(world, await world.settle(), Rung.LISTED)
    assert world.shim.calls["RunTask"] == 0


async def test_airflow_72421_a_task_that_stopped_is_adopted_and_not_launched_again(world: EcsController) -> None:
    """Reattaching saw running tasks only; a finished one was launched once more."""
    await unanswered(world)
    world.pass_time(REPLAY_LIMIT_MS / 1000 - 60)
    world.shim.finish(world.shim.launches[0].arn)
    world.pass_time(HOUR_SECONDS - 60)
    latest = (await world.settle()).latest
    assert latest.worker_id == world.shim.launches[0].arn
    assert len(world.shim.launches) == 1


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.LOSE_REQUEST])
async def test_a_launch_whose_token_may_be_forgotten_is_never_sent_again(world: EcsController, fault: Fault) -> None:
    await unanswered(world, fault)
    for started in world.shim.launches:
        world.shim.finish(started.arn)
    world.pass_time(HOUR_SECONDS)
    launches = list(world.shim.launches)
    found = await world.settle()
    assert (found.latest.status, found.latest.error_code) == (Status.FAILED, "START_TIMEOUT")
    assert "could not be proven" in (found.latest.error_message or "")
    assert (world.shim.calls["RunTask"], world.shim.launches) == (0, launches)


async def test_a_list_that_does_not_show_it_yet_is_asked_twice(world: EcsController) -> None:
    await unanswered(world)
    world.pass_time(REPLAY_LIMIT_MS / 1000)
    world.shim.fail("ListTasks", Fault.NOT_LISTED)
    the_worker_is_the_only_one(world, await world.settle(), Rung.LISTED)


async def test_a_cluster_that_is_gone_has_no_worker_of_an_old_launch(world: EcsController) -> None:
    await unanswered(world)
    world.pass_time(DAY_SECONDS)
    world.shim.fail("ListTasks", Refusal("ClusterNotFoundException", "Cluster not found."), 9)
    assert (await world.settle()).latest.error_code == "START_TIMEOUT"


# Controllers that stood still


async def test_a_launch_that_waited_for_too_long_in_its_thread_is_not_sent(world: EcsController) -> None:
    """A stopped process, or eight launches that hang before this one: what it was decided on may be untrue by now."""
    times = iter([0.0, 5.1])
    client = EcsClient(region=REGION, endpoint_url=world.shim.url, clock=lambda: next(times))
    launcher = EcsLauncher(world.ecs.ecs_settings, client, SETTINGS, world.ecs.payloads)
    with pytest.raises(LaunchUnclear, match="RunTask was not sent: it waited for too long"):
        await launcher.launch(an_intent(world.ecs))
    assert world.shim.calls["RunTask"] == 0
    await launcher.close()


async def test_the_time_that_the_payload_took_counts_too(world: EcsController) -> None:
    times = iter([0.0, 6.0])
    client = EcsClient(region=REGION, endpoint_url=world.shim.url)
    launcher = EcsLauncher(world.ecs.ecs_settings, client, SETTINGS, world.ecs.payloads, clock=lambda: next(times))
    with pytest.raises(LaunchUnclear, match="RunTask was not sent"):
        await launcher.launch(an_intent(world.ecs))
    assert world.shim.calls["RunTask"] == 0
    await launcher.close()


# Answers that come too late


def given_up(found: Execution) -> Execution:
    return ended(found, 1, Status.FAILED, now_ms=found.latest.claimed_at or 0, code="START_TIMEOUT", message="given up")


def relaunched(found: Execution) -> Execution:
    now_ms = found.latest.claimed_at or 0
    return launch_failed(found, 1, 1, code="X", message="x", permanent=False, now_ms=now_ms, policy=POLICY)


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        pytest.param(given_up, 0, id="the attempt ended"),
        pytest.param(lambda found: claimed_again(given_up(found)).with_latest(launcher="ecs"), 1, id="attempt 2 began"),
        pytest.param(relaunched, 1, id="launch try 2 began"),
    ],
)
async def test_an_orphan_is_stopped(world: EcsController, change: Callable[[Execution], Execution], alive: int) -> None:
    world.shim.stops_at_once = False
    reconciler, launcher = world.controller()
    launcher.meanwhile = lambda: world.alter(change)
    await reconciler.reconcile("task-1")
    orphan = world.shim.launches[0].arn
    assert world.shim.tasks[orphan]["desiredStatus"] == "STOPPED"
    assert world.shim.tasks[orphan]["stoppedReason"] == "alakai: its launch was answered too late"
    world.shim.finish(orphan, stop_code="UserInitiated", exit_code=143)
    found = await world.settle(reconciler)
    assert world.alive() == [found.latest.worker_id] * alive


async def test_a_cancelled_launch_without_an_answer_is_asked_for_it_and_stopped(world: EcsController) -> None:
    await unanswered(world)
    await world.put(cancelling(await world.found()))
    assert (await world.settle()).latest.status is Status.CANCELLED
    assert len(world.shim.launches) == 1
    assert world.alive() == []
