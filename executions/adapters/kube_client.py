"""``cluster.Cluster`` over aiohttp: the mirror's hot path, one bounded session, typed errors.

Decides nothing about executions and retries nothing: whoever calls knows what a repeat would mean.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from executions.adapters.kube_connection import KubeConnection
from executions.adapters.kube_requests import FIELD_MANAGER, JSON_PATCH, MERGE_PATCH, KubeRequests
from executions.cluster import (
    Body,
    Forbidden,
    Gone,
    NotFound,
)
from executions.names import GROUP, PLURAL, VERSION

_PAGE = 500
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
        self._requests = KubeRequests(
            connection, connections=connections, request_timeout_seconds=request_timeout_seconds
        )
        self._resources = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
        self._core = f"/api/v1/namespaces/{namespace}"

    async def list(self) -> AsyncIterator[Body]:
        following = ""
        while True:
            query = {"limit": str(_PAGE)} | ({"continue": following} if following else {})
            try:
                page = await self._requests.send("GET", self._resources, query=query)
            except Gone:
                following = ""
                continue
            for item in page["items"]:
                yield item
            following = page["metadata"].get("continue") or ""
            if not following:
                return

    async def read(self, name: str) -> Body:
        return await self._requests.send("GET", f"{self._resources}/{name}")

    async def create(self, manifest: Body) -> Body:
        return await self._requests.send("POST", self._resources, manifest, query={"fieldManager": FIELD_MANAGER})

    async def patch_status(self, name: str, status: Body) -> Body:
        return await self._patch(f"{self._resources}/{name}/status", {"status": status}, MERGE_PATCH)

    async def patch(self, name: str, operations: Sequence[Body]) -> Body:
        return await self._patch(f"{self._resources}/{name}", operations, JSON_PATCH)

    async def delete(self, name: str, *, uid: str, resource_version: int) -> None:
        preconditions = {"uid": uid, "resourceVersion": str(resource_version)}
        await self._requests.send("DELETE", f"{self._resources}/{name}", {"preconditions": preconditions})

    async def create_event(self, event: Body) -> None:
        await self._requests.send("POST", f"{self._core}/events", event, query={"fieldManager": FIELD_MANAGER})

    async def definition_is_leaving(self) -> bool:
        try:
            definition = await self._requests.send("GET", _DEFINITION, accept=_METADATA_ONLY)
        except Forbidden:
            return False
        except NotFound:
            return True
        return "deletionTimestamp" in definition["metadata"]

    async def server_version(self) -> str:
        return str((await self._requests.send("GET", "/version")).get("gitVersion", "unknown"))

    async def may(self, verb: str, group: str, resource: str) -> bool:
        """Whether this identity may do that in the namespace, by the API server's word."""
        name, _, subresource = resource.partition("/")
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": group,
            "resource": name,
            "subresource": subresource,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._requests.send("POST", path, review)
        return bool(answer.get("status", {}).get("allowed"))

    async def check(self) -> None:
        await self._requests.send("GET", self._resources, query={"limit": "1"})

    async def read_config_map(self, name: str) -> dict[str, str]:
        found = await self._requests.send("GET", f"{self._core}/configmaps/{name}")
        return dict(found.get("data") or {})

    async def create_config_map(self, name: str, data: Mapping[str, str]) -> None:
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)}
        await self._requests.send("POST", f"{self._core}/configmaps", manifest, query={"fieldManager": FIELD_MANAGER})

    async def update_config_map(self, name: str, data: Mapping[str, str]) -> None:
        await self._patch(f"{self._core}/configmaps/{name}", {"data": dict(data)}, MERGE_PATCH)

    async def close(self) -> None:
        await self._requests.close()

    async def _patch(self, path: str, document: object, content_type: str) -> dict[str, Any]:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._requests.send("PATCH", path, document, query=query, content_type=content_type)
