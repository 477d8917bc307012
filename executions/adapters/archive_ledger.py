"""What of the archive is decided and what is stored, in Redis beside the stream.

A batch is sealed before its object is put: from then on its name and its content are fixed and every replica can put
it, as often as it takes. Its receipt takes its place once it is stored. So a crash anywhere in between gives neither a
second object nor a lost event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from executions.adapters.redis_connection import redis_errors, script_text
from executions.adapters.redis_streams import text
from executions.adapters.tracking_keys import TrackingKeys
from executions.archive import Receipt, receipt_from
from executions.tracking import TrackingEvent

_SCANNED_AT_ONCE = 1_000
_STORED = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('SADD', KEYS[4], ARGV[3])
redis.call('DEL', KEYS[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed batch whose object is not known to be stored."""

    name: str
    folder: str
    body: bytes
    events: int


class ArchiveLedger:
    """Batches, receipts, and which event is in which object."""

    def __init__(self, redis: Redis, keys: TrackingKeys) -> None:
        self._redis = redis
        self._keys = keys
        self._seal = redis.register_script(script_text("seal.lua"))
        self._stored = redis.register_script(_STORED)

    async def seal(self, group: str, folder: str, name: str, entries: Sequence[tuple[str, TrackingEvent]]) -> int:
        """Make these entries of the stream the batch of that name; the stream may forget them.

        Returns how many events it holds: what is in another batch already is left out, and an empty batch is none.
        """
        arguments: list[Any] = [group, name, folder, self._keys.archived_root, len(entries)]
        for _, event in entries:
            arguments += [event.execution_id, event.event_id, event.line]
        with redis_errors():
            return int(
                await self._seal(
                    keys=[self._keys.stream, self._keys.open_batches, self._keys.batch(name)],
                    args=[*arguments, *(entry_id for entry_id, _ in entries)],
                )
            )

    async def open_names(self, *, limit: int = 100) -> list[str]:
        """Batches without a receipt, the oldest first."""
        with redis_errors():
            found = await self._redis.zrange(self._keys.open_batches, 0, limit - 1)
        return [text(name) for name in found]

    async def open_count(self) -> int:
        with redis_errors():
            return int(await self._redis.zcard(self._keys.open_batches))

    async def batch(self, name: str) -> Batch | None:
        """None when it has its receipt by now."""
        with redis_errors():
            found: Any = await self._redis.hgetall(self._keys.batch(name))
        if not found:
            return None
        return Batch(name, text(found[b"folder"]), found[b"body"], int(found[b"events"]))

    async def stored(self, batch: Batch, receipt: Receipt) -> None:
        """The batch's object is there."""
        keys = self._keys
        with redis_errors():
            await self._stored(
                keys=[keys.open_batches, keys.batch(batch.name), keys.receipts(batch.folder), keys.folders],
                args=[batch.name, receipt.encoded(), batch.folder],
            )

    async def objects_of(self, execution_id: str) -> Mapping[str, str]:
        """By event id: the object that holds it, or will."""
        with redis_errors():
            found = await self._redis.hgetall(self._keys.archived(execution_id))
        return {text(event): text(name) for event, name in found.items()}

    async def archived(self, events: Sequence[tuple[str, str]]) -> list[bool]:
        """Of each (execution id, event id): whether it is in an object that is stored."""
        if not events:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for execution_id, event_id in events:
            pipeline.hget(self._keys.archived(execution_id), event_id)
        with redis_errors():
            names = await pipeline.execute()
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.zscore(self._keys.open_batches, name or "")
            scores = await pipeline.execute()
        return [name is not None and score is None for name, score in zip(names, scores, strict=True)]

    async def folders(self) -> list[str]:
        """Every ``project/day`` that has receipts, in order."""
        with redis_errors():
            return sorted(text(folder) for folder in await self._redis.smembers(self._keys.folders))

    async def receipts(self, folder: str) -> list[Receipt]:
        with redis_errors():
            found = await self._redis.hgetall(self._keys.receipts(folder))
        return sorted((receipt_from(text(value)) for value in found.values()), key=lambda item: item.name)

    async def all_receipts(self) -> AsyncIterator[Receipt]:
        for folder in await self.folders():
            for receipt in await self.receipts(folder):
                yield receipt

    async def reopened(self, name: str) -> set[str]:
        """Forget that an object was stored; returns the ids of the events that it held, which may be archived anew."""
        events = set[str]()
        folder = name.rsplit("/", 1)[0]
        pattern = "".join(f"\\{char}" if char in "*?[]\\^" else char for char in self._keys.archived_root) + "*"
        with redis_errors():
            async for key in self._redis.scan_iter(match=pattern, count=_SCANNED_AT_ONCE):
                found = await self._redis.hgetall(key)
                held = [event for event, where in found.items() if text(where) == name]
                if held:
                    await self._redis.hdel(key, *held)
                    events.update(text(event) for event in held)
            # At last: after a crash in between the receipt still says that something is to be done.
            await self._redis.hdel(self._keys.receipts(folder), name)
        return events

    async def forget(self, execution_id: str) -> None:
        """Which objects hold an execution; the objects stay."""
        with redis_errors():
            await self._redis.delete(self._keys.archived(execution_id))
