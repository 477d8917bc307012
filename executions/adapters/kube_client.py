"""``cluster.Cluster`` over aiohttp: the mirror's hot path, one bounded session, typed errors.

Decides nothing about executions and retries nothing: whoever calls knows what a repeat would mean.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
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
from executions.names import GROUP, PLURAL, VERSION

_PAGE = 500
_MESSAGE_LIMIT = 512
_FIELD_MANAGER = "alakai"
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{GROUP}"


class KubeClient:
    """One namespace of one API server. Made inside the running event loop; ``close`` ends its connections."""

    def __init__(
        self,
        connection: KubeConnection,
        namespace: str,
        *,
        connections: int = 32,
        request_timeout_seconds: float = 30,
    ) -> None:
        self.namespace = namespace
        self._server = connection.server
        self._session = connection.session(connections=connections)
        self._timeout = aiohttp.ClientTimeout(total=request_timeout_seconds)
        self._resources = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
        self._core = f"/api/v1/namespaces/{namespace}"

    async def list(self) -> AsyncIterator[Body]:
        following = ""
        while True:
            query = {"limit": str(_PAGE)} | ({"continue": following} if following else {})
            try:
                page = await self._request("GET", self._resources, query=query)
            except Gone:
                following = ""
                continue
            for item in page["items"]:
                yield item
            following = page["metadata"].get("continue") or ""
            if not following:
                return

    async def read(self, name: str) -> Body:
        return await self._request("GET", f"{self._resources}/{name}")

    async def create(self, manifest: Body) -> Body:
        return await self._request("POST", self._resources, manifest, query={"fieldManager": _FIELD_MANAGER})

    async def patch_status(self, name: str, status: Body) -> Body:
        return await self._patch(f"{self._resources}/{name}/status", {"status": status}, _MERGE_PATCH)

    async def patch(self, name: str, operations: Sequence[Body]) -> Body:
        return await self._patch(f"{self._resources}/{name}", operations, _JSON_PATCH)

    async def delete(self, name: str, *, uid: str, resource_version: int) -> None:
        preconditions = {"uid": uid, "resourceVersion": str(resource_version)}
        await self._request("DELETE", f"{self._resources}/{name}", {"preconditions": preconditions})

    async def create_event(self, event: Body) -> None:
        await self._request("POST", f"{self._core}/events", event, query={"fieldManager": _FIELD_MANAGER})

    async def definition_is_leaving(self) -> bool:
        try:
            definition = await self._request("GET", _DEFINITION, accept=_METADATA_ONLY)
        except Forbidden:
            return False
        except NotFound:
            return True
        return "deletionTimestamp" in definition["metadata"]

    async def check(self) -> None:
        await self._request("GET", self._resources, query={"limit": "1"})

    async def read_config_map(self, name: str) -> dict[str, str]:
        found = await self._request("GET", f"{self._core}/configmaps/{name}")
        return dict(found.get("data") or {})

    async def create_config_map(self, name: str, data: Mapping[str, str]) -> None:
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)}
        await self._request("POST", f"{self._core}/configmaps", manifest, query={"fieldManager": _FIELD_MANAGER})

    async def update_config_map(self, name: str, data: Mapping[str, str]) -> None:
        await self._patch(f"{self._core}/configmaps/{name}", {"data": dict(data)}, _MERGE_PATCH)

    async def close(self) -> None:
        await self._session.close()

    async def _patch(self, path: str, document: object, content_type: str) -> dict[str, Any]:
        query = {"fieldManager": _FIELD_MANAGER}
        return await self._request("PATCH", path, document, query=query, content_type=content_type)

    async def _request(
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
