"""Task payloads in Redis, by task id, for workers of the kind that reads them there instead of claiming them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from redis.asyncio import Redis

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_keys import Keys


class RedisPayloads:
    """``ports.Payloads`` on Redis. A payload is kept for ``keep_seconds`` after its last launch."""

    def __init__(self, redis: Redis, prefix: str, *, keep_seconds: int = 15 * 24 * 3600) -> None:
        self._redis = redis
        self._keys = Keys(prefix)
        self._keep_seconds = keep_seconds

    async def put(self, task_id: str, task: Mapping[str, Any]) -> None:
        with redis_errors():
            await self._redis.set(self._keys.payload(task_id), orjson.dumps(dict(task)), ex=self._keep_seconds)
