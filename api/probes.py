"""Is this process alive, and may it take traffic? What is behind ``/livez`` and ``/readyz``.

A probe never waits longer than about a second, and any number of them costs one look at the store per second. The
answers have the controller's shape; the paths are in ``routes/health.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from executions.errors import AlakaiError

LOOK_SECONDS = 1.0
"""A look at the store may take this long, and its result is used this long."""
LOOP_LAG_SECONDS = 10.0
_BEAT_SECONDS = 0.5

Check = Callable[[], Awaitable[str | None]]
"""What is wrong, in words for a person; None when nothing is."""


class StoreProbe(Protocol):
    """Looks at the store on a connection of its own: a pool that is busy is not a store that is dead."""

    async def answers(self) -> None:
        """Raises when the server does not answer; a refusal (loading, read-only, no rights) is an answer."""
        ...

    async def is_trusted(self) -> None:
        """Raises when commands on executions would be refused now."""
        ...


class Look:
    """One check whose result is shared: at most one runs at a time, and at most one a second."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[None]],
        *,
        seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self._problem: str | None = None
        self.was_well = False
        """Whether it has ever found nothing wrong."""

    async def problem(self) -> str | None:
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
            self._problem = f"no answer within {self._seconds:g} s"
        except Exception as error:
            # Whatever it is, it is a failed check and not a failed probe. Only our own errors' texts are fit to show.
            self._problem = str(error) if isinstance(error, AlakaiError) else type(error).__name__
        finally:
            self._asked_at = self._clock()
            self._asking = None


class Health:
    """The checks of this process. ``is_draining`` and ``is_closed`` are set by whoever stops it."""

    def __init__(self, store: StoreProbe, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_draining = False
        self.is_closed = False
        self._answers = Look(store.answers, clock=clock)
        self._trusted = Look(store.is_trusted, clock=clock)
        self._clock = clock
        self._beat_at = clock()

    async def beat(self) -> None:
        """Run for ever beside the server: shows that the event loop still gets round."""
        while True:
            self._beat_at = self._clock()
            await asyncio.sleep(_BEAT_SECONDS)

    async def liveness_problems(self, exclude: Collection[str] = (), *, latch: bool = False) -> dict[str, str]:
        """What a restart might help, by name of the check; empty when all is well.

        With ``latch`` a store that has never answered is nothing that a restart helps with.
        """
        problems = await _problems({"loop": self._loop, "store": self._store}, exclude)
        if latch and not self._answers.was_well and not self.is_closed:
            problems.pop("store", None)
        return problems

    async def readiness_problems(self, exclude: Collection[str] = ()) -> dict[str, str]:
        """Why this process should get no traffic, by name of the check."""
        checks = {"loop": self._loop, "store": self._store, "trust": self._trust, "draining": self._draining}
        return await _problems(checks, exclude)

    async def _loop(self) -> str | None:
        lag = self._clock() - self._beat_at
        return f"the event loop has not turned for {lag:.0f} s" if lag > LOOP_LAG_SECONDS else None

    async def _store(self) -> str | None:
        return "closed" if self.is_closed else await self._answers.problem()

    async def _trust(self) -> str | None:
        return "closed" if self.is_closed else await self._trusted.problem()

    async def _draining(self) -> str | None:
        return "shutting down" if self.is_draining else None


async def _problems(checks: Mapping[str, Check], exclude: Collection[str]) -> dict[str, str]:
    wanted = [name for name in checks if name not in exclude]
    found = await asyncio.gather(*(checks[name]() for name in wanted))
    return {name: problem for name, problem in zip(wanted, found, strict=True) if problem is not None}
