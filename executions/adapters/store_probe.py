"""The probes' own look at Redis: one small connection pool, short time-outs, no re-sending."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, AuthorizationError, BusyLoadingError, ResponseError

from executions.adapters.redis_connection import connect, redis_errors
from executions.adapters.redis_store import RedisStore
from executions.adapters.settings import Settings

_ANSWER_SECONDS = 1.0
_CONNECTIONS = 4


class RedisProbe:
    """Whether Redis answers, and whether it is trusted: two questions, because a restart helps with the first only."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._store = RedisStore(redis, prefix)

    async def answers(self) -> None:
        """Raises StoreUnavailable when the server does not answer."""
        with redis_errors():
            try:
                await self._redis.ping()
            except (ResponseError, BusyLoadingError, AuthenticationError, AuthorizationError):
                # The server spoke. A restart of ours would help neither its loading nor our rights.
                return

    async def is_trusted(self) -> None:
        """Raises StoreUnavailable while its epoch is missing."""
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()


def open_store_probe(settings: Settings) -> RedisProbe:
    """Connects on first use."""
    redis = connect(
        settings.redis_url, url_file=settings.redis_url_file, answer_seconds=_ANSWER_SECONDS, connections=_CONNECTIONS
    )
    return RedisProbe(redis, settings.executions_redis_key_prefix)
