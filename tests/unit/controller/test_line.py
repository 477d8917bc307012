"""The line: who is woken when a slot becomes free or a hold ends, and why those who wait do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from controller.breakers import Breakers
from controller.loops.line import Line
from controller.loops.sweep import Sweep
from controller.reconciler import Reconciler
from executions.admission import Hold, Slots
from executions.answer import Answer, Reply
from executions.conditions import why_execution
from executions.operations.commands import Commands
from executions.outcome import outcome_from_document
from executions.policy import Policy
from executions.record import Execution, Status
from executions.resource import status_from_execution
from tests.support.builders import NOW_MS, pending
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore

pytestmark = pytest.mark.looptime
ANSWER = Answer(Reply.ACCEPTED, "", 1, "")
HOLD = Hold("jane", "the provider is down", NOW_MS)


@dataclass
class World:
    """A store with tasks that wait, oldest first, and the leader's work on it."""

    slots: Slots
    store: MemoryStore = field(default_factory=MemoryStore)
    woken: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = Policy(slots=self.slots)
        self.launcher = FakeLauncher()
        self.breakers = Breakers(self.store, self.policy.breaker)
        self.commands = Commands(self.store, MemoryQueue(), self.policy, "local")
        self.line = Line(self.store, self.slots, self.breakers, self.woken.append)
        self.sweep = Sweep(self.store, {"local": self.launcher}, self.policy, self.woken.append)
        self.reconciler = Reconciler(
            store=self.store,
            commands=self.commands,
            launchers={"local": self.launcher},
            policy=self.policy,
            token_prefix="prefix",
            wake_after=lambda *_: None,
            emit=self.events.append,
        )

    async def put(self, *task_ids: str, task_type: str = "implementation") -> None:
        for task_id in task_ids:
            self.store.now += 1
            execution = pending(task_id, now_ms=self.store.now).with_latest(task_type=task_type)
            await self.store.commit(await self.store.read(task_id), execution, ANSWER)

    async def found(self, task_id: str) -> Execution:
        execution = (await self.store.read(task_id)).execution
        assert execution is not None
        return execution

    async def reconciled(self, *task_ids: str) -> list[Status]:
        for task_id in task_ids:
            await self.reconciler.reconcile(task_id)
        return [(await self.found(task_id)).latest.status for task_id in task_ids]

    async def take_woken(self) -> list[str]:
        taken = self.woken[:]
        self.woken.clear()
        return taken


async def test_who_finds_no_slot_waits_in_the_line_and_says_why_once() -> None:
    world = World(Slots(total=1))
    await world.put("one", "two")
    assert await world.reconciled("one", "two", "two") == [Status.RUNNING, Status.PENDING, Status.PENDING]
    execution = await world.found("two")
    why = why_execution(execution)
    assert (why.reason, why.message) == ("SlotUnavailable", "1 of 1 slots in all are held (implementation 1)")
    shown = status_from_execution(execution, world.policy, observed_generation=1, unknown_ms=0)
    assert (shown["reason"], shown["next"]) == ("SlotUnavailable", "launch, once a slot is free")
    told = [(event["task"]["task_id"], event["outcome"], event["final_status"]) for event in world.events]
    assert told == [("one", "success", "launched"), ("two", "skipped", "slot_unavailable")]


async def test_a_slot_that_becomes_free_goes_to_the_oldest() -> None:
    world = World(Slots(total=2, per_type={"implementation": 1}))
    await world.put("i1", "i2")
    await world.put("d1", "d2", task_type="digest")
    assert await world.reconciled("i1", "d1") == [Status.RUNNING] * 2
    await world.line.turn()
    assert await world.take_woken() == []
    await world.commands.complete(outcome_from_document({"taskId": "d1", "status": "success"}))
    await world.line.turn()
    assert await world.take_woken() == ["d2"]
    await world.commands.complete(outcome_from_document({"taskId": "i1", "status": "success"}))
    await world.line.turn()
    assert await world.take_woken() == ["i2", "d2"]
    assert await world.reconciled("d2", "i2") == [Status.RUNNING] * 2


async def test_the_sweep_wakes_all_at_first_and_leaves_the_others_to_the_line() -> None:
    world = World(Slots(total=1))
    await world.put("one", "two", "three")
    await world.sweep.wake_waiting()
    assert await world.take_woken() == ["one", "two", "three"]
    await world.sweep.wake_waiting()
    assert await world.take_woken() == []
    await world.line.turn()
    assert await world.take_woken() == ["one"]


async def test_those_that_a_breaker_bars_take_nobodys_place_in_the_line() -> None:
    world = World(Slots(total=2))
    await world.put("i1", "i2", "i3")
    await world.put("d1", "d2", task_type="digest")
    for key in range(world.policy.breaker.failures):
        await world.store.count_launch_failure(
            "local", "implementation", "LAUNCH_CAPACITY", key=str(key), rule=world.policy.breaker
        )
    await world.line.turn()
    assert await world.take_woken() == ["d1", "d2"]
    assert await world.reconciled("d1", "d2") == [Status.RUNNING] * 2


@pytest.mark.parametrize("slots", [Slots(), Slots(total=5)])
async def test_during_a_hold_nothing_begins_and_afterwards_everything(slots: Slots) -> None:
    world = World(slots)
    await world.put("one", "two", "three")
    assert await world.reconciled("one") == [Status.RUNNING]
    await world.store.hold(HOLD)
    assert await world.reconciled("two") == [Status.PENDING]
    why = why_execution(await world.found("two"))
    assert (why.reason, why.message) == ("Held", "on hold by jane: the provider is down")
    answer = await world.commands.complete(outcome_from_document({"taskId": "one", "status": "success"}))
    assert answer.reply is Reply.RECORDED
    for _ in range(2):
        await world.line.turn()
    assert await world.take_woken() == []
    await world.store.hold(None)
    await world.line.turn()
    assert await world.take_woken() == ["two", "three"]
    assert await world.reconciled("two", "three") == [Status.RUNNING] * 2
    assert why_execution(await world.found("two")).reason == "WorkerRunning"
