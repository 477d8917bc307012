"""The copy of the Redis epoch in a ConfigMap, see ``controller/epoch.py``."""

from __future__ import annotations

from executions.cluster import AlreadyExists, Cluster, NotFound

_FIELD = "epoch"


class EpochConfigMap:
    """``controller.epoch.EpochCopy`` on the API server."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def read(self, name: str) -> str | None:
        try:
            return (await self._cluster.read_config_map(name)).get(_FIELD)
        except NotFound:
            return None

    async def create(self, name: str, epoch: str) -> None:
        try:
            await self._cluster.create_config_map(name, {_FIELD: epoch})
        except AlreadyExists:
            return

    async def replace(self, name: str, epoch: str) -> None:
        await self._cluster.update_config_map(name, {_FIELD: epoch})
