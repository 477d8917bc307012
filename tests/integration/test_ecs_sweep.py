"""The sweep on the ECS launcher: what a thousand workers cost to look at, and what becomes of those that stopped."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.loops.sweep import Sweep
from devstack.aws import AwsServer
from executions.answer import Answer, Reply
from executions.record import Attempt, Status
from tests.support.builders import NOW_MS, POLICY, running
from tests.support.ecs_shim import HOUR_SECONDS, EcsShim, Fault
from tests.support.ecs_world import ENVIRONMENT, FOREIGN_VARIABLES, EcsWorld, make_cluster
from tests.support.launcher_contract import an_intent
from tests.support.memory_store import MemoryStore

INTERVAL_SECONDS = 15


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


class Swept:
    """A store of attempts whose workers are ECS tasks, and a sweep over them on the shim's clock."""

    def __init__(self, world: EcsWorld) -> None:
        self.world, self.store = world, MemoryStore()
        self.sweep = Sweep(self.store, {"ecs": world.launcher}, POLICY, lambda _: None)

    async def put(self, arns: list[str]) -> None:
        for number, arn in enumerate(arns):
            execution = running(f"task-{number}").with_latest(launcher="ecs", worker_id=arn)
            await self.store.commit(
                await self.store.read(execution.task_id), execution, Answer(Reply.CLAIMED, execution.task_id)
            )

    async def launched(self, count: int) -> list[str]:
        """So many workers that run, as many attempts."""
        arn = (await self.world.launcher.launch(an_intent(self.world))).worker_id
        arns = [arn, *self.world.shim.seed(arn, count - 1)]
        await self.put(arns)
        return arns

    async def passes(self, count: int) -> None:
        for _ in range(count):
            self.world.shim.advance(INTERVAL_SECONDS)
            self.store.now += INTERVAL_SECONDS * 1000
            await self.sweep.pass_once()

    async def latest(self, number: int = 0) -> Attempt:
        execution = (await self.store.read(f"task-{number}")).execution
        assert execution is not None
        return execution.latest


@pytest.fixture
def swept(world: EcsWorld) -> Swept:
    return Swept(world)


@pytest.mark.parametrize(("workers", "calls"), [(1, 1), (100, 1), (101, 2), (1000, 10)])
async def test_n_workers_are_swept_with_a_call_for_each_hundred_begun(swept: Swept, workers: int, calls: int) -> None:
    await swept.launched(workers)
    await swept.passes(2)
    assert swept.world.shim.calls["DescribeTasks"] == 2 * calls
    assert swept.world.shim.calls["ListTasks"] == 0


async def test_among_a_thousand_workers_those_that_died_are_found_with_their_causes(swept: Swept) -> None:
    arns, shim = await swept.launched(1000), swept.world.shim
    await swept.passes(1)
    shim.advance(INTERVAL_SECONDS / 2)
    deaths: list[dict[str, Any]] = [
        {"exit_code": 137, "container_reason": "OutOfMemoryError: Container killed due to memory usage"},
        {"stop_code": "SpotInterruption", "exit_code": None},
        {"exit_code": 0},
        {"stop_code": "InfrastructureHealth", "exit_code": None},
        {"stop_code": "UserInitiated", "reason": "Task stopped by user", "exit_code": 143},
    ]
    for number in range(0, 1000, 7):
        shim.finish(arns[number], **deaths[number % len(deaths)])
    begun, passes = time.monotonic(), 0
    while (await swept.latest(0)).status is Status.RUNNING:
        await swept.passes(1)
        passes += 1
    seconds = time.monotonic() - begun
    found = {
        number: latest.verdict for number in range(1000) if (latest := await swept.latest(number)).verdict is not None
    }
    assert sorted(found) == list(range(0, 1000, 7))
    codes = ["WORKER_OOM", "WORKER_PREEMPTED", "COMPLETED_UNREPORTED", "WORKER_PREEMPTED", "WORKER_STOPPED_EXTERNALLY"]
    assert {number: verdict.code for number, verdict in found.items() if verdict} == {
        number: codes[number % len(codes)] for number in found
    }
    assert {verdict.grade for verdict in found.values() if verdict} == {"confirmed"}
    detected = {verdict.detected_after_ms / 1000 for verdict in found.values() if verdict}
    # The interval to the first look, the grace, and no more than one interval until it is over.
    assert max(detected) <= INTERVAL_SECONDS + POLICY.lost_worker_grace_ms / 1000 + INTERVAL_SECONDS
    print(  # noqa: T201
        f"{len(found)} of 1000 workers died; judged {max(detected):.1f} s after it (interval {INTERVAL_SECONDS} s, "
        f"grace {POLICY.lost_worker_grace_ms / 1000:g} s), {passes} passes in {seconds:.2f} s of real time"
    )
    assert shim.calls["DescribeTasks"] == 10 * (passes + 1)


async def test_missing_right_after_the_launch_is_no_loss(swept: Swept) -> None:
    """boto/boto3#842, dask-cloudprovider#483."""
    swept.world.shim.missing_looks = 3
    await swept.launched(1)
    await swept.passes(3)
    assert (await swept.latest()).suspicion is None
    await swept.passes(1)
    assert (await swept.latest()).is_live


async def test_a_task_that_ecs_forgot_before_anybody_looked_is_presumed_lost(swept: Swept) -> None:
    arns = await swept.launched(1)
    swept.world.shim.finish(arns[0])
    swept.world.shim.advance(HOUR_SECONDS)
    await swept.passes(10)
    latest = await swept.latest()
    assert (latest.status, latest.error_code) == (Status.FAILED, "WORKER_LOST")
    assert latest.verdict is not None
    assert latest.verdict.grade == "presumed"


async def test_throttled_looks_judge_nobody_and_come_back(swept: Swept) -> None:
    arns = await swept.launched(150)
    swept.world.shim.finish(arns[0])
    swept.world.shim.fail("DescribeTasks", Fault.THROTTLE, 4)
    await swept.passes(2)
    assert (await swept.latest()).suspicion is None
    await swept.passes(6)
    assert (await swept.latest()).error_code == "WORKER_FAILED"
    assert (await swept.latest(1)).is_live


async def test_a_task_that_we_stop_for_its_deadline_ends_as_that(swept: Swept) -> None:
    """StopTask's reason is ours, and the record knows what it was for."""
    swept.world.shim.first_status = "PROVISIONING"
    arns = await swept.launched(1)
    started = (POLICY.start_timeout_ms // 1000) // INTERVAL_SECONDS
    await swept.passes(started)
    assert swept.world.shim.calls["StopTask"] == 1
    assert swept.world.shim.tasks[arns[0]]["stoppedReason"].startswith("alakai: ")
    await swept.passes(6)
    latest = await swept.latest()
    # The shim gives every task a container that was made, so it may have run: it is not launched again.
    assert (latest.status, latest.error_code) == (Status.FAILED, "START_TIMEOUT")
    assert (latest.finished_at or 0) > NOW_MS
