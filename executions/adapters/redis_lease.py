"""The leader's lease in Redis, with a fencing number that rises at every change of leadership.

In Redis and not in Kubernetes, because the API server may be away for hours while work goes on.
"""

from __future__ import annotations

from redis.asyncio import Redis

from executions.adapters.redis_connection import redis_errors
from executions.adapters.redis_keys import Keys

_HOLD = """
local holder = redis.call('GET', KEYS[1])
if not holder then
  local time, last = redis.call('TIME'), tonumber(redis.call('GET', KEYS[2]) or '0')
  local fence = math.max(last + 1, time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('SET', KEYS[2], string.format('%.0f', fence))
elseif holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return tonumber(redis.call('GET', KEYS[2]))
"""
"""The number is a time, so that it does not fall either when Redis has lost the last one."""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisLease:
    """``ports.Lease`` for one holder; a lease that is not prolonged ends after ``ttl_ms``."""

    def __init__(self, redis: Redis, prefix: str, *, holder: str, ttl_ms: int) -> None:
        keys = Keys(prefix)
        self._keys = [keys.leader, keys.fence]
        self._holder = holder
        self._ttl_ms = ttl_ms
        self._hold = redis.register_script(_HOLD)
        self._release = redis.register_script(_RELEASE)

    async def hold(self) -> int | None:
        with redis_errors():
            fence = int(await self._hold(keys=self._keys, args=[self._holder, self._ttl_ms]))
        return fence or None

    async def release(self) -> None:
        with redis_errors():
            await self._release(keys=self._keys[:1], args=[self._holder])
