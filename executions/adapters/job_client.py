"""The requests that the Kubernetes launcher makes: Jobs and their pods, and the execution that owns a Job.

Decides nothing about workers and retries nothing. Objects are plain JSON as the API server speaks them; lists are
read from the API server's own truth and never from a cache, because an absence counts as evidence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from executions.adapters.kube_connection import KubeConnection
from executions.adapters.kube_requests import FIELD_MANAGER, JSON_PATCH, KubeRequests
from executions.cluster import Body, NotFound
from executions.names import GROUP, PLURAL, VERSION

_WATCH_SECONDS = 300
_IDLE_SECONDS = 90.0
"""The API server sends a bookmark each minute: a watch that is silent for longer is dead."""


class JobClient:
    """Methods raise the errors of ``executions.cluster``. Connects on first use, inside the running event loop."""

    def __init__(
        self, connection: KubeConnection, *, connections: int = 16, request_timeout_seconds: float = 30
    ) -> None:
        self._connection = connection
        self._connections = connections
        self._timeout_seconds = request_timeout_seconds
        self._opened: KubeRequests | None = None

    async def create_job(self, namespace: str, manifest: Body) -> Body:
        """Raises AlreadyExists, Invalid (also for a field that the API server does not know), Forbidden, NotFound."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._requests.send("POST", _jobs(namespace), manifest, query=query)

    async def read_job(self, namespace: str, name: str) -> Body:
        return await self._requests.send("GET", f"{_jobs(namespace)}/{name}")

    async def jobs(self, namespace: str, selector: str) -> list[Body]:
        return await self._list(_jobs(namespace), labelSelector=selector)

    async def pods(self, namespace: str, selector: str) -> list[Body]:
        return await self._list(_pods(namespace), labelSelector=selector)

    async def failed_creates(self, namespace: str) -> list[Body]:
        """Events of Jobs whose pods the API server refuses: quota, pod security, a missing service account."""
        return await self._list(
            f"/api/v1/namespaces/{namespace}/events", fieldSelector="reason=FailedCreate,involvedObject.kind=Job"
        )

    async def delete_job(self, namespace: str, name: str, *, uid: str) -> None:
        """In the foreground: the Job stays until its pods are gone. Raises NotFound, Conflict."""
        document = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        await self._requests.send("DELETE", f"{_jobs(namespace)}/{name}", document)

    async def disown_job(self, namespace: str, name: str) -> None:
        """Take the owner from a Job, so that the owner's end does not end it."""
        operations = [{"op": "remove", "path": "/metadata/ownerReferences"}]
        await self._requests.send(
            "PATCH",
            f"{_jobs(namespace)}/{name}",
            operations,
            query={"fieldManager": FIELD_MANAGER},
            content_type=JSON_PATCH,
        )

    async def read_execution(self, namespace: str, name: str) -> Body | None:
        """The custom resource; None where it is not there."""
        try:
            return await self._requests.send("GET", f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}")
        except NotFound:
            return None

    async def watch_pods(self, namespace: str, selector: str) -> AsyncIterator[tuple[str, Body]]:
        """Changes from now on, as (type, pod), for some minutes. Raises Gone and Unavailable."""
        first = await self._requests.send("GET", _pods(namespace), query={"labelSelector": selector, "limit": "1"})
        query = {
            "labelSelector": selector,
            "resourceVersion": first["metadata"]["resourceVersion"],
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        async for kind, pod in self._requests.watch(_pods(namespace), query=query, idle_seconds=_IDLE_SECONDS):
            if kind != "BOOKMARK":
                yield kind, pod

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    @property
    def _requests(self) -> KubeRequests:
        if self._opened is None:
            self._opened = KubeRequests(
                self._connection, connections=self._connections, request_timeout_seconds=self._timeout_seconds
            )
        return self._opened

    async def _list(self, path: str, **query: str) -> list[Body]:
        found: list[Body] = []
        following: dict[str, Any] = {}
        while True:
            page = await self._requests.send("GET", path, query={**query, **following, "limit": "500"})
            found += page["items"]
            if not page["metadata"].get("continue"):
                return found
            following = {"continue": page["metadata"]["continue"]}


def _jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"
