"""A boto3 client together with the threads that its calls run in. Used for SQS; ECS and S3 are reached the same way.

boto3 blocks, so no call of it, and not even the making of a client, runs on the event loop. Never decides whether a
call may be repeated: the number of attempts is the caller's choice. Errors of boto3 pass through unchanged.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

import boto3
from botocore.config import Config

from executions.errors import InvalidSettings

_CONNECT_SECONDS = 3.0
_making = threading.Lock()


class _Closable(Protocol):
    def close(self) -> None: ...


Client = TypeVar("Client", bound=_Closable)
Result = TypeVar("Result")


class AwsClient(Generic[Client]):
    """One service's client. ``attempts`` 1 means that no call is ever sent twice, however it failed.

    The client is made by the first call, in its thread: finding credentials may take seconds (instance metadata).
    """

    def __init__(
        self,
        service: str,
        *,
        region: str,
        attempts: int,
        answer_seconds: float,
        endpoint_url: str | None = None,
        threads: int = 8,
    ) -> None:
        self._service = service
        self._region = region
        self._endpoint_url = endpoint_url
        self._config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=answer_seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=threads,
            tcp_keepalive=True,
        )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"aws-{service}")
        self._client: Client | None = None

    async def call(self, use: Callable[[Client], Result]) -> Result:
        """Run ``use`` with the client in one of the threads. A cancelled call still runs to its end there."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: use(self._made()))

    async def close(self) -> None:
        """Wait for calls that are under way, then drop threads and connections."""
        await asyncio.to_thread(self._pool.shutdown)
        if self._client is not None:
            self._client.close()

    def _made(self) -> Client:
        if self._client is None:
            # boto3 clients may be used by many threads at once, but not made by them.
            with _making:
                if self._client is None:
                    made: Any = _session(self._region)
                    self._client = made.client(self._service, config=self._config, endpoint_url=self._endpoint_url)
        return self._client


def region_from_environment() -> str:
    """``AWS_REGION``, else what boto3 itself knows (``AWS_DEFAULT_REGION``, the profile). Raises InvalidSettings."""
    # boto3 alone does not read AWS_REGION, which is what EKS, ECS and Lambda set.
    region = os.environ.get("AWS_REGION") or boto3.session.Session().region_name
    if not region:
        raise InvalidSettings("AWS_REGION is not set; set it to the region of the queues, for example us-east-1")
    return region


def endpoint_is_configured(service: str) -> bool:
    """Whether the environment names an endpoint, which boto3 then uses. Raises InvalidSettings for an unusable one."""
    for variable in (f"AWS_ENDPOINT_URL_{service.upper()}", "AWS_ENDPOINT_URL"):
        if value := os.environ.get(variable):
            if not value.startswith(("http://", "https://")):
                raise InvalidSettings(f"{variable} is not a URL; begin it with http:// or https://, or unset it")
            return True
    return False


@functools.cache
def _session(region: str) -> boto3.session.Session:
    """Shared, because every session of its own would load the service's model again (8 MB)."""
    return boto3.session.Session(region_name=region)
