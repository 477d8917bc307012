"""Puts a notification into the outbox for every outcome that the change feed tells of, in its order.

The feed's entry carries what is told, so nothing depends on what became of the record since. The place in the feed is
kept there and moves on only after the notifications are in the outbox, which takes each event once. Runs on the leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from executions.adapters.notification_outbox import NotificationOutbox
from executions.adapters.redis_feed import FeedCursor
from executions.errors import StoreUnavailable
from executions.feed import FeedEntry
from executions.notification import Notification, notification_of
from executions.policy import Policy
from executions.ports import Channel

_PAUSE_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class Announcer:
    """``run`` announces for ever; an outage of Redis is waited out. ``on_put`` is told of anything new."""

    def __init__(
        self,
        feed: FeedCursor,
        outbox: NotificationOutbox,
        channels: Sequence[Channel],
        policy: Policy,
        *,
        on_put: Callable[[], None] = lambda: None,
    ) -> None:
        self._feed = feed
        self._outbox = outbox
        self._channels = channels
        self._policy = policy
        self._on_put = on_put

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except StoreUnavailable as error:
                _log.warning("Outcomes could not be put into the outbox", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def turn(self, *, block_ms: int = 1000) -> None:
        has_put = False
        for entry in await self._feed.read(block_ms=block_ms):
            notification = self._notification(entry)
            if notification is not None:
                has_put |= await self._outbox.put(notification, self._concerned(notification))
        if has_put:
            self._on_put()
        await self._feed.advance()

    def _notification(self, entry: FeedEntry) -> Notification | None:
        if entry.outcome is None or entry.event is None:
            return None
        try:
            return notification_of(
                entry.outcome,
                entry.event,
                event_id=entry.event_id,
                sequence=entry.sequence,
                occurred_ms=entry.occurred_ms,
                policy=self._policy,
            )
        except (KeyError, TypeError, ValueError):
            # One entry of another version's shape must not keep all that follow from being told.
            _log.exception("An outcome cannot be told", task_id=entry.task_id)
            return None

    def _concerned(self, notification: Notification) -> list[str]:
        names = [channel.name for channel in self._channels if channel.concerns(notification)]
        if "webhook" in notification.callbacks and not any(name.startswith("callback:") for name in names):
            _log.warning(
                "A task's message names a webhook whose host is not in allowedHosts; it is not told",
                task_id=notification.task_id,
            )
        return names
