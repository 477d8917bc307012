"""The connection to Redis, and the translation of its failures.

State-changing clients never re-send by themselves: a claim whose reply was lost would come back as somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from executions.adapters.metrics import REDIS_CALLS, REDIS_FAILURES
from executions.errors import StoreUnavailable

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 5.0


class FileCredentials(CredentialProvider):
    """User and password of the URL in a file, read for each connection that is opened: a Secret may be rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_credentials(self) -> tuple[str, str] | tuple[str]:
        found = parse_url(self._path.read_text(encoding="utf-8").strip())
        user, password = found.get("username"), found.get("password") or ""
        return (user, password) if user else (password,)


def connect(url: str, *, url_file: str = "", answer_seconds: float = _ANSWER_SECONDS, connections: int = 64) -> Redis:
    """A client with bounded time and connections and without automatic re-sending. Opens nothing yet.

    When all connections are in use, a command waits for one as long as for an answer: a burst is slow, not refused.
    ``url_file`` is where ``url`` was read from; new connections sign in as it says by then.
    """
    signs_in = "@" in urlsplit(url).netloc
    credentials = {"credential_provider": FileCredentials(Path(url_file))} if url_file and signs_in else {}
    pool = BlockingConnectionPool.from_url(
        _without_credentials(url) if credentials else url,
        **credentials,
        max_connections=connections,
        timeout=answer_seconds,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=answer_seconds,
        client_name="alakai",
    )
    return Redis.from_pool(pool)


def _without_credentials(url: str) -> str:
    """redis-py refuses to be given both."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@contextmanager
def redis_errors() -> Iterator[None]:
    """Every failure of Redis becomes StoreUnavailable; its text names the kind only (a URL may hold a password).

    A cancellation that came meanwhile is never swallowed. On Python 3.11 redis-py would: it sends with
    ``asyncio.wait_for``, which drops a cancellation that arrives in the very moment its work is done
    (https://github.com/python/cpython/issues/86296), and a loop that was told to end would run on for ever.
    """
    cancellations = _cancellations()
    REDIS_CALLS.inc()
    try:
        yield
    except (RedisError, OSError) as error:
        REDIS_FAILURES.inc()
        raise StoreUnavailable(f"Redis did not do as asked ({type(error).__name__})") from error
    except RuntimeError as error:
        # What uvloop says of a connection that was reset since its last use; redis-py passes it on as it is.
        if "handler is closed" not in str(error):
            raise
        raise StoreUnavailable("Redis did not do as asked (the connection was reset)") from error
    finally:
        REDIS_CALLS.dec()
        if _cancellations() > cancellations:
            raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def script_text(name: str) -> str:
    """A Lua script that is shipped as package data."""
    return (files("executions.adapters") / name).read_text("utf-8")
