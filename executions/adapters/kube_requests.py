"""Requests to the API server: one bounded session, JSON in and out, typed errors.

Knows no resource and retries nothing: whoever calls knows what a repeat would mean. What is asked for stands in
``kube_client.py`` (the mirror's hot path) and ``job_client.py`` (the Kubernetes launcher).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import orjson

from executions.adapters.kube_connection import KubeConnection
from executions.cluster import (
    AlreadyExists,
    Body,
    ClusterError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    TooManyRequests,
    Unavailable,
)

FIELD_MANAGER = "alakai"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_MESSAGE_LIMIT = 512
_LINE_LIMIT = 4 * 1024 * 1024
"""Of one event of a watch: an object, and those are at most 1.5 MiB (etcd's limit for a request)."""


class KubeRequests:
    """Made inside the running event loop; ``close`` ends its connections."""

    def __init__(self, connection: KubeConnection, *, connections: int, request_timeout_seconds: float = 30) -> None:
        self._server = connection.server
        self._session = connection.session(connections=connections)
        self._timeout = aiohttp.ClientTimeout(total=request_timeout_seconds)

    async def close(self) -> None:
        await self._session.close()

    async def send(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        headers = {"Accept": accept}
        if document is not None:
            headers["Content-Type"] = content_type
        try:
            async with self._session.request(
                method,
                self._server + path,
                params=query,
                data=None if document is None else orjson.dumps(document),
                headers=headers,
                timeout=self._timeout,
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the API server gave no answer ({type(error).__name__})") from error
        if response.status >= 400:
            raise _error(response.status, response.headers, raw)
        answer: dict[str, Any] = orjson.loads(raw)
        return answer

    async def watch(
        self, path: str, *, query: Mapping[str, str], idle_seconds: float
    ) -> AsyncIterator[tuple[str, Body]]:
        """The events of one watch as (type, object), until the API server ends it.

        Raises Unavailable when nothing came for ``idle_seconds`` (bookmarks come every minute), else what went wrong.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.total, sock_read=idle_seconds)
        try:
            async with self._session.get(
                self._server + path,
                params={**query, "watch": "true", "allowWatchBookmarks": "true"},
                timeout=timeout,
                read_bufsize=_LINE_LIMIT,
            ) as response:
                if response.status >= 400:
                    raise _error(response.status, response.headers, await response.read())
                async for line in response.content:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(int(event["object"].get("code") or 500), {}, orjson.dumps(event["object"]))
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"the watch ended ({type(error).__name__})") from error


def _error(code: int, headers: Mapping[str, str], raw: bytes) -> ClusterError:
    """The typed error of an answer; the text is the ``message`` of the Status that comes with it."""
    try:
        status = orjson.loads(raw)
    except ValueError:
        status = {}
    status = status if isinstance(status, dict) else {}
    message = str(status.get("message") or f"HTTP {code}")[:_MESSAGE_LIMIT]
    details = status.get("details") or {}
    match code:
        case 404 if not status or status.get("reason") != "NotFound" or not details.get("name"):
            return Unavailable(f"not served here, is the custom resource definition applied? ({message})")
        case 404:
            return NotFound(message)
        case 409 if status.get("reason") == "AlreadyExists":
            return AlreadyExists(message)
        case 409:
            return Conflict(message)
        case 410:
            return Gone(message)
        case 403:
            return Forbidden(message)
        case 429:
            retry_after = headers.get("Retry-After") or details.get("retryAfterSeconds") or 1
            return TooManyRequests(message, retry_after_seconds=_seconds(retry_after))
        case 400 | 405 | 406 | 413 | 415 | 422:
            return Invalid(message)
    return Unavailable(message)


def _seconds(value: object) -> float:
    try:
        return min(max(float(str(value)), 0.1), 60.0)
    except ValueError:
        return 1.0
