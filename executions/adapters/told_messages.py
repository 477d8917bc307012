"""Which comment or message of a channel is an execution's own, in Redis: so that it is updated and not made again.

A memory only: where it was lost the channel finds its message by a mark. Never talks to a channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from redis.asyncio import Redis

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_keys import Keys

_REMEMBERED_MS = 90 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of one message."""

    message_id: str | None = None
    """As the channel names it; None while it is only known that one was about to be made."""
    order: tuple[int, int] = (0, 0)
    """Of the notification that it says; an older one that comes late changes nothing."""
    begun_ms: int = 0
    """When it was about to be made for the first time."""


class ToldMessages:
    """The messages of one channel. Raises StoreUnavailable."""

    def __init__(self, redis: Redis, prefix: str, channel: str) -> None:
        self._redis = redis
        self._keys = Keys(prefix)
        self._channel = channel

    async def read(self, place: str, execution_id: str) -> Told | None:
        """Of an execution at one place: an issue, a thread."""
        with redis_errors():
            found = await self._redis.get(self._keys.told_message(self._channel, place, execution_id))
        if not isinstance(found, bytes):
            return None
        document = orjson.loads(found)
        at_ms, sequence = document["order"]
        return Told(document["id"], (at_ms, sequence), document["begun"])

    async def write(self, place: str, execution_id: str, told: Told) -> None:
        document = {"id": told.message_id, "order": told.order, "begun": told.begun_ms}
        with redis_errors():
            await self._redis.set(
                self._keys.told_message(self._channel, place, execution_id), orjson.dumps(document), px=_REMEMBERED_MS
            )
