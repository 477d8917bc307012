"""Is this process alive, and may it be given work? The checks behind the probes of controller and API.

Whether the loop turns and what the process was told (``tell``, ``is_draining``) is known at once; the store has to be
asked, on the event loop. A probe never waits longer than about a second, and any number of them costs one look at the
store per second. Only a thread can say that the loop is stuck: ``probes`` serves on one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum, auto

from executions.errors import AlakaiError

LOOK_SECONDS = 1.0
"""A look at the store may take this long, and its result is used this long."""
LOOP_LAG_SECONDS = 10.0
_BEAT_SECONDS = 0.5
_NOT_RUNNING = "not asked: the event loop does not run"

Ask = Callable[[], Awaitable[None]]
"""Raises when something is wrong."""


class Probe(Enum):
    """What is to be known of the process."""

    STARTUP = auto()
    """Whether it has begun, whatever else is away."""
    LIVENESS = auto()
    """Whether a restart might help."""
    READINESS = auto()
    """Whether it may be given work."""


class Look:
    """One check whose result is shared: at most one runs at a time, and at most one a second."""

    def __init__(self, ask: Ask, *, seconds: float = LOOK_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self._problem: str | None = None
        self.was_well = False
        """Whether it has ever found nothing wrong."""

    async def problem(self) -> str | None:
        """What is wrong, in words for a person; None when nothing is."""
        if self._clock() - self._asked_at >= self._seconds:
            if self._asking is None:
                self._asking = asyncio.create_task(self._look())
            # A probe that its caller gives up must not end the look that others wait for.
            await asyncio.shield(self._asking)
        return self._problem

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._ask()
            self._problem = None
            self.was_well = True
        except TimeoutError:
            self._problem = _no_answer(self._seconds)
        except Exception as error:
            # Whatever it is, it is a failed check and not a failed probe. Only our own errors' texts are fit to show.
            self._problem = str(error) if isinstance(error, AlakaiError) else type(error).__name__
        finally:
            self._asked_at = self._clock()
            self._asking = None


class Health:
    """The checks of this process. ``is_draining`` and ``is_closed`` are set by whoever stops it.

    ``answers`` asks whether the store is there. ``is_trusted`` whether it is the one we know; who finds that out in
    another way tells it.
    """

    def __init__(
        self, answers: Ask, *, is_trusted: Ask | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_draining = False
        self.is_closed = False
        self._store = Look(answers, clock=clock)
        self._looks = {"store": self._store}
        if is_trusted is not None:
            self._looks["trust"] = Look(is_trusted, clock=clock)
        self._told: dict[str, str | None] = {}
        self._clock = clock
        self._beat_at = clock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def beat(self) -> None:
        """Run for ever: shows that the event loop still gets round. Other threads' looks are had on this loop."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._beat_at = self._clock()
                await asyncio.sleep(_BEAT_SECONDS)
        finally:
            self._loop = None

    def tell(self, check: str, problem: str | None) -> None:
        """Note why this process may not be given work; None when there is no such reason any more."""
        self._told[check] = problem

    async def problems(self, probe: Probe, exclude: Collection[str] = (), *, latch: bool = False) -> dict[str, str]:
        """What is wrong, by name of the check; empty when all is well. Called on the loop.

        With ``latch`` a store that has never answered is nothing that a restart helps with.
        """
        known, looks = self._begun(probe, exclude)
        return self._ended(probe, known | await _had(looks), latch=latch)

    def problems_for_thread(
        self, probe: Probe, exclude: Collection[str] = (), *, latch: bool = False
    ) -> dict[str, str]:
        """The same for any other thread, whatever the loop does."""
        known, looks = self._begun(probe, exclude)
        return self._ended(probe, known | self._had_on_loop(looks), latch=latch)

    def _begun(self, probe: Probe, exclude: Collection[str]) -> tuple[dict[str, str | None], dict[str, Look]]:
        """What is known at once, and what has to be looked at."""
        lag = self._clock() - self._beat_at
        known: dict[str, str | None] = {}
        looks = self._looks if probe is Probe.READINESS else {"store": self._store} if probe is Probe.LIVENESS else {}
        if self.is_closed:
            known |= dict.fromkeys(looks, "closed")
        if probe is Probe.READINESS:
            known |= self._told
            known["draining"] = "shutting down" if self.is_draining else None
        known = {name: problem for name, problem in known.items() if name not in exclude}
        if lag > LOOP_LAG_SECONDS and "loop" not in exclude:
            # Nothing is asked there now: who waited for it in vain would blame the store.
            return {"loop": f"the event loop has not turned for {lag:.0f} s", **known}, {}
        return known, {name: look for name, look in looks.items() if name not in known and name not in exclude}

    def _ended(self, probe: Probe, found: Mapping[str, str | None], *, latch: bool) -> dict[str, str]:
        if latch and probe is Probe.LIVENESS and not (self._store.was_well or self.is_closed):
            found = {**found, "store": None}
        return {name: problem for name, problem in found.items() if problem is not None}

    def _had_on_loop(self, looks: Mapping[str, Look]) -> dict[str, str | None]:
        loop, found = self._loop, Future[dict[str, str | None]]()
        if loop is None or not looks:
            return dict.fromkeys(looks, _NOT_RUNNING)

        async def look() -> None:
            found.set_result(await _had(looks))

        # A loop that is stuck, or closed just now, is not waited for; what it still finds is for the next probe.
        with suppress(TimeoutError, RuntimeError):
            loop.call_soon_threadsafe(lambda: loop.create_task(look()))
            return found.result(LOOK_SECONDS)
        return dict.fromkeys(looks, _no_answer(LOOK_SECONDS))


async def _had(looks: Mapping[str, Look]) -> dict[str, str | None]:
    return dict(zip(looks, await asyncio.gather(*(look.problem() for look in looks.values())), strict=True))


def _no_answer(seconds: float) -> str:
    return f"no answer within {seconds:g} s"
