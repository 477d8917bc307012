"""Where every record stands that may have a custom resource, without reading records: the resync's light look."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
from redis.asyncio import Redis

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_keys import Keys
from executions.index import Index

_BATCH = 500


class RedisPositions:
    """Reads index entries and the small state documents only."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._keys = Keys(prefix)

    async def current(self, *, finished_from_ms: int) -> AsyncIterator[tuple[str, str, int]]:
        """Task id, incarnation and sequence of what is unfinished, or finished since then.

        Raises StoreUnavailable. Says nothing about trust in this Redis: ask the store first.
        """
        task_ids: dict[str, None] = {}
        for index in (Index.WAITING, Index.LIVE, Index.FINISHED):
            lowest = finished_from_ms if index is Index.FINISHED else "-inf"
            with redis_errors():
                members = await self._redis.zrangebyscore(self._keys.index(index), lowest, "+inf")
            task_ids.update((member.decode(), None) for member in members if isinstance(member, bytes))
        ids = list(task_ids)
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            pipeline = self._redis.pipeline(transaction=False)
            for task_id in batch:
                pipeline.hget(self._keys.state(task_id), "doc")
            with redis_errors():
                documents = await pipeline.execute()
            for task_id, document in zip(batch, documents, strict=True):
                if isinstance(document, bytes):
                    state = orjson.loads(document)
                    yield task_id, str(state["incarnation"]), int(state.get("sequence", 0))
