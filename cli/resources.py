"""WorkerExecutions as the cluster has them, for commands that show what kubectl shows."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cli.output import age
from executions.adapters.kube_client import KubeClient
from executions.adapters.kube_connection import open_connection
from executions.cluster import Invalid, NotFound
from executions.moment import ms_from_iso
from executions.names import checked_task_id, resource_name

COLUMNS = ("name", "type", "phase", "attempt", "reason", "next", "age")
WIDE_COLUMNS = (*COLUMNS, "project", "launcher", "worker")
Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which executions are wanted; None is every one."""

    phase: str | None = None
    task_type: str | None = None
    project: str | None = None
    reason: str | None = None

    def takes(self, item: Resource) -> bool:
        shown = status(item)
        pairs = (
            (self.phase, shown.get("phase") or "Pending"),
            (self.task_type, task_type(item)),
            (self.project, shown.get("project")),
            (self.reason, shown.get("reason")),
        )
        return all(wanted is None or wanted.lower() == str(found).lower() for wanted, found in pairs)


def open_cluster() -> KubeClient:
    """The cluster of KUBECONFIG and EXECUTIONS_NAMESPACE. Inside a running event loop. Raises InvalidSettings."""
    connection = open_connection()
    return KubeClient(connection, os.environ.get("EXECUTIONS_NAMESPACE") or connection.namespace)


async def listed(wanted: Filter) -> AsyncIterator[Resource]:
    """Raises InvalidSettings, ClusterError."""
    cluster = open_cluster()
    try:
        async for item in cluster.list():
            if wanted.takes(item):
                yield item
    finally:
        await cluster.close()


async def named(name: str) -> Resource:
    """One, by its own name or by its task's id. Raises InvalidSettings, InvalidTask, ClusterError."""
    cluster = open_cluster()
    try:
        try:
            return await cluster.read(name)
        except (NotFound, Invalid):
            return await cluster.read(resource_name(checked_task_id(name)))
    finally:
        await cluster.close()


def status(item: Resource) -> Mapping[str, Any]:
    return item.get("status") or {}


def task_type(item: Resource) -> str:
    spec = item["spec"]
    return str(spec.get("taskType") or (spec.get("task") or {}).get("taskType") or "")


def row(item: Resource, *, now_ms: int, wide: bool) -> list[str]:
    """The cells of COLUMNS or WIDE_COLUMNS."""
    shown, metadata = status(item), item["metadata"]
    cell: Callable[[str], str] = lambda name: str(shown.get(name) or "")  # noqa: E731
    cells = [
        str(metadata["name"]),
        task_type(item),
        cell("phase") or "Pending",
        cell("attempt"),
        cell("reason"),
        cell("next"),
        age(now_ms - ms_from_iso(metadata["creationTimestamp"])),
    ]
    return [*cells, cell("project"), cell("launcher"), cell("workerId")] if wide else cells
