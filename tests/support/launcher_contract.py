"""What every launcher does, whatever it launches on. Subclasses provide the fixture ``world``."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol

from executions.evidence import WorkerState
from executions.names import launch_token
from executions.ports import FoundWorker, Launcher, LaunchIntent, LaunchOrder, Listing
from executions.record import Rung

PRESENT = (WorkerState.STARTING, WorkerState.RUNNING)
GONE = (WorkerState.STOPPED, WorkerState.MISSING)
DEADLINE_SECONDS = 30.0
SECRET = "v1.k1.a-secret-for-the-worker"


class LauncherWorld(Protocol):
    """A launcher and what its workers live in."""

    launcher: Launcher

    def reopened(self) -> Launcher:
        """Another launcher on the same world, as a second controller or one after a restart has it."""
        ...

    def task(self) -> dict[str, Any]:
        """A task whose worker runs until it is ended."""
        ...

    async def workers(self, token: str) -> int:
        """How many workers of one launch there are now; those that only wait to be refused count too."""
        ...

    async def end(self, worker_id: str) -> None:
        """End a worker as a crash does."""
        ...


def an_order(task: dict[str, Any], task_id: str = "task-1", *, attempt: int = 1, launch_try: int = 1) -> LaunchOrder:
    """The order of one launch of ``task``."""
    return LaunchOrder(
        task_id=task_id,
        task_type=str(task["taskType"]),
        attempt=attempt,
        launch_try=launch_try,
        trace_id=f"trace-{task_id}",
        token=launch_token("contract", task_id, f"incarnation-{time.monotonic_ns()}", attempt, launch_try),
        task={**task, "taskId": task_id},
    )


def an_intent(world: LauncherWorld, task_id: str = "task-1", *, launch_try: int = 1) -> LaunchIntent:
    order = an_order(world.task(), task_id, launch_try=launch_try)
    return LaunchIntent(order, world.launcher.prepare(order))


async def until(check: Callable[[], Awaitable[bool]], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for a condition; fails with ``what`` after the deadline."""
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


async def state_of(launcher: Launcher, worker_id: str) -> WorkerState:
    (observation,) = await launcher.observe([worker_id])
    assert observation.worker_id == worker_id
    assert observation.source
    assert observation.detail
    return observation.state


async def stop_until_gone(launcher: Launcher, worker_id: str) -> None:
    async def is_gone() -> bool:
        return await launcher.stop(worker_id, "the test is over")

    await until(is_gone, "the worker stops")


class LauncherContract:
    """One test per promise of ``ports.Launcher``."""

    async def test_the_prepared_request_is_pure_and_json(self, world: LauncherWorld) -> None:
        order = an_order(world.task())
        request = world.launcher.prepare(order)
        assert request == world.launcher.prepare(order)
        assert json.loads(json.dumps(request)) == request
        assert await world.workers(order.token) == 0

    async def test_no_secret_stands_in_the_prepared_request_and_it_changes_no_replay(
        self, world: LauncherWorld
    ) -> None:
        order = replace(an_order(world.task()), callback_token=SECRET)
        request = world.launcher.prepare(order)
        assert SECRET not in json.dumps(request)
        assert SECRET not in repr(LaunchIntent(order, request))
        assert request == world.launcher.prepare(replace(order, callback_token=None))
        first, second = [await world.launcher.launch(LaunchIntent(order, request)) for _ in range(2)]
        assert first == second
        assert first.rung is Rung.SENT
        assert await world.workers(order.token) == 1

    async def test_a_launch_is_found_without_sending_it(self, world: LauncherWorld) -> None:
        intent, never_sent = an_intent(world, "task-1"), an_intent(world, "task-1", launch_try=2)
        assert await world.launcher.find(intent) is None
        answer = await world.launcher.launch(intent)
        other = world.reopened()
        try:
            for launcher in (world.launcher, other):
                assert await launcher.find(intent) == answer.worker_id
                assert await launcher.find(never_sent) is None
        finally:
            await other.close()
        assert await world.workers(intent.order.token) == 1
        assert await world.workers(never_sent.order.token) == 0

    async def test_a_launched_worker_is_seen(self, world: LauncherWorld) -> None:
        intent = an_intent(world)
        worker_id = (await world.launcher.launch(intent)).worker_id
        assert await state_of(world.launcher, worker_id) in PRESENT
        assert await world.workers(intent.order.token) == 1

    async def test_a_repeat_returns_the_same_worker(self, world: LauncherWorld) -> None:
        intent = an_intent(world)
        assert (await world.launcher.launch(intent)).worker_id == (await world.launcher.launch(intent)).worker_id
        assert await world.workers(intent.order.token) == 1

    async def test_twenty_repeats_of_two_controllers_at_once_leave_one_worker(self, world: LauncherWorld) -> None:
        intent, other = an_intent(world), world.reopened()
        try:
            launchers = [world.launcher, other] * 10
            answers = await asyncio.gather(*(launcher.launch(intent) for launcher in launchers))
            assert len({answer.worker_id for answer in answers}) == 1

            async def one_is_left() -> bool:
                return await world.workers(intent.order.token) == 1

            await until(one_is_left, "one worker is left")
            assert await state_of(world.launcher, answers[0].worker_id) in PRESENT
        finally:
            await other.close()

    async def test_a_restarted_controller_adopts_the_worker(self, world: LauncherWorld) -> None:
        intent = an_intent(world)
        worker_id = (await world.launcher.launch(intent)).worker_id
        await world.launcher.close()
        other = world.reopened()
        try:
            assert await state_of(other, worker_id) in PRESENT
            assert (await other.launch(intent)).worker_id == worker_id
            assert await world.workers(intent.order.token) == 1
        finally:
            await other.close()

    async def test_another_token_is_another_worker(self, world: LauncherWorld) -> None:
        intents = [an_intent(world, "task-1"), an_intent(world, "task-1", launch_try=2), an_intent(world, "task-2")]
        worker_ids = [(await world.launcher.launch(intent)).worker_id for intent in intents]
        assert len(set(worker_ids)) == 3
        assert [await world.workers(intent.order.token) for intent in intents] == [1, 1, 1]
        observations = await world.launcher.observe(worker_ids)
        assert {item.worker_id for item in observations} == set(worker_ids)

    async def test_an_ended_worker_is_seen_as_gone(self, world: LauncherWorld) -> None:
        worker_id = (await world.launcher.launch(an_intent(world))).worker_id
        await world.end(worker_id)

        async def is_gone() -> bool:
            return await state_of(world.launcher, worker_id) in GONE

        await until(is_gone, "the worker is seen as gone")
        assert await world.launcher.stop(worker_id, "it is gone") is True

    async def test_a_launch_repeated_after_its_worker_ended_works_no_second_time(self, world: LauncherWorld) -> None:
        intent = an_intent(world)
        worker_id = (await world.launcher.launch(intent)).worker_id
        await world.end(worker_id)
        assert (await world.launcher.launch(intent)).worker_id == worker_id

        async def none_is_left() -> bool:
            return await world.workers(intent.order.token) == 0

        await until(none_is_left, "the second worker is refused")

    async def test_unknown_workers_are_gone_and_no_error(self, world: LauncherWorld) -> None:
        worker_id = (await world.launcher.launch(an_intent(world))).worker_id
        similar = worker_id[:-1] + ("0" if worker_id[-1] != "0" else "1")
        for unknown in (similar, "no-such-worker", ""):
            assert await state_of(world.launcher, unknown) in GONE
            assert await world.launcher.stop(unknown, "unknown") is True
        assert await world.launcher.observe([]) == []
        assert await state_of(world.launcher, worker_id) in PRESENT

    async def test_a_stopped_worker_is_gone_for_good(self, world: LauncherWorld) -> None:
        intent = an_intent(world)
        worker_id = (await world.launcher.launch(intent)).worker_id
        await stop_until_gone(world.launcher, worker_id)
        assert await state_of(world.launcher, worker_id) in GONE
        assert await world.workers(intent.order.token) == 0
        assert await world.launcher.stop(worker_id, "again") is True

    async def test_stopping_one_worker_leaves_the_others(self, world: LauncherWorld) -> None:
        first = (await world.launcher.launch(an_intent(world, "task-1"))).worker_id
        second = (await world.launcher.launch(an_intent(world, "task-2"))).worker_id
        await stop_until_gone(world.launcher, first)
        assert await state_of(world.launcher, second) in PRESENT

    async def test_closing_twice_is_harmless(self, world: LauncherWorld) -> None:
        await world.launcher.close()
        await world.launcher.close()


class ListingContract:
    """One test per promise of ``ports.Listing``, for launchers that keep it."""

    async def test_live_workers_are_listed_with_what_they_are_for(self, world: LauncherWorld) -> None:
        launcher = world.launcher
        assert isinstance(launcher, Listing)
        intents = [an_intent(world, "listed-1"), an_intent(world, "listed-2", launch_try=2)]
        expected = {
            FoundWorker((await launcher.launch(intent)).worker_id, intent.order.task_id, 1, intent.order.launch_try)
            for intent in intents
        }

        async def listed() -> set[FoundWorker]:
            return {found for found in await launcher.workers() if found.task_id.startswith("listed-")}

        async def are_listed() -> bool:
            return await listed() == expected

        await until(are_listed, "both are listed")
        gone = next(found for found in expected if found.task_id == "listed-1")
        await stop_until_gone(world.launcher, gone.worker_id)
        assert await listed() == expected - {gone}
