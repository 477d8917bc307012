"""Puts a lifecycle event onto the tracking stream for every step that the change feed tells of, in its order.

The feed's entry carries what the event says, so nothing depends on what became of the record since. The place in the
feed is kept there and moves on only after the events are on the stream. Runs on the leader.
"""

from __future__ import annotations

import asyncio

import orjson
import structlog

from executions.adapters.metrics import TRACKING_PUBLISHED
from executions.adapters.redis_feed import FeedCursor
from executions.adapters.tracking_stream import TrackingStream
from executions.errors import StoreUnavailable
from executions.feed import FeedEntry
from executions.tracking import document_of
from executions.visibility import Visibility

_PAUSE_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class Publisher:
    """``run`` publishes for ever; an outage of either Redis is waited out."""

    def __init__(self, feed: FeedCursor, stream: TrackingStream, visibility: Visibility) -> None:
        self._feed = feed
        self._stream = stream
        self._visibility = visibility

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except StoreUnavailable as error:
                _log.warning("Lifecycle events could not be published", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def turn(self) -> None:
        entries = await self._feed.read()
        events = [(entry.event_id, self._encoded(entry)) for entry in entries if entry.event is not None]
        TRACKING_PUBLISHED.inc(await self._stream.publish(events))
        await self._feed.advance()

    def _encoded(self, entry: FeedEntry) -> bytes:
        content = entry.event or {}
        users = self._visibility.responsible_users(content.get("project"))
        return orjson.dumps(
            document_of(content, event_id=entry.event_id, occurred_ms=entry.occurred_ms, responsible_users=users)
        )
