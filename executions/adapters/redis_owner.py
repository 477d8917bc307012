"""Which installation a key prefix belongs to: a key that the first one writes. ``controller.ownership.Owned``."""

from __future__ import annotations

from redis.asyncio import Redis

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_keys import Keys


class PrefixOwner:
    """Raises StoreUnavailable."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._key = Keys(prefix).installation
        self.what = f"the key prefix {prefix}"
        self.remedy = (
            "set EXECUTIONS_REDIS_KEY_PREFIX to another one, or, when that installation is gone for good, "
            f"remove the key {self._key}"
        )

    async def owner(self, name: str) -> str | None:
        with redis_errors():
            await self._redis.set(self._key, name, nx=True)
            found = await self._redis.get(self._key)
        return found.decode() if isinstance(found, bytes) else None
