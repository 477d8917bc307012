"""The change feed in Redis: a stream that registered groups read, trimmed behind the slowest of them."""

from __future__ import annotations

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_keys import Keys
from executions.feed import FeedEntry, entry_from_document

_COUNTED = 10_000
"""More than this is not told apart."""


class RedisFeed:
    """``ports.Feed`` for one group. Entries count as read when they are handed out: what a reader derives from them
    is derived again from the records by its resync, so that a crash in between loses nothing.
    """

    def __init__(self, redis: Redis, prefix: str, *, group: str, consumer: str) -> None:
        self._redis = redis
        self._stream = Keys(prefix).feed
        self._group = group
        self._consumer = consumer
        self._is_registered = False

    async def read(self, *, count: int = 500, block_ms: int = 1000) -> list[FeedEntry]:
        with redis_errors():
            await self._ensure_registered()
            try:
                answer = await self._redis.xreadgroup(
                    self._group, self._consumer, {self._stream: ">"}, count=count, block=block_ms, noack=True
                )
            except ResponseError as error:
                # The stream was removed under us (an emptied Redis): register anew at the next read.
                self._is_registered = "NOGROUP" not in str(error)
                raise
        streams = answer.items() if isinstance(answer, dict) else answer or []
        return [
            entry_from_document(orjson.loads(fields[b"change"])) for _, batches in streams for fields in _flat(batches)
        ]

    async def lag(self) -> int:
        """How many entries the slowest group has not been given yet."""
        with redis_errors():
            slowest = await self._slowest()
            if slowest is None:
                return 0
            # Redis 7 counts this itself; 6.2 does not. What was read is trimmed, so there is little to count.
            found = await self._redis.xrange(self._stream, min=b"(" + _bytes(slowest), count=_COUNTED)
            return len(found or ())

    async def trim(self) -> int:
        with redis_errors():
            slowest = await self._slowest()
            if slowest is None:
                return 0
            return int(await self._redis.xtrim(self._stream, minid=slowest, approximate=True))

    async def _slowest(self) -> bytes | str | None:
        """The last entry that every group was given; None while there is no stream or no group."""
        if not await self._redis.exists(self._stream):
            return None
        groups = await self._redis.xinfo_groups(self._stream)
        return min((group["last-delivered-id"] for group in groups), key=_order, default=None)

    async def _ensure_registered(self) -> None:
        if self._is_registered:
            return
        try:
            await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._is_registered = True


def _flat(batches: object) -> list[dict[bytes, bytes]]:
    # RESP3 answers with one more level of lists than RESP2.
    found: list[dict[bytes, bytes]] = []
    if isinstance(batches, list):
        for item in batches:
            if isinstance(item, list):
                found += _flat(item)
            elif isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], dict):
                found.append(item[1])
    return found


def _bytes(stream_id: bytes | str) -> bytes:
    return stream_id if isinstance(stream_id, bytes) else stream_id.encode()


def _order(stream_id: bytes | str) -> tuple[int, int]:
    text = stream_id.decode() if isinstance(stream_id, bytes) else stream_id
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence or 0)
