"""Notifications, wired from the settings: what the leader runs so that every outcome is told.

One loop puts outcomes into the outbox, one for each channel delivers. Without configuration nothing of it runs, and the
change feed keeps nothing for it.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog

from controller.loops.announcer import Announcer
from controller.loops.courier import Courier
from executions.adapters.metrics import NOTIFICATIONS_AGE, NOTIFICATIONS_DEAD, NOTIFICATIONS_WAITING
from executions.adapters.notification_outbox import NotificationOutbox, Standing
from executions.adapters.notifications_file import Channels, open_channels
from executions.adapters.redis_feed import FeedCursor
from executions.adapters.redis_store import RedisStore
from executions.adapters.settings import Settings
from executions.errors import StoreUnavailable

Work = Callable[[], Awaitable[None]]
FEED_GROUP = "notifications"
_LOOK_BACK_MS = 60_000
"""Where the feed is read for the first time: outcomes of the start itself are told, those of yesterday are not."""
_MEASURE_SECONDS = 15.0
_PAUSE_SECONDS = 1.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Notifications:
    """What is configured, and the store that it lies in."""

    settings: Settings
    store: RedisStore
    configured: Channels | None
    """None: nobody is told."""

    @classmethod
    def from_settings(cls, settings: Settings, store: RedisStore) -> Notifications:
        """Connects to nothing yet. Raises InvalidSettings."""
        return cls(settings, store, open_channels(settings, store.redis))

    def parts(self) -> Mapping[str, Work]:
        """What the leader runs, by name."""
        redis, prefix = self.store.redis, self.store.keys.prefix
        if self.configured is None:
            return {"no notifications": self._drop_feed}
        outbox = NotificationOutbox(redis, prefix)
        channels, rules = self.configured.channels, self.configured.rules
        couriers = [Courier(outbox, channel, rules, draw=random.random) for channel in channels]

        def wake_all() -> None:
            for courier in couriers:
                courier.wake()

        feed = FeedCursor(self.store, group=FEED_GROUP, look_back_ms=_LOOK_BACK_MS)
        announcer = Announcer(feed, outbox, channels, self.settings.policy, on_put=wake_all)
        parts: dict[str, Work] = {"announcer": announcer.run}
        for channel, courier in zip(channels, couriers, strict=True):
            parts[f"courier {channel.name}"] = courier.run
        return {**parts, "notification measures": lambda: self._measure_for_ever(outbox)}

    async def close(self) -> None:
        for channel in self.configured.channels if self.configured is not None else ():
            await channel.close()

    async def _drop_feed(self) -> None:
        """Nobody reads the feed for notifications: nothing is kept for it."""
        feed = FeedCursor(self.store, group=FEED_GROUP)
        while True:
            try:
                await feed.drop()
                break
            except StoreUnavailable as error:
                _log.warning("The feed's group of notifications could not be dropped", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
        await asyncio.Event().wait()

    async def _measure_for_ever(self, outbox: NotificationOutbox) -> None:
        while True:
            try:
                names = {*await outbox.channels(), *self._names()}
                tell({name: await outbox.standing(name) for name in names})
            except StoreUnavailable as error:
                _log.warning("The outbox could not be measured", reason=str(error))
            await asyncio.sleep(_MEASURE_SECONDS)

    def _names(self) -> Iterator[str]:
        for channel in self.configured.channels if self.configured is not None else ():
            yield channel.name


def tell(standings: Mapping[str, Standing]) -> None:
    """As metrics, by kind of channel: the hosts of callbacks are one kind."""
    kinds = defaultdict[str, list[Standing]](list)
    for name, standing in standings.items():
        kinds[name.partition(":")[0]].append(standing)
    for kind, found in kinds.items():
        NOTIFICATIONS_DEAD.labels(kind).set(sum(item.dead for item in found))
        NOTIFICATIONS_WAITING.labels(kind).set(sum(item.tasks for item in found))
        NOTIFICATIONS_AGE.labels(kind).set(max((item.oldest_ms or 0 for item in found), default=0) / 1000)
