"""Breakers: when launches are held back, who tries, and what closes one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from controller.breakers import Breakers
from controller.loops.line import Line
from controller.loops.sweep import Sweep
from controller.reconciler import Reconciler
from executions.admission import BreakerRule, Slots
from executions.answer import Answer, Reply
from executions.conditions import why_execution
from executions.errors import AlakaiError
from executions.evidence import WorkerState
from executions.notices import notices_from
from executions.operations.commands import Commands
from executions.policy import Policy
from executions.record import Execution, Status
from tests.support.builders import pending
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore

ANSWER = Answer(Reply.ACCEPTED, "", 1, "")
RULE = BreakerRule(failures=3, window_ms=60_000, pause_ms=10_000)


@dataclass
class World:
    """Tasks that wait and a launcher that fails."""

    store: MemoryStore = field(default_factory=MemoryStore)
    launcher: FakeLauncher = field(default_factory=FakeLauncher)
    woken: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = Policy(breaker=RULE, max_launch_tries=9)
        self.begin_anew()

    def begin_anew(self) -> None:
        """As a new leader does, which remembers nothing."""
        breakers = self.breakers = Breakers(self.store, RULE)
        self.line = Line(self.store, Slots(), breakers, self.woken.append)
        self.sweep = Sweep(
            self.store,
            {"local": self.launcher},
            self.policy,
            self.woken.append,
            on_launch_failed=breakers.launch_failed,
            on_started=lambda attempt: breakers.launch_works(attempt, has_started=True),
        )
        self.reconciler = Reconciler(
            store=self.store,
            commands=Commands(self.store, MemoryQueue(), self.policy, "local"),
            launchers={"local": self.launcher},
            policy=self.policy,
            token_prefix="prefix",
            wake_after=lambda *_: None,
            on_launch_failed=breakers.launch_failed,
            on_launched=lambda attempt: breakers.launch_works(attempt, has_started=False),
            emit=self.events.append,
        )

    async def put(self, *task_ids: str, task_type: str = "implementation") -> None:
        for task_id in task_ids:
            self.store.now += 1
            execution = pending(task_id, now_ms=self.store.now).with_latest(task_type=task_type)
            await self.store.commit(await self.store.read(task_id), execution, ANSWER)

    async def reconciled(self, task_id: str) -> Execution:
        try:
            await self.reconciler.reconcile(task_id)
        except AlakaiError:
            pass
        return await self.found(task_id)

    async def found(self, task_id: str) -> Execution:
        execution = (await self.store.read(task_id)).execution
        assert execution is not None
        return execution

    async def turn(self) -> list[str]:
        await self.line.turn()
        woken = self.woken[:]
        self.woken.clear()
        return woken


@pytest.fixture
async def world() -> World:
    """Three launches have failed in the same way; two more tasks wait."""
    found = World()
    await found.put("one", "two", "three", "four", "five")
    found.launcher.refuse("LAUNCH_CAPACITY", times=3)
    for task_id in ("one", "two", "three"):
        await found.reconciled(task_id)
    return found


async def test_the_same_failure_again_and_again_holds_further_launches_of_the_class(world: World) -> None:
    sent = len(world.launcher.intents)
    execution = await world.reconciled("four")
    assert (execution.latest.status, execution.latest.launch_tries) == (Status.PENDING, 0)
    assert len(world.launcher.intents) == sent
    why = why_execution(execution)
    assert why.reason == "BreakerOpen"
    assert "launches of implementation with local fail with LAUNCH_CAPACITY" in why.message
    assert [notice.why.reason for notice in notices_from(execution, world.policy, since_attempt=1)] == ["BreakerOpen"]
    assert world.events[-1]["final_status"] == "breaker_open"
    # Another class is none of its business.
    await world.put("a-digest", task_type="digest")
    assert (await world.reconciled("a-digest")).latest.status is Status.RUNNING


async def test_launches_that_are_refused_for_good_count_too() -> None:
    world = World()
    await world.put("one", "two", "three")
    world.launcher.refuse("LAUNCH_REJECTED", permanent=True, times=3)
    for task_id in ("one", "two", "three"):
        assert (await world.reconciled(task_id)).latest.status is Status.FAILED
    (breaker,) = await world.store.breakers()
    assert breaker.code == "LAUNCH_REJECTED"


async def test_after_the_pause_one_launch_is_let_through_and_its_success_closes_it(world: World) -> None:
    await world.reconciled("four")
    world.begin_anew()  # what is open is known to whoever leads
    assert await world.turn() == []
    world.store.now += RULE.pause_ms
    assert await world.turn() == ["four"], "those that failed come after those that were not tried yet"
    assert (await world.reconciled("four")).latest.status is Status.RUNNING
    assert await world.store.breakers() == []
    assert await world.turn() == ["one", "two", "three", "five"]
    assert (await world.reconciled("one")).latest.status is Status.RUNNING


async def test_a_launch_that_was_let_through_and_fails_begins_another_pause(world: World) -> None:
    world.store.now += RULE.pause_ms
    world.launcher.refuse("LAUNCH_CAPACITY")
    await world.reconciled("one")
    assert (await world.reconciled("two")).latest.launch is None
    assert why_execution(await world.found("two")).reason == "BreakerOpen"
    (breaker,) = await world.store.breakers()
    assert breaker.probe_at_ms == world.store.now + RULE.pause_ms


async def test_a_launch_that_tells_nothing_is_followed_by_the_next(world: World) -> None:
    world.store.now += RULE.pause_ms
    world.launcher.lose_request()
    await world.reconciled("one")
    assert (await world.reconciled("two")).latest.launch is None
    world.store.now += RULE.pause_ms
    assert (await world.reconciled("two")).latest.status is Status.RUNNING


async def test_workers_that_never_start_open_it_and_one_that_is_seen_at_work_closes_it() -> None:
    world = World()
    tasks = ("one", "two", "three", "four")
    await world.put(*tasks)
    for task_id in tasks[:3]:
        worker_id = (await world.reconciled(task_id)).latest.worker_id
        assert worker_id is not None
        world.launcher.see(worker_id, WorkerState.STOPPED, never_started=True, code="WORKER_NEVER_STARTED")
    for _ in range(3):
        await world.sweep.pass_once()
        world.store.now += 61_000
    (breaker,) = await world.store.breakers()
    assert breaker.code == "WORKER_NEVER_STARTED"
    await world.breakers.refresh()
    world.store.now = breaker.probe_at_ms
    worker_id = (await world.reconciled("four")).latest.worker_id
    assert worker_id is not None
    assert len(await world.store.breakers()) == 1, "that a launch was accepted says nothing of its start"
    await world.sweep.pass_once()
    assert await world.store.breakers() == []
