"""The stream of lifecycle events as somebody reads it who belongs to no group: from any entry on, again and again.

Acknowledges nothing and holds nothing up: entries may be trimmed under such a reader, which ``holds`` tells it.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_streams import stream_entries, text
from executions.adapters.tracking_keys import TrackingKeys
from executions.adapters.tracking_stream import FIELD
from executions.event_stream import START, LogEntry

_NO_STREAM = ("no such key", "NOGROUP")


class TrackingLog:
    """``ports.EventLog``. ``following`` is for the one command that waits, so that it keeps no connection from others.

    ``keep`` is how many entries trimming leaves.
    """

    def __init__(self, redis: Redis, following: Redis, keys: TrackingKeys, *, projector_group: str, keep: int) -> None:
        self._redis = redis
        self._following = following
        self._stream = keys.stream
        self._group = projector_group
        self._keep = keep

    async def newest(self) -> str:
        """Id of the newest entry there ever was; START where there was none."""
        return text((await self._info()).get("last-generated-id", START))

    async def holds(self, entry_id: str) -> bool:
        """Whether nothing that came after this entry is gone."""
        with redis_errors():
            if entry_id != START and await self._redis.xrange(self._stream, entry_id, entry_id, count=1):
                return True
        info = await self._info()
        if entry_id == text(info.get("last-generated-id", START)):
            return True
        # Redis counts how many entries there ever were from 7 on; before that, what was trimmed left so many behind.
        ever = info.get("entries-added")
        is_whole = info["length"] < self._keep if ever is None else info["length"] == ever
        return entry_id == START and bool(is_whole)

    async def between(self, after: str, up_to: str, *, count: int) -> list[LogEntry]:
        with redis_errors():
            return _log_entries(await self._redis.xrange(self._stream, f"({after}", up_to, count=count))

    async def follow(self, after: str, *, count: int, block_ms: int) -> list[LogEntry]:
        with redis_errors():
            return _log_entries(await self._following.xread({self._stream: after}, count=count, block=block_ms))

    async def projected(self) -> str | None:
        """Every entry up to this one is in the projection; None where nobody projects."""
        with redis_errors():
            try:
                groups = await self._redis.xinfo_groups(self._stream)
                summary: Any = await self._redis.xpending(self._stream, self._group)
            except ResponseError as error:
                if not any(words in str(error) for words in _NO_STREAM):
                    raise
                return None
        found = next((group for group in groups if text(group["name"]) == self._group), None)
        if found is None:
            return None
        return _before(text(summary["min"])) if summary["pending"] else text(found["last-delivered-id"])

    async def close(self) -> None:
        await self._following.aclose()
        await self._redis.aclose()

    async def _info(self) -> dict[str, Any]:
        with redis_errors():
            try:
                return {text(name): value for name, value in (await self._redis.xinfo_stream(self._stream)).items()}
            except ResponseError as error:
                if not any(words in str(error) for words in _NO_STREAM):
                    raise
                return {"length": 0}


def _log_entries(answer: object) -> list[LogEntry]:
    return [LogEntry(entry_id, fields.get(FIELD, b"")) for entry_id, fields in stream_entries(answer)]


def _before(entry_id: str) -> str:
    """The largest id that is smaller."""
    milliseconds, sequence = (int(part) for part in entry_id.split("-"))
    return f"{milliseconds}-{sequence - 1}" if sequence else f"{max(milliseconds - 1, 0)}-{2**64 - 1}"
