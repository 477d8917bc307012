"""What users of such systems complain about where launching is concerned, each with the issue that tells it: none of it
may happen to ours. Further ones, named in the same way, are beside what they test: ``test_ecs_protocol``,
``test_ecs_failures``, ``test_ecs_launcher``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.loops.consumer import Consumer
from devstack.aws import AwsServer
from executions.operations.commands import Commands
from executions.policy import Policy
from executions.ports import Operation
from executions.record import Rung, Status
from tests.support.builders import a_task, pending, task_document
from tests.support.ecs_controller import EcsController
from tests.support.ecs_shim import HOUR_SECONDS, EcsShim, Fault
from tests.support.ecs_world import ENVIRONMENT, FOREIGN_VARIABLES, EcsWorld, make_cluster
from tests.support.memory_queue import MemoryQueue
from tests.support.waiting import until
from tests.unit.domain.states import claimed_again, reported

DEADLINE_SECONDS = 30.0


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
        yield world
        await world.close()


async def started(world: EcsController) -> str:
    """A task whose worker ECS has begun to start; returns its ARN."""
    await world.put(pending().with_latest(launcher="ecs"))
    arn = (await world.settle()).latest.worker_id
    assert arn is not None
    return arn


def failed_to_start(world: EcsController, arn: str, **fields: Any) -> None:
    world.shim.become(arn, "STOPPED", stopCode="TaskFailedToStart", **fields)
    world.shim.tasks[arn].pop("startedAt", None)


# Workers that never start


async def test_prefect_22410_a_task_that_failed_to_start_without_containers_is_launched_again(
    world: EcsController,
) -> None:
    """Its ``containers`` were empty, so nobody saw it fail: pending for ever."""
    world.shim.first_status = "PROVISIONING"
    arn = await started(world)
    failed_to_start(world, arn, containers=[], stoppedReason="Timeout waiting for network interface provisioning")
    found = await world.sweep()
    assert (found.latest.number, found.latest.launch_tries) == (1, 2)
    assert found.latest.worker_id in world.alive()
    assert found.latest.worker_id != arn


async def test_prefect_20466_a_failure_to_start_is_seen_although_no_event_tells_it(world: EcsController) -> None:
    """With events alone a task that failed to start was invisible. Here nothing pushes anything."""
    world.shim.first_status = "PENDING"
    failed_to_start(world, await started(world), stoppedReason="CannotPullContainerError: i/o timeout")
    assert (await world.sweep()).latest.launch_tries == 2


async def test_dagster_6708_a_task_that_never_leaves_provisioning_is_stopped_and_launched_again(
    world: EcsController,
) -> None:
    """About one in a hundred Fargate tasks never starts; ECS itself waits 10 to 30 minutes, not configurably
    (aws/containers-roadmap#2381)."""
    world.policy = Policy(start_timeout_ms=60_000)
    world.shim.first_status = "PROVISIONING"
    arn = await started(world)
    assert (await world.sweep()).latest.worker_id == arn, "it has its time"
    world.pass_time(60)
    await world.sweep()
    assert world.shim.tasks[arn]["desiredStatus"] == "STOPPED"
    world.shim.tasks[arn].pop("startedAt", None)
    for container in world.shim.tasks[arn]["containers"]:
        for name in ("exitCode", "runtimeId"):
            container.pop(name, None)
    world.shim.first_status = "RUNNING"
    found = await world.sweep()
    assert (found.latest.number, found.latest.launch_tries) == (1, 2)
    assert world.alive() == [found.latest.worker_id]


async def test_kubernetes_120790_no_second_worker_starts_while_the_first_one_terminates(world: EcsController) -> None:
    """Two pods ran for one completion, because the replacement did not wait for the end of the one replaced."""
    world.policy = Policy(start_timeout_ms=60_000)
    world.shim.first_status, world.shim.stops_at_once = "PENDING", False
    arn = await started(world)
    world.pass_time(60)
    for _ in range(5):
        await world.sweep()
        world.pass_time(15)
    assert world.shim.tasks[arn]["lastStatus"] == "STOPPING"
    assert len(world.shim.launches) == 1


async def test_airflow_52943_a_task_that_never_starts_fails_and_is_no_success(world: EcsController) -> None:
    """Only the check was retried, and the run was marked a success."""
    world.policy = Policy(max_launch_tries=3)
    world.shim.first_status = "PENDING"
    arn = await started(world)
    for _ in range(3):
        failed_to_start(world, arn, stoppedReason="ResourceInitializationError: unable to pull secrets")
        found = await world.sweep()
        arn = found.latest.worker_id or arn
    assert (found.latest.status, found.latest.error_code) == (Status.FAILED, "WORKER_NEVER_STARTED")
    assert len(world.shim.launches) == 3, "the task itself was tried again, and each time anew"


async def test_kelos_1348_what_the_platform_takes_away_before_it_starts_spends_no_retry(world: EcsController) -> None:
    """Two node scale-downs used up the budget of a task that was never at fault."""
    world.shim.first_status = "PENDING"
    arn = await started(world)
    for _ in range(2):
        for container in world.shim.tasks[arn]["containers"]:
            container.pop("runtimeId", None)
        world.shim.become(arn, "STOPPED", stopCode="SpotInterruption", stoppedReason="Your Spot Task was interrupted.")
        found = await world.sweep()
        arn = str(found.latest.worker_id)
    assert (found.latest.number, found.latest.run, found.latest.launch_tries) == (1, 1, 3)
    assert world.alive() == [arn]


# Duplicates


async def test_airflow_19218_a_redeployed_controller_adopts_what_runs(world: EcsController) -> None:
    """After a redeploy orphans were reset, and a second, expensive job started."""
    arn = await started(world)
    world.ecs.rewrite(cluster="another-cluster-from-now-on")
    for _ in range(3):
        found = await world.sweep()
        world.pass_time(HOUR_SECONDS)
    assert (found.latest.worker_id, found.latest.run, found.latest.launch_tries) == (arn, 1, 1)
    assert world.alive() == [arn]
    assert world.shim.calls["RunTask"] == 1


async def test_airflow_69625_a_retry_is_a_run_of_its_own_and_no_replay_of_the_failed_one(world: EcsController) -> None:
    """The token was the same for every attempt, so a retry was answered with the run that had failed."""
    first = await started(world)
    world.shim.finish(first, exit_code=1)
    await world.put(claimed_again(reported(await world.found())).with_latest(launcher="ecs"))
    found = await world.settle()
    assert found.latest.worker_id not in (None, first)
    assert world.alive() == [found.latest.worker_id]
    tokens = [item["clientToken"] for item in world.shim.requests["RunTask"]]
    assert len(set(tokens)) == 2


async def test_celery_5935_a_message_that_is_delivered_again_while_its_task_runs_starts_nothing(
    world: EcsController,
) -> None:
    """Tasks that took longer than the visibility timeout were delivered, and run, again."""
    arn = await started(world)
    commands = Commands(world.store, MemoryQueue(), world.policy, "ecs")
    for message_id in ("message-1", "message-1", "message-2"):
        await commands.submit(a_task(), operation=Operation(message_id))
        await world.settle()
    assert world.alive() == [arn]
    assert (await world.found()).latest.run == 1


# Capacity


async def test_containers_roadmap_1705_a_launch_waits_for_capacity_and_the_record_tells_what_for(
    world: EcsController,
) -> None:
    """RunTask fails at once where capacity only has to be added, and no event tells of it."""
    world.shim.fail("RunTask", Fault.FAILURES, 2)
    await started(world)
    latest = (await world.found()).latest
    assert (latest.status, latest.number, latest.launch_tries) == (Status.RUNNING, 1, 3)
    assert latest.launch is not None
    assert latest.launch.rung is Rung.SENT
    assert all("RESOURCE:MEMORY" in item.detail for item in latest.evidence)
    assert len(latest.evidence) == 2


async def test_ecs_watchbot_13_a_lack_of_capacity_raises_no_receive_count(world: EcsController) -> None:
    """Messages that were put back for lack of room ran into the dead letters."""
    world.policy = replace(world.policy, max_launch_tries=100)
    queue = MemoryQueue(max_receives=1)
    await queue.put(json.dumps(task_document()))
    commands = Commands(world.store, queue, world.policy, "ecs")
    consumer = Consumer(queue, world.store, commands, pending_max=10, wait_seconds=0.05)
    consuming = asyncio.create_task(consumer.run())
    await until(lambda: not queue.entries, seconds=DEADLINE_SECONDS)
    world.shim.fail("RunTask", Fault.FAILURES, 20)
    latest = (await world.settle()).latest
    receives = queue.receives
    await until(lambda: queue.receives > receives, seconds=DEADLINE_SECONDS)
    consumer.stop()
    await consuming
    assert (latest.status, latest.launch_tries, latest.number) == (Status.RUNNING, 21, 1)
    assert (queue.entries, queue.dead) == ([], [])
