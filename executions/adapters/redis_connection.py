"""The connection to Redis, and the translation of its failures.

State-changing clients never re-send by themselves: a claim whose reply was lost would come back as somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from executions.adapters.metrics import REDIS_CALLS, REDIS_FAILURES
from executions.errors import InvalidSettings, StoreUnavailable

_CONNECT_SECONDS = 2.0
_SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
_FORMS = "redis://HOST:PORT, rediss://HOST:PORT or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE"
_ANSWER_SECONDS = 5.0


class FileCredentials(CredentialProvider):
    """User and password of the URL in a file, read for each connection that is opened: a Secret may be rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_credentials(self) -> tuple[str, str] | tuple[str]:
        found = parse_url(self._path.read_text(encoding="utf-8").strip())
        user, password = found.get("username"), found.get("password") or ""
        return (user, password) if user else (password,)

    async def get_credentials_async(self) -> tuple[str, str] | tuple[str]:
        return await asyncio.to_thread(self.get_credentials)


def connect(url: str, *, url_file: str = "", answer_seconds: float = _ANSWER_SECONDS, connections: int = 64) -> Redis:
    """A client with bounded time and connections and without automatic re-sending. Opens nothing yet.

    When all connections are in use, a command waits for one as long as for an answer: a burst is slow, not refused.
    ``url_file`` is where ``url`` was read from; new connections sign in as it says by then.

    ``redis://`` and ``rediss://`` (TLS) as redis-py takes them; ``redis+sentinel://`` and ``rediss+sentinel://``
    ``[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]/SERVICE[/DB]`` asks the sentinels at those addresses for the master, anew
    for each connection. Raises InvalidSettings for a URL that is none of these.
    """
    signs_in = "@" in urlsplit(url).netloc
    options: dict[str, Any] = {
        "max_connections": connections,
        "timeout": answer_seconds,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": answer_seconds,
        "client_name": "alakai",
    }
    if url_file and signs_in:
        options["credential_provider"] = FileCredentials(Path(url_file))
        url = _without_credentials(url)
    if urlsplit(url).scheme in _SENTINEL_SCHEMES:
        return Redis.from_pool(_sentinel_pool(url, options))
    try:
        return Redis.from_pool(BlockingConnectionPool.from_url(url, **options))
    except ValueError:
        raise InvalidSettings(f"REDIS_URL is not a URL of Redis; set it to {_FORMS}") from None


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Asks for the master like the one, and waits for a free connection like the other."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """All connections means those to the sentinels too."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def _sentinel_pool(url: str, options: dict[str, Any]) -> _SentinelPool:
    parts = urlsplit(url)
    sign_in, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    addresses = [item.rpartition(":") for item in hosts.split(",")]
    if not service or not all(host and port.isdecimal() for host, _, port in addresses):
        raise InvalidSettings(f"REDIS_URL is not a URL of Redis; set it to {_FORMS}")
    # What the master is connected to with, spelled as for a single server so that redis-py reads it.
    scheme = parts.scheme.partition("+")[0]
    plain = urlunsplit((scheme, f"{sign_in}@master" if sign_in else "master", f"/{database}", parts.query, ""))
    master = {name: value for name, value in parse_url(plain).items() if name not in ("host", "port")}
    is_tls = master.pop("connection_class", None) is not None
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [(host, int(port)) for host, _, port in addresses],
        socket_timeout=_CONNECT_SECONDS,
        socket_connect_timeout=_CONNECT_SECONDS,
    )
    return _SentinelPool(service, sentinels, ssl=is_tls, **master, **options)  # type: ignore[no-untyped-call]


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
