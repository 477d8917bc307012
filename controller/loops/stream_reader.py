"""What projector and archiver have in common: how entries of the tracking stream are taken, retried and given up.

An entry stays in hand until it is acknowledged. One that could not be handled is tried again, by whoever comes to it;
after several times it is set aside with the reason, so that it never holds up the others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import structlog

from executions.adapters.metrics import TRACKING_SET_ASIDE
from executions.adapters.tracking_stream import Delivery, TrackingGroup

TRIES = 5
_DEAD_CONSUMERS_SECONDS = 600.0
_log = structlog.get_logger(__name__)


class StreamReader:
    """One reader of one group. ``what`` is its name in metrics and logs."""

    def __init__(self, what: str, group: TrackingGroup, *, idle_seconds: float, tries: int = TRIES) -> None:
        """What was not acknowledged within ``idle_seconds`` is taken over by any reader of the group."""
        self._what = what
        self._group = group
        self._idle_seconds = idle_seconds
        self._tries = tries
        self._claimed_at = 0.0
        self._cleaned_at = time.monotonic()

    async def take(self, *, count: int, block_ms: int) -> list[Delivery]:
        """New entries, and now and then those that were left behind. Raises StoreUnavailable."""
        deliveries = await self._left_behind()
        # With something in hand already nobody waits for more.
        return deliveries + await self._group.read(count=count, block_ms=1 if deliveries else block_ms)

    async def done(self, deliveries: list[Delivery]) -> None:
        await self._group.acknowledge([item.entry_id for item in deliveries])

    async def failed(self, problems: Mapping[Delivery, str]) -> None:
        """These could not be handled: they come again, unless they came often enough."""
        for delivery, reason in problems.items():
            _log.warning(
                "A tracking event could not be handled",
                by=self._what,
                entry=delivery.entry_id,
                times=delivery.times,
                reason=reason,
            )
            if delivery.times >= self._tries:
                await self._group.set_aside(delivery, reason)
                TRACKING_SET_ASIDE.labels(self._what).inc()

    async def _left_behind(self) -> list[Delivery]:
        now = time.monotonic()
        if now - self._claimed_at < self._idle_seconds / 2:
            return []
        self._claimed_at = now
        if now - self._cleaned_at > _DEAD_CONSUMERS_SECONDS:
            self._cleaned_at = now
            await self._group.forget_dead_consumers()
        found = await self._group.claim(idle_ms=round(self._idle_seconds * 1000))
        hopeless = [item for item in found if item.times > self._tries]
        await self.failed({item: f"handed out {item.times} times and never finished" for item in hopeless})
        return [item for item in found if item.times <= self._tries]
