"""The work queue: coalescing, one at a time per key, back-off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from controller.work_queue import WorkQueue
from executions.errors import AlakaiError
from tests.support.waiting import until

pytestmark = pytest.mark.looptime
"""The loop's time passes as soon as nobody has anything to do, so that waits cost none."""


class Busy(AlakaiError):
    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("busy")
        self.retry_after_seconds = retry_after_seconds


class Bench:
    """A queue whose handler waits for ``open`` and fails with the errors in ``errors``, first come first."""

    def __init__(self, *, workers: int = 4, jitter: Callable[[], float] = lambda: 1.0) -> None:
        self.handled: list[str] = []
        self.times: list[float] = []
        self.at_once = 0
        self.most_at_once = 0
        self.errors: list[Exception] = []
        self.open = asyncio.Event()
        self.open.set()
        self.queue = WorkQueue(
            "test",
            self.handle,
            workers=workers,
            first_pause_seconds=0.01,
            longest_pause_seconds=0.08,
            jitter=jitter,
        )
        self.pauses: list[float] = []
        """What was asked for, which unlike what came of it does not depend on how busy the machine is."""
        self._add_after = self.queue.add_after
        self.queue.add_after = self.add_after  # type: ignore[method-assign]

    def add_after(self, key: str, seconds: float) -> None:
        self.pauses.append(seconds)
        self._add_after(key, seconds)

    async def handle(self, key: str) -> None:
        self.handled.append(key)
        self.times.append(asyncio.get_running_loop().time())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.open.wait()
            if self.errors:
                raise self.errors.pop(0)
        finally:
            self.at_once -= 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.queue.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_key_that_waits_is_handled_once_however_often_it_is_added() -> None:
    bench = Bench()
    for _ in range(50):
        bench.queue.add("a")
    bench.queue.add("b")
    assert bench.queue.depth == 2
    async with bench.running():
        await until(lambda: bench.queue.is_idle)
    assert bench.handled == ["a", "b"]
    assert bench.queue.handled == 2


async def test_a_key_added_while_it_is_handled_is_handled_once_more_and_never_twice_at_once() -> None:
    bench = Bench()
    bench.open.clear()
    async with bench.running():
        bench.queue.add("a")
        await until(lambda: bench.at_once == 1)
        for _ in range(5):
            bench.queue.add("a")
        assert bench.queue.depth == 1
        bench.open.set()
        await until(lambda: bench.queue.is_idle)
    assert bench.handled == ["a", "a"]
    assert bench.most_at_once == 1


async def test_different_keys_are_handled_at_once_by_so_many_workers() -> None:
    bench = Bench(workers=3)
    bench.open.clear()
    for key in "abcde":
        bench.queue.add(key)
    async with bench.running():
        await until(lambda: bench.at_once == 3)
        bench.open.set()
        await until(lambda: bench.queue.is_idle)
    assert bench.most_at_once == 3
    assert sorted(bench.handled) == list("abcde")


async def test_a_failed_key_is_tried_again_after_pauses_that_double_up_to_the_longest() -> None:
    bench = Bench()
    bench.errors = [AlakaiError("no")] * 6
    with capture_logs() as logs:
        async with bench.running():
            bench.queue.add("a")
            await until(lambda: len(bench.handled) == 7)
            await until(lambda: bench.queue.is_idle)
    assert bench.pauses == [0.01, 0.02, 0.04, 0.08, 0.08, 0.08]
    assert all(later - earlier >= 0.009 for earlier, later in zip(bench.times, bench.times[1:], strict=False))
    assert bench.queue.failed == 6
    # An outage fails every key many times: the log grows with its logarithm.
    assert [entry["failures"] for entry in logs] == [1, 2, 4]


async def test_a_success_forgets_the_failures() -> None:
    bench = Bench()
    bench.errors = [AlakaiError("no"), AlakaiError("no")]
    async with bench.running():
        bench.queue.add("a")
        await until(lambda: bench.queue.handled == 1)
        bench.errors = [AlakaiError("no")]
        bench.queue.add("a")
        await until(lambda: bench.queue.handled == 2)
    assert bench.pauses == [0.01, 0.02, 0.01]


async def test_jitter_spreads_the_keys_of_one_outage() -> None:
    draws = iter([0.0, 0.5])
    bench = Bench(jitter=lambda: next(draws))
    bench.errors = [AlakaiError("no"), AlakaiError("no")]
    async with bench.running():
        bench.queue.add("a")
        await until(lambda: len(bench.handled) == 3)
    assert bench.pauses == [0.005, 0.015]


async def test_an_error_may_ask_for_a_longer_pause() -> None:
    bench = Bench()
    bench.errors = [Busy(0.2)]
    async with bench.running():
        bench.queue.add("a")
        await until(lambda: len(bench.handled) == 2)
    assert bench.pauses == [0.2]
    assert bench.times[1] - bench.times[0] >= 0.19


async def test_one_key_in_its_pause_holds_up_no_other_and_a_new_reason_ends_the_pause() -> None:
    bench = Bench(workers=1)
    bench.errors = [Busy(60)]
    async with bench.running():
        bench.queue.add("a")
        await until(lambda: bench.queue.failed == 1)
        bench.queue.add("b")
        bench.queue.add("a")
        await until(lambda: bench.queue.handled == 2)
    assert bench.handled == ["a", "b", "a"]


async def test_a_defect_is_logged_with_its_traceback_and_tried_again() -> None:
    bench = Bench()
    bench.errors = [KeyError("oops")]
    with capture_logs() as logs:
        async with bench.running():
            bench.queue.add("a")
            await until(lambda: bench.queue.handled == 1)
    assert logs[0]["log_level"] == "error"
    assert isinstance(logs[0]["exc_info"], KeyError)


async def test_of_several_times_the_earliest_counts() -> None:
    bench = Bench()
    async with bench.running():
        bench.queue.add_after("a", 60)
        bench.queue.add_after("a", 0.01)
        bench.queue.add_after("a", 30)
        assert (bench.queue.depth, bench.queue.postponed) == (0, 1)
        await until(lambda: bench.handled == ["a"])
        assert bench.queue.postponed == 0


async def test_how_long_the_oldest_waits_is_known() -> None:
    bench = Bench()
    assert bench.queue.oldest_age_seconds == 0
    bench.queue.add("a")
    before = asyncio.get_running_loop().time()
    await asyncio.sleep(0.02)
    bench.queue.add("b")
    assert 0.01 < bench.queue.oldest_age_seconds <= asyncio.get_running_loop().time() - before + 0.001


async def test_when_it_ends_everything_that_waits_is_forgotten_and_it_can_run_again() -> None:
    bench = Bench(workers=1)
    bench.open.clear()
    async with bench.running():
        for key in "abc":
            bench.queue.add(key)
        bench.queue.add_after("d", 60)
        await until(lambda: bench.at_once == 1)
    assert (bench.queue.depth, bench.queue.postponed, bench.queue.is_idle) == (0, 0, True)
    bench.open.set()
    async with bench.running():
        bench.queue.add("e")
        await until(lambda: bench.queue.handled == 1)
    assert bench.handled == ["a", "e"]


@pytest.mark.parametrize("workers", [1, 16])
async def test_nothing_added_is_ever_left_unhandled(workers: int) -> None:
    """Every add is followed by a handling that began after it, whatever the interleaving."""
    bench = Bench(workers=workers)
    last_add: dict[str, float] = {}
    async with bench.running():
        for number in range(300):
            key = f"k{number % 7}"
            bench.queue.add(key)
            last_add[key] = asyncio.get_running_loop().time()
            if number % 5 == 0:
                await asyncio.sleep(0)
        await until(lambda: bench.queue.is_idle)
    last_handled = dict(zip(bench.handled, bench.times, strict=True))
    assert all(last_handled[key] >= at for key, at in last_add.items())
