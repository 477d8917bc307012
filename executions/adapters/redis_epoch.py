"""Which Redis this is: a key that is lost together with the data.

The controller compares it with the copy that it keeps in Kubernetes (``controller/epoch.py``); the API only looks that
it is there. A store without it, or with another one, refuses every read and commit.
"""

from __future__ import annotations

import secrets

from redis.asyncio import Redis

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_keys import Keys

_REMOVE = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


async def read_epoch(redis: Redis, prefix: str) -> str | None:
    with redis_errors():
        found = await redis.get(Keys(prefix).epoch)
    return found.decode() if isinstance(found, bytes) else None


async def create_epoch(redis: Redis, prefix: str, epoch: str | None = None) -> str:
    """Write the epoch unless there is one, and return the one that is there now."""
    with redis_errors():
        await redis.set(Keys(prefix).epoch, epoch or secrets.token_hex(8), nx=True)
    return await read_epoch(redis, prefix) or ""


async def remove_epoch(redis: Redis, prefix: str, *, but: str | None) -> None:
    """Take away an epoch that is not ours, so that nobody serves this Redis; ``but`` is the one that may stay."""
    with redis_errors():
        await redis.eval(_REMOVE, 1, Keys(prefix).epoch, but or "")


async def create_epoch_if_untouched(redis: Redis, prefix: str) -> str | None:
    """For a developer's machine: make the missing epoch where nothing of ours lies under the prefix yet."""
    found = await read_epoch(redis, prefix)
    if found is not None:
        return found
    with redis_errors():
        cursor = 0
        while True:
            cursor, keys = await redis.scan(cursor, match=f"{prefix}[:/]*", count=500)
            if keys:
                return None
            if cursor == 0:
                break
    return await create_epoch(redis, prefix)
