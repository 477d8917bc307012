"""Push hints from end to end: an event of ECS on a real queue, a look at ECS, and what the record says then."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from controller.loops.ecs_hints import EcsHints
from controller.loops.hints import Hints
from controller.loops.sweep import Sweep
from devstack.aws import AwsServer
from executions.adapters.settings import Settings
from executions.adapters.sqs_queue import SqsQueue, open_queue
from executions.answer import Answer, Reply
from executions.lifecycle import intend_launch, launched
from executions.ports import LaunchIntent
from executions.record import Attempt
from tests.support.builders import NOW_MS, POLICY, pending
from tests.support.ecs_shim import EcsShim
from tests.support.ecs_world import ENVIRONMENT, FOREIGN_VARIABLES, REGION, EcsWorld, make_cluster
from tests.support.launcher_contract import an_order, until
from tests.support.memory_store import MemoryStore


@pytest.fixture(scope="module")
def cluster(aws: AwsServer) -> dict[str, Any]:
    return make_cluster(aws.url)


@dataclass
class World:
    """Running workers, a queue that EventBridge sends to, and hints that are being read."""

    ecs: EcsWorld
    store: MemoryStore
    events: SqsQueue

    async def start(self, task_id: str) -> str:
        """A running worker; returns its ARN."""
        order = replace(an_order(self.ecs.task(), task_id), callback_token="t0ken")
        request = self.ecs.launcher.prepare(order)
        arn = (await self.ecs.launcher.launch(LaunchIntent(order, request))).worker_id
        execution = pending(task_id).with_latest(launcher="ecs")
        execution = intend_launch(execution, 1, token=order.token, request=request, now_ms=NOW_MS, policy=POLICY)
        execution = launched(execution, 1, 1, worker_id=arn, now_ms=NOW_MS)
        await self.store.commit(await self.store.read(task_id), execution, Answer(Reply.ACCEPTED, task_id))
        return arn

    async def push(self, *arns: str) -> None:
        for arn in arns:
            await self.events.send(self.ecs.shim.event(arn))

    async def latest(self, task_id: str) -> Attempt:
        execution = (await self.store.read(task_id)).execution
        assert execution is not None
        return execution.latest


@pytest.fixture
async def world(
    aws: AwsServer, cluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    for name in (*FOREIGN_VARIABLES, "AWS_ENDPOINT_URL_SQS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**ENVIRONMENT, "AWS_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    sqs = boto3.client("sqs", region_name=REGION, endpoint_url=aws.url)
    url = sqs.create_queue(QueueName=f"events-{secrets.token_hex(4)}")["QueueUrl"]
    sqs.close()
    async with EcsShim(aws.url) as shim:
        world = World(EcsWorld(shim, cluster, tmp_path), MemoryStore(), open_queue(url, Settings(sqs_queue_url=url)))
        sweep = Sweep(world.store, {"ecs": world.ecs.launcher}, POLICY, lambda _: None)
        hints = Hints(sweep.look_at)
        source = EcsHints(world.events, world.store, hints.note)
        hinting = [asyncio.create_task(work.run()) for work in (hints, source)]
        yield world
        for task in hinting:
            task.cancel()
        await asyncio.gather(*hinting, return_exceptions=True)
        await world.events.close()
        await world.ecs.launcher.close()


async def test_a_worker_that_stopped_is_suspected_without_waiting_for_the_sweep(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, alive = await world.start("task-1"), await world.start("task-2")
    world.ecs.shim.finish(gone, exit_code=1)
    await world.push(gone, alive)

    async def is_suspected() -> bool:
        return (await world.latest("task-1")).suspicion is not None

    await until(is_suspected, "the worker is looked at")
    assert (await world.latest("task-2")).suspicion is None
    assert "t0ken" in json.dumps(world.ecs.shim.event(gone)), "the overrides travel with the event"
    output = capsys.readouterr()
    assert "t0ken" not in output.out + output.err


async def test_an_event_that_is_behind_the_times_does_no_harm(world: World) -> None:
    """It says STOPPED of a task that DescribeTasks shows running: the look counts."""
    arn = await world.start("task-1")
    event = world.ecs.shim.event(arn)
    event["detail"] |= {"lastStatus": "STOPPED", "desiredStatus": "STOPPED", "stopCode": "TaskFailedToStart"}
    await world.events.send(event)

    async def has_looked() -> bool:
        return world.ecs.shim.calls["DescribeTasks"] > 0

    await until(has_looked, "the worker is looked at")
    assert (await world.latest("task-1")).suspicion is None
