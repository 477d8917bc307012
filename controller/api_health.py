"""Whether the API server can be used: what writes to it waits here while it cannot, instead of failing one by one.

So an outage costs one small request every now and then, whatever waits is coalesced meanwhile, and everything goes on
the moment the API server is back. Never decides what is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from executions.cluster import ClusterError, TooManyRequests, Unavailable

FAILURES_UNTIL_AWAY = 3
_FIRST_LOOK_SECONDS = 0.25
_LONGEST_LOOK_SECONDS = 2.0
_log = structlog.get_logger(__name__)


class ApiHealth:
    """``check`` makes one small request and raises a ClusterError while the API server is of no use."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._failures = 0
        self._quiet_until = 0.0
        self._one_looks = asyncio.Lock()
        self.is_away = False

    async def ready(self) -> None:
        """Returns when requests may be made: at once, or once the API server is back or no longer asks to wait."""
        if self.is_away:
            async with self._one_looks:
                await self._look_until_back()
        pause = self._quiet_until - asyncio.get_running_loop().time()
        if pause > 0:
            await asyncio.sleep(pause)

    async def check(self) -> None:
        """Make the small request now. Raises ClusterError."""
        with self.watching():
            await self._check()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around requests: learns from how they end. Errors of others, such as the store's, say nothing."""
        try:
            yield
        except Unavailable as error:
            self._failures += 1
            if self._failures >= FAILURES_UNTIL_AWAY and not self.is_away:
                self.is_away = True
                _log.warning("The API server is away; custom resources wait for it", reason=str(error))
            raise
        except TooManyRequests as error:
            until = asyncio.get_running_loop().time() + error.retry_after_seconds
            self._quiet_until = max(self._quiet_until, until)
            raise
        except ClusterError:
            self._failures = 0  # a refusal is an answer
            raise
        self._failures = 0

    async def _look_until_back(self) -> None:
        pause = _FIRST_LOOK_SECONDS
        while self.is_away:
            try:
                await self._check()
            except ClusterError:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_LOOK_SECONDS)
            else:
                self._failures = 0
                self.is_away = False
                _log.info("The API server is back")
