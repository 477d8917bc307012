"""Compares Redis and the custom resources, both ways, and wakes the mirror for what differs.

Catches what no event tells: records written, edited or removed by hand, objects lost or made while nobody watched,
changes of a time without a leader, and what is finished for long enough. Reads the bodies of records only for what
changed; starts no work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import structlog

from controller.mirror import Mirror
from controller.observed import ObservedResources
from controller.resource_events import WorkerExecutionEvents
from executions.cluster import Cluster
from executions.errors import AlakaiError
from executions.operations.settle import settle
from executions.policy import Policy
from executions.ports import Store
from executions.record import RecordUnreadable

_AGAIN_SECONDS = 2.0
_log = structlog.get_logger(__name__)


class Positions(Protocol):
    """Where records stand, without their bodies (``adapters/redis_positions.py``)."""

    def current(self, *, finished_from_ms: int) -> AsyncIterator[tuple[str, str, int]]:
        """Task id, incarnation and sequence of what is unfinished, or finished since then."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What one comparison found: records changed by hand, objects gone unnoticed, tasks handed to the mirror."""

    foreign: int = 0
    lost: int = 0
    differing: int = 0


class Resync:
    """``run`` compares at once, and then every so often."""

    def __init__(
        self,
        *,
        store: Store,
        positions: Positions,
        cluster: Cluster,
        observed: ObservedResources,
        mirror: Mirror,
        events: WorkerExecutionEvents,
        policy: Policy,
    ) -> None:
        self._store = store
        self._positions = positions
        self._cluster = cluster
        self._observed = observed
        self._mirror = mirror
        self._events = events
        self._policy = policy

    async def run(self, interval_seconds: float) -> None:
        while True:
            try:
                found = await self.once()
                if found != Found():
                    _log.info("Resync", foreign=found.foreign, lost=found.lost, differing=found.differing)
                pause = interval_seconds
            except AlakaiError as error:
                _log.warning("The resync is tried again", reason=str(error))
                pause = min(interval_seconds, _AGAIN_SECONDS)
            await asyncio.sleep(pause)

    async def once(self) -> Found:
        """One comparison. Raises ClusterError and the store's errors; what was found by then is on its way."""
        foreign = await self._settle_foreign()
        if self._mirror.api_is_away:
            return Found(foreign)
        lost = await self._list()
        return Found(foreign, lost, await self._compare())

    async def _settle_foreign(self) -> int:
        """Take over what hands wrote, forget what they removed, so that index entries and sequence follow."""
        settled = 0
        async for task_id in self._store.foreign_changes():
            try:
                await settle(self._store, await self._store.read(task_id))
            except RecordUnreadable as error:
                _log.warning("A record is left as it is", task_id=task_id, reason=str(error))
                continue
            self._mirror.add(task_id)
            settled += 1
        return settled

    async def _list(self) -> int:
        """See every object, and drop those that are gone: Kopf tells no deletion that it missed."""
        before = self._observed.all()
        names = set()
        async for body in self._cluster.list():
            names.add(self._events.observe(None, body).name)
        lost = [item for item in before if item.name not in names and self._observed.drop(item.name, item.uid)]
        for item in lost:
            self._mirror.lost(item)
        return len(lost)

    async def _compare(self) -> int:
        now_ms = await self._store.now_ms()
        expected, differing = set(), 0
        async for task_id, incarnation, sequence in self._positions.current(
            finished_from_ms=now_ms - self._policy.finished_ttl_ms
        ):
            expected.add(task_id)
            if self._mirror.compared.get(task_id) != (incarnation, sequence):
                self._mirror.add(task_id)
                differing += 1
        unexpected = {item.task_id for item in self._observed.all() if item.is_submitted} - expected
        for task_id in unexpected:
            self._mirror.add(task_id)
        for task_id in self._mirror.compared.keys() - expected - unexpected:
            del self._mirror.compared[task_id]
        return differing + len(unexpected)
