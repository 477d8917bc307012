"""One leader among the replicas: its tasks run while the lease is held and end when it is lost.

Leadership saves work and calls; commits stay correct when two replicas think that they lead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from executions.errors import AlakaiError
from executions.ports import Lease

_log = structlog.get_logger(__name__)


class Leadership:
    """Runs ``lead(fence)`` whenever this replica holds the lease. ``is_leader`` tells whether it does."""

    def __init__(self, lease: Lease, lead: Callable[[int], Awaitable[None]], *, ttl_seconds: float) -> None:
        self._lease = lease
        self._lead = lead
        self._ttl_seconds = ttl_seconds
        self._work: asyncio.Task[None] | None = None
        self._fence: int | None = None

    @property
    def is_leader(self) -> bool:
        return self._fence is not None

    async def run(self) -> None:
        """Try for the lease for ever; prolongs it three times per lifetime. Cancelled, it hands the lease over."""
        loop = asyncio.get_running_loop()
        held_until = 0.0
        try:
            while True:
                asked_at = loop.time()
                turn = self._ttl_seconds / 3
                try:
                    # An answer that does not come must not keep us leading past what we know to hold.
                    async with asyncio.timeout(min(turn, max(held_until - asked_at, 0)) if self.is_leader else turn):
                        fence = await self._lease.hold()
                    held_until = asked_at + self._ttl_seconds if fence is not None else 0.0
                except (AlakaiError, TimeoutError) as error:
                    # The store is away: we still lead until the lease that we know of has run out.
                    fence = self._fence if loop.time() < held_until else None
                    _log.warning("The lease could not be prolonged", reason=str(error), leads_on=fence is not None)
                if fence != self._fence:
                    await self._end()
                    if fence is not None:
                        self._begin(fence)
                elif self._work is not None and self._work.done():
                    self._begin(self._fence or 0)
                await asyncio.sleep(min(turn, max(held_until - loop.time(), 0)) if self.is_leader else turn)
        finally:
            await self._end()
            try:
                await self._lease.release()
            except AlakaiError:
                _log.info("The lease could not be handed over; it runs out by itself")

    def _begin(self, fence: int) -> None:
        self._fence = fence
        _log.info("Leading", fence=fence)
        self._work = asyncio.create_task(self._supervised(fence), name="leader")

    async def _supervised(self, fence: int) -> None:
        try:
            await self._lead(fence)
        except Exception:
            # Begun again at the next turn of run(): the leader's tasks hold no truth of their own.
            _log.exception("The leader's work ended; it is begun again")

    async def _end(self) -> None:
        work, self._work, self._fence = self._work, None, None
        if work is not None:
            _log.info("No longer leading")
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
