"""What Redis says beside the records: which lists name a task, and how. For ``alakai fsck``, which compares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_keys import Keys
from executions.adapters.redis_streams import text
from executions.index import Index, Place


@dataclass(frozen=True, slots=True)
class Listed:
    """Where a task stands. ``place`` is None where it stands in no line and holds no slot."""

    scores: Mapping[Index, int | None]
    place: Place | None


class RedisInspection:
    """Reads only."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._keys = Keys(prefix)

    async def named(self) -> set[str]:
        """Every task that some list names."""
        with redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for index in Index:
                pipeline.zrange(self._keys.index(index), 0, -1)
            found = await pipeline.execute()
        return {text(member) for members in found for member in members}

    async def listed(self, task_ids: Sequence[str]) -> list[Listed]:
        """Where these tasks stand, in order."""
        if not task_ids:
            return []
        with redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for task_id in task_ids:
                for index in Index:
                    pipeline.zscore(self._keys.index(index), task_id)
                pipeline.hget(self._keys.state(task_id), "type")
            found: list[Any] = await pipeline.execute()
            width = len(Index) + 1
            kinds = [kind and text(kind) for kind in found[len(Index) :: width]]
            pipeline = self._redis.pipeline(transaction=False)
            for task_id, kind in zip(task_ids, kinds, strict=True):
                pipeline.zscore(self._keys.line(kind or ""), task_id)
                pipeline.zscore(self._keys.slots(kind or ""), task_id)
            places: list[Any] = await pipeline.execute()
        return [
            Listed(
                scores={
                    index: _whole(score)
                    for index, score in zip(Index, found[at * width : at * width + len(Index)], strict=True)
                },
                place=Place(kind, _whole(places[2 * at]), _whole(places[2 * at + 1])) if kind else None,
            )
            for at, kind in enumerate(kinds)
        ]


def _whole(score: float | None) -> int | None:
    return None if score is None else int(score)
