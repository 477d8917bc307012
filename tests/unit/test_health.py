"""The checks behind the probes: how little one may cost, and what is told from a thread whatever the loop does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from executions.adapters.health import LOOP_LAG_SECONDS, Health, Look, Probe
from executions.errors import StoreUnavailable
from tests.support.fake_probe import FakeProbe

ABOUT_A_SECOND = 1.5
LIVE, READY = Probe.LIVENESS, Probe.READINESS


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> FakeProbe:
    return FakeProbe()


# One look for all


async def test_fifty_probes_at_once_are_one_look() -> None:
    asked = 0
    go_on = asyncio.Event()

    async def ask() -> None:
        nonlocal asked
        asked += 1
        await go_on.wait()

    look = Look(ask)
    waiting = [asyncio.create_task(look.problem()) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    go_on.set()
    assert await asyncio.gather(*waiting[1:]) == [None] * 49
    assert asked == 1


async def test_a_look_is_used_for_a_second_and_then_repeated() -> None:
    clock, fake = Clock(), FakeProbe()
    look = Look(fake.answers, clock=clock)
    assert [await look.problem() for _ in range(3)] == [None] * 3
    fake.error = StoreUnavailable("away")
    clock.now += 0.9
    assert await look.problem() is None
    clock.now += 0.2
    assert await look.problem() == "away"
    fake.error = None
    clock.now += 1.1
    assert await look.problem() is None
    assert fake.asked == 3


async def test_a_store_that_hangs_is_waited_for_no_longer_than_said() -> None:
    async def ask() -> None:
        await asyncio.Event().wait()

    assert await Look(ask, seconds=0.02).problem() == "no answer within 0.02 s"


async def test_an_error_that_is_not_ours_is_named_by_its_kind_only(store: FakeProbe) -> None:
    store.error = RuntimeError("redis://:canary@host")
    assert await Look(store.answers).problem() == "RuntimeError"


# On the loop


async def test_an_event_loop_that_does_not_turn(store: FakeProbe) -> None:
    """It is not asked anything then: the store would be blamed for not answering."""
    clock = Clock()
    health = Health(store.answers, clock=clock)
    clock.now += 9
    assert await health.problems(LIVE) == {}
    clock.now += 3
    said = {"loop": "the event loop has not turned for 12 s"}
    assert [await health.problems(probe) for probe in Probe] == [said] * 3
    assert [health.problems_for_thread(probe) for probe in Probe] == [said] * 3
    assert store.asked == 1
    heart = asyncio.create_task(health.beat())
    await asyncio.sleep(0)
    assert await health.problems(LIVE) == {}
    heart.cancel()


async def test_a_store_that_was_never_there_is_no_reason_for_a_restart(store: FakeProbe) -> None:
    """The liveness probe of the chart; for anybody else the store counts from the beginning on."""
    store.error = StoreUnavailable("away")
    clock = iter(range(0, 1000, 10))
    health = Health(store.answers, clock=lambda: float(next(clock)))

    async def problems(probe: Probe = LIVE, *, latch: bool) -> set[str]:
        return set(await health.problems(probe, ["loop"], latch=latch))

    assert await problems(latch=True) == set()
    assert await problems(latch=False) == {"store"}
    assert await problems(READY, latch=True) == {"store"}, "not ready it is all the same"
    store.error = None
    assert await problems(latch=True) == set()
    store.error = StoreUnavailable("away")
    assert await problems(latch=True) == {"store"}, "it was there: now a restart may help"
    health.is_closed = True
    assert await problems(latch=True) == {"store"}


# From a thread


class Turning:
    """A loop on a thread of its own, on which a process's health beats."""

    def __init__(self, health: Health) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(health,))
        self._is_up = threading.Event()
        self._stop = asyncio.Event()
        self._thread.start()
        self._is_up.wait(5)

    def _run(self, health: Health) -> None:
        async def main() -> None:
            heart = asyncio.create_task(health.beat())
            await asyncio.sleep(0)
            self._is_up.set()
            await self._stop.wait()
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)

        self.loop.run_until_complete(main())

    @contextmanager
    def blocked(self) -> Iterator[None]:
        go_on, is_blocked = threading.Event(), threading.Event()

        def block() -> None:
            is_blocked.set()
            go_on.wait(30)

        self.loop.call_soon_threadsafe(block)
        assert is_blocked.wait(5)
        try:
            yield
        finally:
            go_on.set()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)


@pytest.fixture
def turning() -> Iterator[Callable[[Health], Turning]]:
    started: list[Turning] = []

    def start(health: Health) -> Turning:
        started.append(Turning(health))
        return started[-1]

    yield start
    for item in started:
        item.stop()
        item.loop.close()


def told(health: Health, probe: Probe = LIVE, *exclude: str) -> tuple[dict[str, str], float]:
    """What a thread is told, and after how long."""
    began = time.monotonic()
    return health.problems_for_thread(probe, exclude), time.monotonic() - began


def test_fifty_threads_at_once_are_one_look(turning: Callable[[Health], Turning]) -> None:
    asked = 0

    async def ask() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.2)

    health = Health(ask)
    turning(health)
    together = threading.Barrier(50)

    def probed(_: int) -> dict[str, str]:
        together.wait(10)
        return health.problems_for_thread(LIVE)

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(probed, range(50))) == [{}] * 50
    assert asked == 1


def test_a_thread_is_told_what_the_loop_is_told(store: FakeProbe, turning: Callable[[Health], Turning]) -> None:
    health = Health(store.answers, is_trusted=store.is_trusted)
    loop = turning(health).loop
    store.trust_error = StoreUnavailable("this Redis has no epoch")
    health.is_draining = True
    of_the_loop = asyncio.run_coroutine_threadsafe(health.problems(READY), loop).result(5)
    assert told(health, READY)[0] == of_the_loop == {"trust": "this Redis has no epoch", "draining": "shutting down"}
    assert told(health, READY, "trust", "draining")[0] == {}


def test_while_the_loop_is_stuck_a_probe_waits_for_a_second_at_most_and_then_not_at_all(
    store: FakeProbe, turning: Callable[[Health], Turning]
) -> None:
    clock = Clock()
    health = Health(store.answers, clock=clock)
    with turning(health).blocked():
        problems, seconds = told(health)
        assert problems == {"store": "no answer within 1 s"}
        assert 0.9 < seconds < ABOUT_A_SECOND
        assert told(health, LIVE, "store")[1] < 0.5, "nothing is to be asked"
        clock.now += LOOP_LAG_SECONDS + 2
        problems, seconds = told(health)
        assert problems == {"loop": "the event loop has not turned for 12 s"}
        assert seconds < 0.5
        assert store.asked == 0
    deadline = time.monotonic() + 5
    while told(health)[0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert store.asked == 1, "those that were given up in the meantime cost nothing more"


def test_where_no_loop_runs_any_more_or_yet_nobody_waits(
    store: FakeProbe, turning: Callable[[Health], Turning]
) -> None:
    health = Health(store.answers)
    not_asked = {"store": "not asked: the event loop does not run"}
    assert told(health)[0] == not_asked
    running = turning(health)
    assert told(health)[0] == {}
    store.asked = 0
    running.stop()
    problems, seconds = told(health)
    assert (problems, store.asked) == (not_asked, 0)
    assert seconds < 0.5


def test_a_loop_that_is_closed_under_a_probe_is_no_answer(store: FakeProbe) -> None:
    """Nor a warning that something was never awaited, which would fail this test."""
    health = Health(store.answers)
    health._loop = asyncio.new_event_loop()
    health._loop.close()
    assert told(health)[0] == {"store": "no answer within 1 s"}
