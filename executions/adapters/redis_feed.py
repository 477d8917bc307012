"""The change feed in Redis: a stream that registered groups read, trimmed behind the slowest of them.

Two ways to read. ``RedisFeed`` counts entries as read when they are handed out, for the mirror, whose resync derives
again whatever a crash lost. ``FeedCursor`` stays where it is until it is told to go on, for readers that owe somebody
every entry.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_keys import Keys
from executions.adapters.redis_store import RedisStore
from executions.adapters.redis_streams import Entry, order, stream_entries, text
from executions.feed import FeedEntry, entry_from_document

_COUNTED = 10_000
"""More than this is not told apart."""
_FIRST = "0-0"
_log = structlog.get_logger(__name__)


class _Group:
    """A registered group of readers: made when it is first used, and again when its stream was removed."""

    def __init__(self, redis: Redis, stream: str, name: str, *, look_back_ms: int | None = None) -> None:
        """It begins with what happened so long ago; None: with whatever is there."""
        self._redis = redis
        self._stream = stream
        self._name = name
        self._look_back_ms = look_back_ms
        self._is_registered = False

    async def ensure(self) -> None:
        if self._is_registered:
            return
        try:
            await self._redis.xgroup_create(self._stream, self._name, id=await self._begin(), mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._is_registered = True

    async def _begin(self) -> str:
        if self._look_back_ms is None:
            return _FIRST
        seconds, micros = await self._redis.time()
        return f"{int(seconds) * 1000 + int(micros) // 1000 - self._look_back_ms}-0"

    def note(self, error: ResponseError) -> None:
        """An emptied Redis has no group any more: it is made anew at the next read."""
        self._is_registered = "NOGROUP" not in str(error)


class RedisFeed:
    """``ports.Feed`` for one group."""

    def __init__(self, redis: Redis, prefix: str, *, group: str, consumer: str) -> None:
        self._redis = redis
        self._stream = Keys(prefix).feed
        self._name = group
        self._group = _Group(redis, self._stream, group)
        self._consumer = consumer

    async def read(self, *, count: int = 500, block_ms: int = 1000) -> list[FeedEntry]:
        with redis_errors():
            await self._group.ensure()
            try:
                answer = await self._redis.xreadgroup(
                    self._name, self._consumer, {self._stream: ">"}, count=count, block=block_ms, noack=True
                )
            except ResponseError as error:
                self._group.note(error)
                raise
        return _decoded(stream_entries(answer))

    async def lag(self) -> int:
        """How many entries the slowest group has not been given yet."""
        with redis_errors():
            slowest = await self._slowest()
            if slowest is None:
                return 0
            # Redis 7 counts this itself; 6.2 does not. What was read is trimmed, so there is little to count.
            found = await self._redis.xrange(self._stream, min=f"({slowest}", count=_COUNTED)
            return len(found or ())

    async def trim(self) -> int:
        with redis_errors():
            slowest = await self._slowest()
            if slowest is None:
                return 0
            return int(await self._redis.xtrim(self._stream, minid=slowest, approximate=True))

    async def _slowest(self) -> str | None:
        """The last entry that every group was given; None while there is no stream or no group."""
        if not await self._redis.exists(self._stream):
            return None
        groups = await self._redis.xinfo_groups(self._stream)
        return min((text(group["last-delivered-id"]) for group in groups), key=order, default=None)


class FeedCursor:
    """One group's place in the feed, for one reader at a time. Two at once read the same; nobody skips anything."""

    def __init__(self, store: RedisStore, *, group: str, look_back_ms: int | None = None) -> None:
        """A group that is new begins with what happened so long ago; None: with whatever is there."""
        self._store = store
        self._redis = redis = store.redis
        self._stream = store.keys.feed
        self._name = group
        self._group = _Group(redis, self._stream, group, look_back_ms=look_back_ms)
        self._at: str | None = None
        self._next: str | None = None

    async def read(self, *, count: int = 500, block_ms: int = 1000) -> list[FeedEntry]:
        """What follows on the place, the same again until ``advance``."""
        with redis_errors():
            if self._at is None:
                await self._group.ensure()
                self._at = await self._place()
            answer = await self._redis.xread({self._stream: self._at}, count=count, block=block_ms)
        entries = stream_entries(answer)
        if entries:
            await self._store.secure()
        self._next = entries[-1][0] if entries else self._at
        return _decoded(entries)

    async def advance(self) -> None:
        """Behind what was read last. What is read again after a crash in between was read before."""
        if self._next is None or self._next == self._at:
            return
        with redis_errors():
            try:
                await self._redis.xgroup_setid(self._stream, self._name, self._next)
            except ResponseError as error:
                self._group.note(error)
                self._at = None
                raise
        self._at = self._next

    async def drop(self) -> None:
        """Nobody reads any more: nothing is kept for this group."""
        with redis_errors():
            try:
                await self._redis.xgroup_destroy(self._stream, self._name)
            except ResponseError as error:
                if "requires the key to exist" not in str(error):
                    raise

    async def _place(self) -> str:
        groups = await self._redis.xinfo_groups(self._stream)
        places = (text(group["last-delivered-id"]) for group in groups if text(group["name"]) == self._name)
        return next(places, _FIRST)


def _decoded(entries: Sequence[Entry]) -> list[FeedEntry]:
    """What of it can be read. A reader that keeps its place would stand before any other entry for ever."""
    found = list[FeedEntry]()
    for entry_id, fields in entries:
        try:
            found.append(entry_from_document(dict(orjson.loads(fields[b"change"]))))
        except (KeyError, TypeError, ValueError) as error:
            _log.error("An entry of the change feed cannot be read", entry=entry_id, reason=type(error).__name__)
    return found
