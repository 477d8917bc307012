"""The stream of lifecycle events in Redis: published once each, read by groups, trimmed behind those that count.

A reader of a group has an entry until it acknowledges it; what a dead reader had is claimed by others, and what
nobody can make anything of is put aside with the reason. Never looks into an event: that is ``executions.tracking``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from executions.adapters.redis_connection import redis_errors, script_text
from executions.adapters.redis_streams import Entry, stream_entries, text
from executions.adapters.tracking_keys import TrackingKeys

FIELD = b"event"
_REMEMBERED = 20_000
"""Ids of published events. A publisher repeats at most what it had in hand when it crashed or was paused."""
_POISON_KEPT = 10_000
_IDLE_CONSUMER_MS = 3_600_000
_CLAIMED_AT_ONCE = 100
_READ_AT_ONCE = 1_000
_TRIMMED_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """An entry as it was handed to one reader, for the how many-th time."""

    entry_id: str
    text: bytes
    times: int = 1


class TrackingStream:
    """What concerns the stream as a whole."""

    def __init__(self, redis: Redis, keys: TrackingKeys) -> None:
        self.redis = redis
        self.keys = keys
        self._publish = redis.register_script(script_text("publish.lua"))
        self._trim = redis.register_script(script_text("trim.lua"))

    async def publish(self, events: Sequence[tuple[str, bytes]]) -> int:
        """Put events (id, JSON) onto the stream in this order; those that were put there before are left out."""
        if not events:
            return 0
        flat = [part for event in events for part in event]
        with redis_errors():
            return int(await self._publish(keys=[self.keys.stream, self.keys.published], args=[_REMEMBERED, *flat]))

    async def repeat(self, events: Sequence[bytes]) -> None:
        """Put events (JSON) onto the stream that were on it before: whoever has them lets them pass."""
        if not events:
            return
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=False)
            for event in events:
                pipeline.xadd(self.keys.stream, {FIELD: event})
            await pipeline.execute()

    async def entries(self) -> AsyncIterator[bytes]:
        """Everything that is on the stream, the oldest first."""
        after = "-"
        while True:
            with redis_errors():
                answer = await self.redis.xrange(self.keys.stream, min=after, count=_READ_AT_ONCE)
            found = stream_entries(answer)
            for _, fields in found:
                yield fields.get(FIELD, b"")
            if len(found) < _READ_AT_ONCE:
                return
            after = f"({found[-1][0]}"

    async def trim(self, groups: Sequence[str], *, keep: int) -> int:
        """Drop what all these groups have acknowledged, except the newest ``keep``. Returns how many entries went."""
        gone = 0
        while True:
            with redis_errors():
                trimmed = int(await self._trim(keys=[self.keys.stream], args=[keep, _TRIMMED_AT_ONCE, *groups]))
            gone += trimmed
            if trimmed < _TRIMMED_AT_ONCE:
                return gone

    async def ping(self) -> None:
        """Raises StoreUnavailable."""
        with redis_errors():
            await self.redis.ping()

    def group(self, name: str, consumer: str) -> TrackingGroup:
        return TrackingGroup(self.redis, self.keys, name, consumer)

    async def close(self) -> None:
        await self.redis.aclose()


class TrackingGroup:
    """One reader of one group. ``consumer`` must be nobody else's name."""

    def __init__(self, redis: Redis, keys: TrackingKeys, name: str, consumer: str) -> None:
        self._redis = redis
        self._keys = keys
        self.name = name
        self._consumer = consumer
        self._is_registered = False

    async def read(self, *, count: int, block_ms: int) -> list[Delivery]:
        """Entries that no reader of the group was given yet; an empty list after ``block_ms``."""
        with redis_errors():
            await self.ensure()
            try:
                answer = await self._redis.xreadgroup(
                    self.name, self._consumer, {self._keys.stream: ">"}, count=count, block=block_ms
                )
            except ResponseError as error:
                # The stream was removed under us (an emptied Redis): register anew at the next read.
                self._is_registered = "NOGROUP" not in str(error)
                raise
        return [_delivery(entry) for entry in stream_entries(answer)]

    async def claim(self, *, idle_ms: int) -> list[Delivery]:
        """Take over what a reader was given so long ago and did not acknowledge, this one's own included."""
        stream = self._keys.stream
        with redis_errors():
            await self.ensure()
            pending = await self._redis.xpending_range(
                stream, self.name, min="-", max="+", count=_CLAIMED_AT_ONCE, idle=idle_ms
            )
            times = {text(item["message_id"]): int(item["times_delivered"]) + 1 for item in pending}
            if not times:
                return []
            claimed = stream_entries(await self._redis.xclaim(stream, self.name, self._consumer, idle_ms, list(times)))
            missing = set(times) - {entry_id for entry_id, _ in claimed}
            for entry_id in missing:
                # Somebody else was faster, or the entry is not on the stream any more and can only be let go.
                if not await self._redis.xrange(stream, entry_id, entry_id):
                    await self._redis.xack(stream, self.name, entry_id)
        return [_delivery(entry, times[entry[0]]) for entry in claimed]

    async def acknowledge(self, entry_ids: Sequence[str]) -> None:
        if entry_ids:
            with redis_errors():
                await self._redis.xack(self._keys.stream, self.name, *entry_ids)

    async def set_aside(self, delivery: Delivery, reason: str) -> None:
        """Keep it where people look for such entries, and do not try it again."""
        with redis_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xadd(
                self._keys.poison(self.name),
                {"id": delivery.entry_id, "reason": reason, "event": delivery.text},
                maxlen=_POISON_KEPT,
            )
            pipeline.xack(self._keys.stream, self.name, delivery.entry_id)
            await pipeline.execute()

    async def forget_dead_consumers(self) -> None:
        """Names are used once: of those that are gone for long and have nothing left in hand none is kept."""
        with redis_errors():
            for found in await self._redis.xinfo_consumers(self._keys.stream, self.name):
                name = text(found["name"])
                if name != self._consumer and not int(found["pending"]) and int(found["idle"]) > _IDLE_CONSUMER_MS:
                    await self._redis.xgroup_delconsumer(self._keys.stream, self.name, name)

    async def ensure(self) -> None:
        """Register the group, from the stream's first entry on."""
        if self._is_registered:
            return
        with redis_errors():
            try:
                await self._redis.xgroup_create(self._keys.stream, self.name, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._is_registered = True


def _delivery(entry: Entry, times: int = 1) -> Delivery:
    return Delivery(entry[0], entry[1].get(FIELD, b""), times)
