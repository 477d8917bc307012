"""Tells notices as Kubernetes Events, each once. Best effort: an Event that cannot be posted holds nothing up."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from executions.cluster import AlreadyExists, Cluster, ClusterError
from executions.notices import Notice, event_from_notice
from executions.resource import Observed

_REMEMBERED = 4096
_log = structlog.get_logger(__name__)


class Notifier:
    """Posts Events about objects of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._told: dict[str, None] = {}

    async def tell(self, observed: Observed, notices: Iterable[Notice], *, now_ms: int) -> None:
        for notice in notices:
            event = event_from_notice(notice, observed, namespace=self._namespace, now_ms=now_ms)
            name = event["metadata"]["name"]
            if name in self._told:
                continue
            try:
                await self._cluster.create_event(event)
            except AlreadyExists:
                pass  # told by an earlier process, or by the write before this one
            except ClusterError as error:
                _log.warning(
                    "An Event was not posted", object=observed.name, notice=notice.why.reason, reason=str(error)
                )
                continue
            self._remember(name)

    def _remember(self, name: str) -> None:
        self._told[name] = None
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
