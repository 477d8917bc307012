"""The whole Kubernetes side of the controller, wired on fakes: what is done to the store or to the cluster is settled.

Watch events reach it as from Kopf, and the change feed as from the feed reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from controller.api_health import ApiHealth
from controller.loops.resync import Resync
from controller.mirror import Mirror
from controller.notifier import Notifier
from controller.observed import ObservedResources
from controller.resource_events import WorkerExecutionEvents
from controller.resource_operations import ResourceOperations
from executions.answer import Answer, Reply
from executions.index import Index
from executions.operations.commands import Commands
from executions.operations.transact import alter
from executions.policy import Policy
from executions.record import Attempt, Execution
from executions.resource import Observed
from tests.support.builders import NOW_MS
from tests.support.fake_kube import FakeCluster
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.support.waiting import until

DONE = Answer(Reply.ACCEPTED, "test")


class MemoryPositions:
    """``Positions`` on a MemoryStore."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def current(self, *, finished_from_ms: int) -> AsyncIterator[tuple[str, str, int]]:
        indexes = self._store.indexes
        recent = [task_id for task_id, at in indexes[Index.FINISHED].items() if at >= finished_from_ms]
        for task_id in [*indexes[Index.WAITING], *indexes[Index.LIVE], *recent]:
            execution = (await self._store.read(task_id)).execution
            if execution is not None:
                yield task_id, execution.state.incarnation, execution.state.sequence


class ResourceSide:
    """``settle`` returns once nothing is left to do; ``restart`` forgets all that lies in memory only."""

    def __init__(self, *, policy: Policy | None = None, now_ms: int = NOW_MS) -> None:
        self.store = MemoryStore(now_ms=now_ms)
        self.cluster = FakeCluster()
        self.queue = MemoryQueue()
        self.policy = policy or Policy()
        self.commands = Commands(self.store, self.queue, self.policy, launcher="local")
        self.woken: list[str] = []
        self.disowned: list[tuple[str | None, bool]] = []
        """Workers that were parted from their object, and whether that was still there."""
        self.archive_lacks: set[str] = set()
        """Tasks whose last step is not in the archive."""
        self._fed = 0
        self.restart(relist=False)

    async def _disown(self, attempt: Attempt) -> None:
        self.disowned.append((attempt.worker_id, "task-1" in self.cluster.objects))

    async def _is_archived(self, execution: Execution) -> bool:
        return execution.task_id not in self.archive_lacks

    def restart(self, *, relist: bool = True) -> None:
        """A new process: empty caches, then Kopf's first listing."""
        self.observed = ObservedResources()
        self.health = ApiHealth(self.cluster.check)
        notifier = Notifier(self.cluster, self.cluster.namespace)
        self.mirror = Mirror(
            store=self.store,
            cluster=self.cluster,
            commands=self.commands,
            observed=self.observed,
            health=self.health,
            notifier=notifier,
            namespace=self.cluster.namespace,
            on_wish=lambda name: self.operations.add(name),
            wake=self.woken.append,
            disown=self._disown,
            is_archived=self._is_archived,
        )
        self.operations = ResourceOperations(
            store=self.store,
            cluster=self.cluster,
            commands=self.commands,
            observed=self.observed,
            health=self.health,
            notifier=notifier,
            mirror=self.mirror,
            wake=self.woken.append,
        )
        self.events = WorkerExecutionEvents(self.observed, self.mirror, self.operations, self.woken.append)
        self.resync = Resync(
            store=self.store,
            positions=MemoryPositions(self.store),
            cluster=self.cluster,
            observed=self.observed,
            mirror=self.mirror,
            events=self.events,
            policy=self.policy,
        )
        self.cluster.watcher = self.events.observe
        self._fed = len(self.store.feed)
        if relist:
            for body in list(self.cluster.objects.values()):
                self.events.observe(None, body)

    async def put(self, execution: Execution) -> None:
        """Commit an execution as the present state of its task."""
        snapshot = await self.store.read(execution.task_id)
        sequence = snapshot.execution.state.sequence if snapshot.execution else 0
        await self.store.commit(snapshot, execution.with_state(sequence=sequence), DONE)

    async def change(self, task_id: str, following: Callable[[Execution], Execution]) -> None:
        await alter(self.store, task_id, lambda found, _: following(found))

    async def execution(self, task_id: str = "task-1") -> Execution:
        found = (await self.store.read(task_id)).execution
        assert found is not None
        return found

    def seen(self, name: str = "task-1") -> Observed:
        found = self.observed.get(name)
        assert found is not None
        return found

    @property
    def is_idle(self) -> bool:
        """Nothing waits, except for what waits for its time."""
        queues = (self.mirror.queue, self.operations.queue)
        return self._fed == len(self.store.feed) and all(queue.is_idle for queue in queues)

    async def _read_feed(self) -> None:
        while True:
            while self._fed < len(self.store.feed):
                self.mirror.add(self.store.feed[self._fed].task_id)
                self._fed += 1
            await asyncio.sleep(0.001)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work()) for work in (self.mirror.run, self.operations.run, self._read_feed)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        async with self.running():
            await until(lambda: self.is_idle)
