"""A token bucket for calls to a service that throttles: keeps us below its limit instead of running into it.

Never repeats a call and knows no service; who takes from which bucket is decided in ``ecs_client``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 20.0


class BucketEmpty(Exception):
    """No token within the time that the caller may wait, or the service began to throttle while it waited."""


class TokenBucket:
    """At most ``burst`` calls at once and ``per_second`` in the long run. For one event loop.

    ``clock`` gives seconds that never go back; ``sleep`` waits on the same clock.
    """

    def __init__(
        self,
        burst: int,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._interval = 1 / per_second
        self._depth = (burst - 1) * self._interval
        # When the bucket is full again. One number instead of a count and a time: nothing to keep in step.
        self._full_at = clock()
        self._pause = 0.0
        self._paused_until = self._full_at
        self._pauses = 0

    async def take(self, *, longest_wait_seconds: float) -> None:
        """Wait for a token, in the order of the calls. Raises BucketEmpty at once when that would take too long.

        The wait is bounded because what a caller checked before it (is this launch still wanted?) grows stale.
        """
        now = self._clock()
        full_at = max(self._full_at, now)
        wait = round(full_at - self._depth - now, 6)  # to a microsecond: sums of fractions are never exact
        if wait > longest_wait_seconds:
            raise BucketEmpty
        self._full_at = full_at + self._interval
        if wait > 0:
            pauses = self._pauses
            await self._sleep(wait)
            if self._pauses != pauses:
                raise BucketEmpty

    def throttled(self) -> None:
        """The service refused for its rate: empty the bucket and pause, twice as long each time in a row."""
        now = self._clock()
        if now < self._paused_until:
            # Calls that were under way together are refused together; only one of them counts.
            return
        self._pauses += 1
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._paused_until = now + self._pause
        self._full_at = max(self._full_at, self._paused_until + self._depth)

    def answered(self) -> None:
        """The service answered: the next pause is a short one again."""
        self._pause = 0.0
