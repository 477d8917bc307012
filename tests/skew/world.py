"""The real commands, API, sweep, reconciler, resync and mirror on one record in a real Redis; workers and cluster fake.

What can be done to an execution through each door is in ``ACTS``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from fastapi import FastAPI

from api.main import bind
from controller.api_health import ApiHealth
from controller.loops.resync import Resync
from controller.loops.sweep import Sweep
from controller.mirror import Mirror
from controller.notifier import Notifier
from controller.observed import ObservedResources
from controller.reconciler import Reconciler
from controller.resource_events import WorkerExecutionEvents
from controller.resource_operations import ResourceOperations
from executions.adapters.redis_positions import RedisPositions
from executions.adapters.redis_store import RedisStore
from executions.automatic_retry import retry_scheduling
from executions.evidence import WorkerState
from executions.operations.commands import Commands
from executions.policy import Policy
from executions.task import task_from_document
from tests.skew.recorded import Recorded
from tests.support.builders import task_document
from tests.support.fake_kube import FakeCluster
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.unit.api.harness import Api, made

POLICY = Policy(max_retries=3, lost_worker_grace_ms=0, finished_ttl_ms=10**15)
"""Recordings are as old as they are: their resources are wanted all the same."""


@dataclass
class World:
    """One recorded execution, and everything that may work on it."""

    store: RedisStore
    api: Api
    task_id: str
    launcher: FakeLauncher = field(default_factory=FakeLauncher)
    cluster: FakeCluster = field(default_factory=FakeCluster)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    policy: Policy = POLICY
    woken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commands = Commands(self.store, self.queue, self.policy, "local")
        self.observed = ObservedResources()
        health, notifier = ApiHealth(self.cluster.check), Notifier(self.cluster, self.cluster.namespace)
        self.mirror = Mirror(
            store=self.store,
            cluster=self.cluster,
            commands=self.commands,
            observed=self.observed,
            health=health,
            notifier=notifier,
            namespace=self.cluster.namespace,
            on_wish=lambda _: None,
            wake=self.woken.append,
        )
        self.operations = ResourceOperations(
            store=self.store,
            cluster=self.cluster,
            commands=self.commands,
            observed=self.observed,
            health=health,
            notifier=notifier,
            mirror=self.mirror,
            wake=self.woken.append,
        )
        self.events = WorkerExecutionEvents(self.observed, self.mirror, self.operations, self.woken.append)
        self.cluster.watcher = self.events.observe
        bind(self.api.app, replace(self.api.context, store=self.store, commands=self.commands))

    async def documents(self) -> dict[str, Any]:
        """All that Redis keeps of the execution, decoded."""
        redis, keys = self.store.redis, self.store.keys
        record: Any = await redis.hgetall(keys.record(self.task_id))  # type: ignore[misc]
        state: Any = await redis.hget(keys.state(self.task_id), "doc")  # type: ignore[misc]
        found = {f"attempt {number.decode()}": orjson.loads(text) for number, text in record.items()}
        return {**found, **({"state": orjson.loads(state)} if state else {})}

    async def raw(self) -> dict[bytes, bytes]:
        found: Any = await self.store.redis.hgetall(self.store.keys.record(self.task_id))  # type: ignore[misc]
        return dict(found)

    # Through the API

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> int:
        return (await self.api.post(path, json=body or {})).status_code

    async def control(self, what: str, **body: Any) -> int:
        return await self.post(f"/dashboard/executions/{self.task_id}/{what}", body)

    async def complete(self, *, error: Mapping[str, str] | None = None, **fields: Any) -> int:
        outcome = {"status": "failure", "error": error} if error else {"status": "success"}
        return await self.post("/task-complete", {"taskId": self.task_id, **outcome, **fields})

    # In the controller

    async def sweep(self, state: WorkerState, *, looks: int = 3, **policy: int) -> None:
        for document in (await self.documents()).values():
            if worker_id := document.get("taskArn"):
                self.launcher.see(worker_id, state, exit_code=137)
        sweep = Sweep(self.store, {"local": self.launcher}, replace(self.policy, **policy), self.woken.append)
        for _ in range(looks):
            await sweep.pass_once()

    async def reconcile(self) -> None:
        await Reconciler(
            store=self.store,
            commands=self.commands,
            launchers={"local": self.launcher},
            policy=self.policy,
            token_prefix="test",
            wake_after=lambda _task_id, _seconds: None,
            emit=lambda _: None,
        ).reconcile(self.task_id)

    async def show(self) -> None:
        await self.mirror.sync(self.task_id)

    async def ask_through_the_resource(self, **annotations: str) -> None:
        await self.show()
        self.cluster.annotate(self.task_id, **annotations)
        await self.operations.handle(self.task_id)
        await self.show()

    async def resync(self) -> None:
        positions = RedisPositions(self.store.redis, self.store.keys.prefix)
        await Resync(
            store=self.store,
            positions=positions,
            cluster=self.cluster,
            observed=self.observed,
            mirror=self.mirror,
            events=self.events,
            policy=self.policy,
        ).once()

    async def submit(self, **metadata: str) -> None:
        task = task_from_document(task_document(self.task_id, metadata=metadata))
        await self.commands.dispatch(task, message_id="a further one")


async def world_of(recorded: Recorded, beside: RedisStore, app: FastAPI) -> World:
    """The recording as the content of a key prefix of its own, in the Redis of that store, and what works on it."""
    prefix = f"{beside.keys.prefix}-{recorded.name}"
    await recorded.put(beside.redis, prefix)
    store = RedisStore(beside.redis, prefix, follow_up=retry_scheduling(POLICY, lambda: 0.5))
    return World(store, made(app), recorded.task_id)


TRANSIENT = {"message": "overloaded", "code": "codex_transient_upstream"}
TOLD_TO_STOP = {"message": "SIGTERM", "code": "WORKER_STOPPED_EXTERNALLY"}
Act = Callable[[World], Awaitable[object]]
ACTS: dict[str, Act] = {
    "it is retried": lambda world: world.control("retry"),
    "it is cancelled": lambda world: world.control("cancel", reason="enough"),
    "it is marked done": lambda world: world.control("done", reason="enough"),
    "it is assigned": lambda world: world.control("assign", assignee="kim"),
    "its worker claims": lambda world: world.post(
        "/task-claim", {"taskId": world.task_id, "attempt": 1, "launchTry": 1, "claimId": "worker-instance-1"}
    ),
    "its worker succeeds": lambda world: world.complete(),
    "its worker fails": lambda world: world.complete(error={"message": "no luck", "code": "E1"}),
    "its worker fails transiently": lambda world: world.complete(error=TRANSIENT),
    "its worker was told to stop": lambda world: world.complete(error=TOLD_TO_STOP),
    "a worker of an earlier launch reports": lambda world: world.complete(attempt=1, launchTry=9),
    "its message comes again": lambda world: world.submit(),
    "a message for somebody else comes": lambda world: world.submit(assignee="kim"),
    "its worker is seen gone once": lambda world: world.sweep(WorkerState.STOPPED, looks=1),
    "its worker is lost": lambda world: world.sweep(WorkerState.STOPPED),
    "its worker is missing": lambda world: world.sweep(WorkerState.MISSING),
    "its worker runs": lambda world: world.sweep(WorkerState.RUNNING),
    "its worker runs for too long": lambda world: world.sweep(WorkerState.RUNNING, attempt_timeout_ms=0),
    "it is reconciled": lambda world: world.reconcile(),
    "it is shown": lambda world: world.show(),
    "it is compared with the cluster": lambda world: world.resync(),
    "a retry is asked for with kubectl": lambda world: world.ask_through_the_resource(retry="1"),
    "a cancellation is asked for with kubectl": lambda world: world.ask_through_the_resource(cancel="enough"),
}
