"""Rebuilds a Redis that lost its data, from the custom resources: the leader's work while nothing is served.

There is no epoch in Redis meanwhile, so every other read and commit is refused, and the writes here are refused as soon
as there is one. What is already there is left, so that a rebuild that was broken off is simply begun again. Launches
nothing: what waits is launched, or found, by the reconciler afterwards. ``executions.rebuild`` says what a resource
tells.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog

from controller.epoch import EpochGuard, Trust
from executions.adapters.redis_epoch import remove_epoch
from executions.adapters.redis_store import NO_EPOCH, RedisStore
from executions.answer import Answer, Reply
from executions.cluster import Cluster
from executions.errors import AlakaiError
from executions.policy import Policy
from executions.ports import Committed
from executions.rebuild import ResourceUnreadable, execution_from_resource
from executions.record import Execution, RecordUnreadable, Status
from executions.resource import Observed, observed_from_body

_LOOK_SECONDS = 0.5
_AGAIN_SECONDS = 2.0
_ROUNDS = 3
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Report:
    """What a rebuild found: how many executions by what became of them, and the tasks that it knows of."""

    counts: Counter[str] = field(default_factory=Counter)
    task_ids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Rebuild:
    """``run`` waits until the guard says that Redis has lost its data, and rebuilds it."""

    guard: EpochGuard
    store: RedisStore
    """The leader's; only its connection and its fence are used, and its epoch is never the one looked for."""
    cluster: Cluster
    policy: Policy
    launcher: str
    known: Callable[[], Collection[str]]
    """Ids of the tasks that this process has heard of, so that what is lost without a trace can at least be named."""

    async def run(self) -> None:
        while True:
            if self.guard.trust is not Trust.LOST:
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            try:
                await self.once()
            except AlakaiError as error:
                _log.warning("The rebuild of Redis is tried again; nothing is served until then", reason=str(error))
                await asyncio.sleep(_AGAIN_SECONDS)

    async def once(self) -> Report:
        """One rebuild, from the resources to the new epoch. Raises StoreUnavailable and ClusterError."""
        _log.warning("Redis has lost its data: it is rebuilt from the custom resources")
        await remove_epoch(self.store.redis, self.store.keys.prefix, but=self.guard.copied)
        store, report = self.store.with_epoch(NO_EPOCH), Report()
        async for body in self.cluster.list():
            observed = observed_from_body(body)
            try:
                found = execution_from_resource(
                    body,
                    observed,
                    token_prefix=self.store.keys.prefix,
                    policy=self.policy,
                    launcher=self.launcher,
                    now_ms=await store.now_ms(),
                )
                if found is None:
                    report.counts["unsubmitted"] += 1
                    continue
                report.counts[await self._put(store, found)] += 1
            except (ResourceUnreadable, RecordUnreadable) as error:
                report.counts["unreadable"] += 1
                _log.error("An execution was not rebuilt", task_id=observed.task_id, reason=str(error))
                continue
            report.task_ids.add(observed.task_id)
            _name(found, observed)
        for task_id in sorted(set(self.known()) - report.task_ids):
            report.counts["lost"] += 1
            _log.error(
                "An execution is lost: neither its record nor a resource is there",
                task_id=task_id,
                remedy="send its message again",
            )
        await self.guard.begin(secrets.token_hex(8))
        _log.warning("Redis is rebuilt and served again", **dict(report.counts))
        return report

    async def _put(self, store: RedisStore, execution: Execution) -> str:
        """Write the execution unless its record is there and no older; what became of it, in a word."""
        for _ in range(_ROUNDS):
            snapshot = await store.read(execution.task_id)
            there = snapshot.execution
            if there is not None and not _is_behind(there, execution):
                return "kept"
            answer = Answer(Reply.ACCEPTED, execution.task_id)
            if (await store.commit(snapshot, execution, answer)).committed is Committed.WRITTEN:
                return execution.latest.status.value
        raise RecordUnreadable(f"the record of task {execution.task_id} is being changed by others")


def _is_behind(there: Execution, shown: Execution) -> bool:
    is_same = there.state.incarnation == shown.state.incarnation
    return is_same and there.state.sequence < shown.state.sequence


def _name(execution: Execution, observed: Observed) -> None:
    """Tell of an unfinished execution that cannot simply go on."""
    latest = execution.latest
    if latest.status is Status.PENDING and not latest.task_snapshot:
        _log.warning(
            "An execution goes on only if its worker was launched: its payload is lost",
            task_id=execution.task_id,
            attempt=latest.number,
            resource=observed.name,
            remedy="when it failed as PAYLOAD_LOST, send its message again under another id",
        )
