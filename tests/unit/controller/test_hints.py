"""Push hints: what they make the sweep look at, how many calls that costs, and that nothing depends on them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from controller.loops.ecs_hints import EcsHints
from controller.loops.hints import Hints
from controller.loops.sweep import Sweep
from executions.answer import Answer, Reply
from executions.errors import StoreUnavailable
from executions.evidence import WorkerState
from executions.record import Execution, Status
from tests.support.builders import POLICY, running
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.support.waiting import until
from tests.unit.domain.states import cancelling, succeeded
from tests.unit.test_ecs_events import an_event, overriding

DEADLINE_SECONDS = 30.0


def event(task_id: str, version: int = 1, arn: str | None = None) -> str:
    overrides = overriding({"name": "ALAKAI_TASK_ID", "value": task_id})
    return json.dumps(an_event(taskArn=arn or f"arn/{task_id}", version=version, overrides=overrides))


@dataclass
class World:
    """An events queue, and a sweep that notes what it was asked to look at."""

    queue: MemoryQueue = field(default_factory=MemoryQueue)
    store: MemoryStore = field(default_factory=MemoryStore)
    launcher: FakeLauncher = field(default_factory=FakeLauncher)
    woken: list[str] = field(default_factory=list)
    looks: list[list[str]] = field(default_factory=list)
    held: asyncio.Event | None = None
    """While it is set and not fired, looks do not end."""
    error: Exception | None = None

    async def look_at(self, task_ids: Sequence[str]) -> None:
        self.looks.append(list(task_ids))
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        await Sweep(self.store, {"local": self.launcher}, POLICY, self.woken.append).look_at(task_ids)

    async def put(self, execution: Execution) -> None:
        answer = Answer(Reply.ACCEPTED, execution.task_id)
        await self.store.commit(await self.store.read(execution.task_id), execution, answer)
        if execution.latest.worker_id is not None:
            self.launcher.see(execution.latest.worker_id, WorkerState.RUNNING)

    @asynccontextmanager
    async def hinting(self, *, quiet_seconds: float = 0.0, versions_kept: int = 100) -> AsyncIterator[None]:
        hints = Hints(self.look_at, quiet_seconds=quiet_seconds, longest_wait_seconds=DEADLINE_SECONDS)
        source = EcsHints(self.queue, self.store, hints.note, wait_seconds=0.05, versions_kept=versions_kept)
        tasks = [asyncio.create_task(work.run()) for work in (hints, source)]
        try:
            yield
            assert not any(task.done() for task in tasks), "a loop ended by itself"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def is_read(self) -> None:
        await until(lambda: not self.queue.entries, seconds=DEADLINE_SECONDS)

    async def has_looked(self, times: int) -> None:
        await until(lambda: len(self.looks) >= times, seconds=DEADLINE_SECONDS)


@pytest.fixture
def world() -> World:
    return World()


async def test_an_event_makes_the_sweep_look_at_its_worker_and_decides_nothing(world: World) -> None:
    for number in (1, 2):
        await world.put(running(f"task-{number}"))
    await world.queue.put(event("task-1"))
    async with world.hinting():
        await world.has_looked(1)
        await world.is_read()
        await until(lambda: bool(world.launcher.calls), seconds=DEADLINE_SECONDS)
    assert world.launcher.calls == [("observe", "worker-of-task-1")]
    # The event says STOPPED, the look says otherwise.
    execution = (await world.store.read("task-1")).execution
    assert execution is not None
    assert (execution.latest.status, execution.latest.suspicion) == (Status.RUNNING, None)


async def test_what_the_look_shows_counts_and_not_the_event(world: World) -> None:
    await world.put(running())
    world.launcher.end("worker-of-task-1")
    async with world.hinting():
        await world.queue.put(event("task-1"))

        async def is_suspected() -> bool:
            execution = (await world.store.read("task-1")).execution
            return execution is not None and execution.latest.suspicion is not None

        await until(is_suspected, seconds=DEADLINE_SECONDS)


async def test_a_burst_of_events_costs_a_call_of_the_launcher_per_hundred_workers(world: World) -> None:
    names = [f"task-{number}" for number in range(250)]
    for name in names:
        await world.put(running(name))
    world.held = asyncio.Event()
    async with world.hinting():
        await world.queue.put(event("first"))
        await world.has_looked(1)
        # While one look is under way, everything else gathers; each event comes twice.
        for name in names * 2:
            await world.queue.put(event(name))
        await world.is_read()
        world.held.set()
        await world.has_looked(4)
        await until(lambda: len(world.launcher.calls) == 3, seconds=DEADLINE_SECONDS)
    assert [len(look) for look in world.looks] == [1, 100, 100, 50]
    assert sorted(len(call) - 1 for call in world.launcher.calls) == [50, 100, 100]


async def test_full_batches_do_not_wait_for_the_end_of_the_burst(world: World) -> None:
    for number in range(200):
        await world.queue.put(event(f"task-{number}"))
    async with world.hinting(quiet_seconds=DEADLINE_SECONDS):
        await world.has_looked(2)
    assert [len(look) for look in world.looks] == [100, 100]


async def test_old_and_repeated_events_are_no_news(world: World) -> None:
    for version in (3, 3, 2, 1):
        await world.queue.put(event("task-1", version))
    async with world.hinting():
        await world.has_looked(1)
        await world.is_read()
        # An old one that comes after the look, then a new one, then one of another worker of the same task.
        await world.queue.put(event("task-1", 2))
        await world.is_read()
        await world.queue.put(event("task-2", 1))
        await world.has_looked(2)
        await world.queue.put(event("task-1", 4))
        await world.has_looked(3)
        await world.queue.put(event("task-1", 1, arn="arn/another"))
        await world.has_looked(4)
    assert world.looks == [["task-1"], ["task-2"], ["task-1"], ["task-1"]]


async def test_what_is_remembered_of_workers_is_bounded(world: World) -> None:
    async with world.hinting(versions_kept=2):
        for number, name in enumerate(["task-1", "task-2", "task-1", "task-3", "task-2"], 1):
            await world.queue.put(event(name, 1))
            await world.is_read()
            # The third is a repeat; by the fifth task-2 is forgotten, which costs a look and nothing else.
            await world.has_looked(number - (number > 2))
    assert world.looks == [["task-1"], ["task-2"], ["task-3"], ["task-2"]]


async def test_events_of_others_are_deleted_and_garbage_is_left_to_the_dead_letters() -> None:
    world = World(queue=MemoryQueue(visibility_seconds=0.05, max_receives=2))
    await world.queue.put(json.dumps(an_event(overrides={})))
    await world.queue.put(json.dumps({**an_event(), "source": "aws.s3"}))
    await world.queue.put("hush: no event")
    with capture_logs() as logs:
        async with world.hinting():
            await until(lambda: world.queue.dead == ["hush: no event"], seconds=DEADLINE_SECONDS)
    assert (world.looks, world.queue.entries) == ([], [])
    (left,) = [entry for entry in logs if entry["event"] == "Message left to the dead-letter policy"]
    assert left["reason"] == "the message is not JSON; give the events a queue of their own"
    assert "hush" not in json.dumps(logs)


@pytest.mark.parametrize("error", [StoreUnavailable("Redis is away"), RuntimeError("a defect")])
async def test_a_look_that_fails_ends_nothing(world: World, error: Exception) -> None:
    world.error = error
    async with world.hinting():
        await world.queue.put(event("task-1", 1))
        await world.has_looked(1)
        await world.queue.put(event("task-1", 2))
        await world.has_looked(2)


async def test_tasks_without_a_live_worker_cost_no_call(world: World) -> None:
    await world.put(succeeded())
    await world.put(cancelling(running("task-2")))
    async with world.hinting():
        for name in ("task-1", "task-2", "nobody"):
            await world.queue.put(event(name))
        await until(lambda: bool(world.launcher.calls), seconds=DEADLINE_SECONDS)
    assert world.launcher.calls == [("observe", "worker-of-task-2")]
    assert world.woken == ["task-2"], "what is to be stopped is woken as by a pass"


async def test_who_no_longer_leads_swallows_no_message(world: World) -> None:
    """What the last long poll brings is given back, visible to the next leader at once."""
    source = EcsHints(world.queue, world.store, lambda _: None, wait_seconds=DEADLINE_SECONDS)
    task = asyncio.create_task(source.run())
    await until(lambda: world.queue.receives == 1, seconds=DEADLINE_SECONDS)
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    await world.queue.put(event("task-1"))
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    (message,) = await world.queue.receive(wait_seconds=0)
    assert message.receive_count == 2
