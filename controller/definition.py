"""Whether the custom resource definition is being removed: then every object goes, and nobody meant to cancel."""

from __future__ import annotations

import asyncio

from executions.cluster import Cluster

_TRUSTED_SECONDS = 1.0


class Definition:
    """Asks at most once per second, because removing the definition deletes every object at once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._one_asks = asyncio.Lock()
        self._asked_at: float | None = None
        self._is_leaving = False

    async def is_leaving(self) -> bool:
        loop = asyncio.get_running_loop()
        asked_by = loop.time()
        async with self._one_asks:
            # An answer from before the deletion was seen says nothing about it, except that it is about to come.
            if self._asked_at is None or self._asked_at < asked_by - (_TRUSTED_SECONDS if self._is_leaving else 0):
                self._asked_at = loop.time()
                self._is_leaving = await self._cluster.definition_is_leaving()
            return self._is_leaving
