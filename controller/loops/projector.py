"""Keeps the latest state of every execution up to date from the tracking stream. Any number may run."""

from __future__ import annotations

import asyncio

import structlog

from controller.loops.stream_reader import StreamReader
from executions.adapters.metrics import TRACKING_HANDLED
from executions.adapters.tracking_projection import TrackingProjection
from executions.adapters.tracking_stream import Delivery
from executions.errors import InvalidEvent, StoreUnavailable
from executions.tracking import TrackingEvent, event_from_text

_AT_ONCE = 500
_BLOCK_MS = 1000
_PAUSE_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class Projector:
    """``run`` projects for ever; an outage of Redis is waited out."""

    def __init__(self, reader: StreamReader, projection: TrackingProjection) -> None:
        self._reader = reader
        self._projection = projection

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except StoreUnavailable as error:
                _log.warning("Lifecycle events could not be projected", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def turn(self) -> None:
        deliveries = await self._reader.take(count=_AT_ONCE, block_ms=_BLOCK_MS)
        read, problems = events_of(deliveries)
        refused = await self._projection.apply([event for _, event in read])
        for (delivery, _), problem in zip(read, refused, strict=True):
            if problem is not None:
                problems[delivery] = problem
        done = [delivery for delivery in deliveries if delivery not in problems]
        await self._reader.done(done)
        TRACKING_HANDLED.labels("projector").inc(len(done))
        await self._reader.failed(problems)


def events_of(
    deliveries: list[Delivery],
) -> tuple[list[tuple[Delivery, TrackingEvent]], dict[Delivery, str]]:
    """The events in these entries, and why the others hold none."""
    events, problems = list[tuple[Delivery, TrackingEvent]](), dict[Delivery, str]()
    for delivery in deliveries:
        try:
            events.append((delivery, event_from_text(delivery.text)))
        except InvalidEvent as error:
            problems[delivery] = str(error)
    return events, problems
