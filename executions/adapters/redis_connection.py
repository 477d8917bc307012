"""The connection to Redis, and the translation of its failures.

State-changing clients never re-send by themselves: a claim whose reply was lost would come back as somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from executions.errors import StoreUnavailable

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 5.0


def connect(url: str, *, answer_seconds: float = _ANSWER_SECONDS, connections: int = 64) -> Redis:
    """A client with bounded time and connections and without automatic re-sending. Opens nothing yet.

    When all connections are in use, a command waits for one as long as for an answer: a burst is slow, not refused.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=answer_seconds,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=answer_seconds,
        client_name="alakai",
    )
    return Redis.from_pool(pool)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Every failure of Redis becomes StoreUnavailable; its text names the kind only (a URL may hold a password).

    A cancellation that came meanwhile is never swallowed. On Python 3.11 redis-py would: it sends with
    ``asyncio.wait_for``, which drops a cancellation that arrives in the very moment its work is done
    (https://github.com/python/cpython/issues/86296), and a loop that was told to end would run on for ever.
    """
    cancellations = _cancellations()
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis did not do as asked ({type(error).__name__})") from error
    except RuntimeError as error:
        # What uvloop says of a connection that was reset since its last use; redis-py passes it on as it is.
        if "handler is closed" not in str(error):
            raise
        raise StoreUnavailable("Redis did not do as asked (the connection was reset)") from error
    finally:
        if _cancellations() > cancellations:
            raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def script_text(name: str) -> str:
    """A Lua script that is shipped as package data."""
    return (files("executions.adapters") / name).read_text("utf-8")
