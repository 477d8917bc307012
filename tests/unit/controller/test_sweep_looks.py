"""The sweep with fakes: who is looked at and who is woken, and that nobody keeps others from their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from controller.loops.sweep import LOOK_BATCH
from executions.control import suspend
from executions.errors import LaunchUnclear
from executions.evidence import Observation, WorkerState
from executions.lifecycle import launch_failed
from executions.policy import Policy
from executions.record import Execution, Status
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.support.fake_launcher import FakeLauncher
from tests.support.waiting import until
from tests.unit.controller.test_sweep import GRACE_MS, WORKER, Interrupted, World
from tests.unit.domain.states import (
    by_hand,
    failed,
    succeeded,
)
from tests.unit.domain.test_retry import clicked


@pytest.fixture
def world() -> World:
    return World()


# Who is looked at, who is woken


async def test_workers_are_looked_at_in_batches_of_100(world: World) -> None:
    for number in range(250):
        await world.put(running(f"task-{number}"))
    await world.look(task_id="task-0")
    assert LOOK_BATCH == 100
    assert sorted(len(ids) for ids in world.looks) == [50, 100, 100]
    assert len({worker_id for ids in world.looks for worker_id in ids}) == 250


async def test_what_is_finished_or_waits_is_not_looked_at(world: World) -> None:
    waiting, done = pending("task-1"), succeeded()
    await world.put(waiting)
    await world.put(Execution("task-2", done.attempts, done.state))
    await world.look()
    assert world.looks == []


async def test_a_launch_without_an_answer_is_woken_and_not_looked_at(world: World) -> None:
    await world.put(intended())
    await world.look()
    assert (world.woken, world.looks) == (["task-1"], [])


async def test_what_waits_or_is_due_is_woken_in_the_order_of_age(world: World) -> None:
    await world.put(pending("young", now_ms=NOW_MS - 1))
    await world.put(pending("old", now_ms=NOW_MS - 2))
    await world.put(pending("held", now_ms=NOW_MS - 3))
    await world.put(suspend(pending("held", now_ms=NOW_MS - 3), suspended=True))
    again = launch_failed(
        intended("again"), 1, 1, code="X", message="x", permanent=False, now_ms=NOW_MS - 1000, policy=POLICY
    )
    await world.put(again)
    await world.put(clicked(failed()))
    await world.look()
    assert world.woken == ["again", "held", "old", "young", "again"]
    await world.look(POLICY.retry_redeliver_ms)
    assert world.woken[:2] == ["again", "task-1"]


async def test_nothing_is_woken_before_its_time(world: World) -> None:
    await world.put(clicked(failed()))
    await world.look(POLICY.retry_redeliver_ms - 1)
    assert world.woken == []


async def test_workers_of_another_launcher_are_left_alone_and_ours_are_not(world: World) -> None:
    await world.put(running("task-2").with_latest(launcher="ecs"))
    await world.put(running())
    world.launcher.end(WORKER)
    world.launcher.see("worker-of-task-2", WorkerState.STOPPED)
    await world.look()
    await world.look(GRACE_MS)
    assert (await world.latest("task-2")).suspicion is None
    assert (await world.latest()).error_code == "WORKER_LOST"
    assert world.looks == [(WORKER,)] * 2


async def test_a_running_record_without_a_worker_is_woken_and_judged_by_nobody(world: World) -> None:
    await world.put(by_hand(launcher="local"))
    assert (await world.look(100 * GRACE_MS)).status is Status.RUNNING
    assert (world.woken, world.looks) == (["task-1"], [])


async def test_a_record_that_is_gone_or_unreadable_stops_nobody(world: World) -> None:
    for task_id in ("gone", "broken", "task-1"):
        await world.put(running(task_id))
        world.launcher.end(f"worker-of-{task_id}")
    world.store.records.pop("gone")
    world.store.records["broken"] = {"1": b"{"}
    await world.look()
    assert (await world.look(GRACE_MS)).error_code == "WORKER_LOST"
    assert world.store.records["broken"] == {"1": b"{"}


# Nobody is starved


async def test_a_launcher_that_hangs_keeps_no_other_waiting(world: World) -> None:
    class Hanging(FakeLauncher):
        async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
            self.calls.append(("observe", *worker_ids))
            await hangs.wait()
            return await super().observe(worker_ids)

    hangs, hanging = asyncio.Event(), Hanging()
    sweep = world.sweep(patience_seconds=0.01, ecs=hanging)
    await world.put(running())
    await world.put(running("task-2").with_latest(launcher="ecs"))
    world.launcher.end(WORKER)
    await sweep.pass_once()
    world.store.now += GRACE_MS
    await sweep.pass_once()
    assert (await world.latest()).error_code == "WORKER_LOST"
    assert len(hanging.calls) == 1, "nothing more is sent to it meanwhile"
    hanging.end("worker-of-task-2")
    hangs.set()
    # Its late answer still counts.
    await until(lambda: b'"suspicion"' in world.store.records["task-2"]["1"])
    await asyncio.sleep(0)
    await sweep.pass_once()
    await until(lambda: len(hanging.calls) > 2)


async def test_a_launcher_that_never_answers_is_asked_again_after_its_time(world: World) -> None:
    class Silent(FakeLauncher):
        async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
            self.calls.append(("observe", *worker_ids))
            await asyncio.Event().wait()
            raise AssertionError

    world.launcher = Silent()
    sweep = world.sweep(answer_seconds=0.01)
    await world.put(running())
    for _ in range(3):
        await sweep.pass_once()
    assert len(world.looks) == 3


async def test_the_end_of_the_sweep_leaves_no_look_behind(world: World) -> None:
    class Silent(FakeLauncher):
        async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
            self.calls.append(("observe", *worker_ids))
            await asyncio.Event().wait()
            raise AssertionError

    for patience_seconds in (0.001, 60):
        world.launcher = Silent()
        sweep = world.sweep(patience_seconds=patience_seconds)
        await world.put(running())
        work = asyncio.create_task(sweep.run(0.001))
        await until(lambda: bool(world.looks))
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_launcher_that_answers_only_some_calls_leaves_no_worker_out_for_ever(world: World) -> None:
    """PrefectHQ/prefect#18584: throttling must not mean that the same workers are never looked at."""

    class Throttled(FakeLauncher):
        async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
            found = await super().observe(worker_ids)
            if len(self.calls) % 3 != 1:
                raise LaunchUnclear("DescribeTasks was throttled")
            return found

    world.launcher = Throttled()
    sweep = world.sweep()
    for number in range(300):
        await world.put(running(f"task-{number}"))
        world.launcher.end(f"worker-of-task-{number}")
    for _ in range(3):
        await sweep.pass_once()
    suspected = [(await world.latest(f"task-{number}")).suspicion is not None for number in range(300)]
    assert suspected == [True] * 300


async def test_a_worker_whose_stop_hangs_keeps_no_other_from_its_look(world: World) -> None:
    class Hanging(FakeLauncher):
        async def stop(self, worker_id: str, reason: str) -> bool:
            await asyncio.Event().wait()
            raise AssertionError

    world.policy, world.launcher = Policy(attempt_timeout_ms=600_000), Hanging()
    sweep = world.sweep(answer_seconds=0.01)
    await world.put(running())
    await world.put(running("task-2", now_ms=NOW_MS + 1))
    world.launcher.end("worker-of-task-2")
    world.store.now += 600_000
    for _ in range(2):
        await sweep.pass_once()
    assert (await world.latest("task-2")).suspicion is not None


async def test_a_record_that_cannot_be_judged_keeps_no_other_from_its_verdict(world: World) -> None:
    class Broken(Interrupted):
        async def happens(self) -> None:
            world.store.records["task-1"] = {"1": b"{"}

    for task_id in ("task-1", "task-2"):
        await world.put(running(task_id))
    world.launcher = Broken()
    world.launcher.end(WORKER)
    world.launcher.end("worker-of-task-2")
    await world.sweep().pass_once()
    assert (await world.latest("task-2")).suspicion is not None


async def test_two_sweeps_at_once_speak_one_verdict(world: World) -> None:
    """apache/airflow#51969: the same zombie was found and purged several times."""
    await world.put(running())
    world.launcher.end(WORKER)
    await world.look()
    world.store.now += GRACE_MS
    before = await world.version()
    await asyncio.gather(*(world.sweep().pass_once() for _ in range(5)))
    assert await world.version() == before + 1
    latest = await world.look(GRACE_MS)
    assert (latest.status, len(latest.evidence), await world.version()) == (Status.FAILED, 2, before + 1)


async def test_only_the_tasks_asked_for_are_looked_at(world: World) -> None:
    for task_id in ("task-1", "task-2"):
        await world.put(running(task_id))
    await world.sweep().look_at(["task-2", "gone"])
    assert world.looks == [("worker-of-task-2",)]


# For ever


async def test_a_pass_that_fails_is_followed_by_the_next(world: World) -> None:
    await world.put(running())
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        world.store.unavailable = beats in (2, 3)
        if beats == 4:
            world.launcher.end(WORKER)

    work = asyncio.create_task(world.sweep().run(0.001, beat))
    try:
        await until(lambda: beats >= 6)
        assert (await world.latest()).suspicion is not None
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_defect_of_a_launcher_does_not_end_the_sweep(world: World) -> None:
    class Defective(FakeLauncher):
        async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
            self.calls.append(("observe", *worker_ids))
            raise RuntimeError("a defect")

    world.launcher = Defective()
    await world.put(running())
    work = asyncio.create_task(world.sweep().run(0.001))
    try:
        await until(lambda: len(world.looks) >= 2)
        assert (await world.latest()).status is Status.RUNNING
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
