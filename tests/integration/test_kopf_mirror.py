"""Kopf, mirror, operations and reconciler together on a real API server and a real Redis, used with kubectl."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.api_health import ApiHealth
from controller.kopf_operator import KopfOperator
from controller.loops.feed_reader import FeedReader
from controller.loops.resync import Resync
from controller.mirror import Mirror
from controller.notifier import Notifier
from controller.observed import ObservedResources
from controller.reconciler import Reconciler
from controller.resource_events import WorkerExecutionEvents
from controller.resource_operations import ResourceOperations
from controller.work_queue import WorkQueue
from devstack.infra import apply_crds
from devstack.kubernetes import ControlPlane
from executions.adapters.kube_client import KubeClient
from executions.adapters.kube_connection import KubeConnection, open_connection
from executions.adapters.redis_feed import RedisFeed
from executions.adapters.redis_positions import RedisPositions
from executions.adapters.redis_store import RedisStore
from executions.cluster import Body
from executions.operations.commands import Commands
from executions.outcome import outcome_from_document
from executions.policy import Policy
from executions.record import Execution, Status
from executions.task import task_from_document
from tests.support.builders import a_task
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.support.waiting import until

SECONDS = 30.0


class CountingClient(KubeClient):
    """Counts the writes to each object."""

    def __init__(self, connection: KubeConnection, namespace: str) -> None:
        super().__init__(connection, namespace)
        self.writes: Counter[str] = Counter()

    async def create(self, manifest: Body) -> Body:
        self.writes[manifest["metadata"]["name"]] += 1
        return await super().create(manifest)

    async def patch_status(self, name: str, status: Body) -> Body:
        self.writes[name] += 1
        return await super().patch_status(name, status)

    async def patch(self, name: str, operations: Sequence[Body]) -> Body:
        self.writes[name] += 1
        return await super().patch(name, operations)


class Side:
    """One leader's Kubernetes side, with the store and the queue that outlive it."""

    def __init__(self, plane: ControlPlane, namespace: str, store: RedisStore, policy: Policy | None = None) -> None:
        self.plane, self.namespace, self.store = plane, namespace, store
        self.policy = policy or Policy(max_retries=1)
        self.queue = MemoryQueue()
        self.launcher = FakeLauncher()
        self.commands = Commands(store, self.queue, self.policy, launcher=self.launcher.name)
        self.signals_restored = 0

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """As one process that leads; leaving it is its crash: nothing in memory survives."""
        connection = open_connection(self.plane.kubeconfig)
        self.cluster = CountingClient(connection, self.namespace)
        observed, self.health = ObservedResources(), ApiHealth(self.cluster.check)
        notifier = Notifier(self.cluster, self.namespace)
        reconciling = WorkQueue("reconcile", lambda task_id: reconciler.reconcile(task_id))
        reconciler = Reconciler(
            self.store,
            self.commands,
            {self.launcher.name: self.launcher},
            self.policy,
            self.store.keys.prefix,
            reconciling.add_after,
            emit=lambda _: None,
        )
        self.mirror = Mirror(
            store=self.store,
            cluster=self.cluster,
            commands=self.commands,
            observed=observed,
            health=self.health,
            notifier=notifier,
            namespace=self.namespace,
            on_wish=lambda name: operations.add(name),
            wake=reconciling.add,
        )
        operations = ResourceOperations(
            store=self.store,
            cluster=self.cluster,
            commands=self.commands,
            observed=observed,
            health=self.health,
            notifier=notifier,
            mirror=self.mirror,
            wake=reconciling.add,
        )
        events = WorkerExecutionEvents(observed, self.mirror, operations, reconciling.add)
        self.resync = Resync(
            store=self.store,
            positions=RedisPositions(self.store.redis, self.store.keys.prefix),
            cluster=self.cluster,
            observed=observed,
            mirror=self.mirror,
            events=events,
            policy=self.policy,
        )
        self.operator = KopfOperator(
            connection,
            self.namespace,
            events,
            self.health,
            restore_signals=self._restore_signals,
            first_pause_seconds=0.1,
        )
        feed = RedisFeed(self.store.redis, self.store.keys.prefix, group="mirror", consumer="test")
        reader = FeedReader(feed, self.mirror, reconciling.add)
        works = (reconciling.run, self.mirror.run, operations.run, self.operator.run, reader.run)
        self.tasks = [asyncio.create_task(work()) for work in works]
        try:
            yield
        finally:
            for task in self.tasks:
                task.cancel()
            ended = await asyncio.gather(*self.tasks, return_exceptions=True)
            await self.cluster.close()
        assert all(isinstance(item, asyncio.CancelledError) for item in ended), ended

    def _restore_signals(self) -> None:
        self.signals_restored += 1
        loop = asyncio.get_running_loop()
        for number in (2, 15):
            loop.remove_signal_handler(number)

    async def kubectl(self, *arguments: str, given: object = None, check: bool = True) -> str:
        process = await asyncio.create_subprocess_exec(
            self.plane.kubectl,
            "--kubeconfig",
            self.plane.kubeconfig,
            "-n",
            self.namespace,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(json.dumps(given).encode() if given is not None else None)
        if check and process.returncode != 0:
            raise AssertionError(err.decode())
        return out.decode()

    async def apply(self, name: str, spec: dict[str, Any], annotations: dict[str, str] | None = None) -> None:
        manifest = {
            "apiVersion": "alakai.dev/v1alpha1",
            "kind": "WorkerExecution",
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": spec,
        }
        await self.kubectl("apply", "-f", "-", given=manifest)

    async def object(self, name: str) -> dict[str, Any] | None:
        found = await self.kubectl("get", "execution", name, "-o", "json", "--ignore-not-found")
        document: dict[str, Any] | None = json.loads(found) if found else None
        return document

    async def dispatch(self, task_id: str, **fields: Any) -> None:
        await self.commands.dispatch(a_task(task_id, **fields), message_id=f"message-of-{task_id}-{fields}")

    async def complete(self, task_id: str, *, success: bool) -> None:
        result = {"status": "success"} if success else {"status": "error", "errorMessage": "it broke"}
        await self.commands.complete(outcome_from_document({"taskId": task_id, "result": result}))

    async def execution(self, task_id: str) -> Execution:
        found = (await self.store.read(task_id)).execution
        assert found is not None
        return found

    async def reaches(self, name: str, phase: str, attempt: int = 1) -> dict[str, Any]:
        """The object, once its status is there."""
        found: dict[str, Any] = {}

        async def is_there() -> bool:
            body = await self.object(name)
            status = (body or {}).get("status", {})
            if status.get("phase") != phase or status.get("attempt") != attempt:
                return False
            found.update(body or {})
            return True

        await until(is_there, seconds=SECONDS)
        return found

    async def vanishes(self, name: str) -> None:
        async def is_gone() -> bool:
            return await self.object(name) is None

        await until(is_gone, seconds=SECONDS)

    async def works(self, task_id: str, attempt: int = 1) -> None:
        """Until the attempt has its worker."""

        async def is_running() -> bool:
            found = (await self.store.read(task_id)).execution
            return found is not None and (found.latest.status, found.latest.number) == (Status.RUNNING, attempt)

        await until(is_running, seconds=SECONDS)

    async def events(self, reason: str) -> list[str]:
        found = await self.kubectl("get", "events", "--field-selector", f"reason={reason}", "-o", "json")
        return [item["involvedObject"]["name"] for item in json.loads(found)["items"]]


@pytest.fixture
async def side(kube: ControlPlane, namespace: str, redis_store: RedisStore) -> Side:
    return Side(kube, namespace, redis_store)


async def test_from_a_message_to_succeeded_in_three_writes(side: Side) -> None:
    async with side.leading():
        await side.dispatch("task-1")
        await side.works("task-1")
        body = await side.reaches("task-1", "Running")
        await side.complete("task-1", success=True)
        await side.kubectl("wait", "--for=condition=Finished", "execution/task-1", "--timeout=30s")
        body = await side.reaches("task-1", "Succeeded")
        await side.resync.once()
        await until(lambda: side.mirror.queue.is_idle)
    assert side.cluster.writes["task-1"] == 3
    # Kopf left nothing of its own, and neither did the payload.
    assert set(body["metadata"]["annotations"]) == {"alakai.dev/incarnation"}
    assert body["metadata"]["finalizers"] == ["alakai.dev/execution"]
    assert "prompt" not in json.dumps(body)
    assert side.signals_restored == 1


async def test_a_table_is_what_people_see(side: Side) -> None:
    async with side.leading():
        await side.dispatch("task-1")
        await side.reaches("task-1", "Running")
        table = await side.kubectl("get", "executions", "-o", "wide")
        assert "implementation" in table
        assert "my-org/my-repo" in table
        assert await side.kubectl("get", "wex", "--field-selector", "status.phase=Running", "-o", "name")


async def test_an_applied_object_submits_once_whatever_is_applied_again(side: Side) -> None:
    task = {"taskId": "by-hand", "taskType": "digest", "payload": {"days": 7}}
    async with side.leading():
        await side.apply("by-hand", {"taskType": "digest", "task": task})
        await side.works("by-hand")
        await side.reaches("by-hand", "Running")
        await side.apply("by-hand", {"taskType": "digest", "task": task})
        await side.complete("by-hand", success=False)
        await side.reaches("by-hand", "Failed")
        await side.apply("by-hand", {"taskType": "digest", "task": task})
    assert side.cluster.writes["by-hand"] <= 4
    async with side.leading():
        await until(lambda: side.operator.is_watching, seconds=SECONDS)
        await side.resync.once()
        await side.dispatch("later")
        await side.reaches("later", "Running")
    execution = await side.execution("by-hand")
    assert (execution.latest.number, execution.latest.run) == (1, 1)
    assert execution.latest.task_snapshot == task
    assert sum(side.launcher.starts.values()) == 2


async def test_annotations_steer_as_over_http(side: Side) -> None:
    async with side.leading():
        await side.dispatch("task-1")
        await side.works("task-1")
        await side.reaches("task-1", "Running")
        await side.kubectl("annotate", "execution", "task-1", "alakai.dev/retry=too-early")
        await until(lambda: _told(side, "RetryRefused", "task-1"), seconds=SECONDS)
        body = await side.reaches("task-1", "Running")
        refusal = next(item for item in body["status"]["conditions"] if item["type"] == "Accepted")
        assert refusal["message"] == "cannot retry execution in status 'running'"
        await side.complete("task-1", success=False)
        await side.reaches("task-1", "Failed")
        await side.kubectl("annotate", "--overwrite", "execution", "task-1", "alakai.dev/retry=now")
        await until(lambda: len(side.queue.sent) == 1, seconds=SECONDS)
        await side.commands.dispatch(task_from_document(side.queue.sent[0]), message_id="retry-1")
        await side.works("task-1", attempt=2)
        await side.reaches("task-1", "Running", attempt=2)
        await side.kubectl("annotate", "execution", "task-1", "alakai.dev/cancel=not needed any more")
        body = await side.reaches("task-1", "Cancelled", attempt=2)
        assert body["status"]["message"] == "not needed any more"
    async with side.leading():
        await until(lambda: side.operator.is_watching, seconds=SECONDS)
        await side.resync.once()
        await until(lambda: side.mirror.queue.is_idle)
    assert len(side.queue.sent) == 1
    assert await side.events("Cancelled") == ["task-1"]
    assert await side.events("WorkerFailed") == ["task-1"]


async def test_suspend_holds_the_launch_back(side: Side) -> None:
    async with side.leading():
        await side.apply("held", {"taskType": "digest", "suspend": True})
        body = await side.reaches("held", "Pending")
        assert body["status"]["reason"] == "Suspended"
        assert not side.launcher.starts
        await side.kubectl("patch", "execution", "held", "--type=merge", "-p", '{"spec":{"suspend":false}}')
        await side.works("held")
        body = await side.reaches("held", "Running")
        assert body["status"]["observedGeneration"] == 2


async def test_a_name_that_is_not_its_tasks_is_refused_in_public(side: Side) -> None:
    async with side.leading():
        await side.apply("mine", {"taskId": "Job_1", "taskType": "digest"})
        await until(lambda: _told(side, "NameMismatch", "mine"), seconds=SECONDS)
        body = await side.object("mine")
        assert body is not None
        assert body["status"]["reason"] == "NameMismatch"
        await side.kubectl("delete", "execution", "mine", "--timeout=30s")
    assert (await side.store.read("Job_1")).execution is None


async def test_deleting_cancels_what_runs_and_nothing_comes_back(side: Side) -> None:
    async with side.leading():
        await side.dispatch("done")
        await side.dispatch("live")
        for task_id in ("done", "live"):
            await side.works(task_id)
            await side.reaches(task_id, "Running")
        await side.complete("done", success=True)
        await side.reaches("done", "Succeeded")
        await side.kubectl("delete", "execution", "done", "live", "--timeout=30s")
        assert (await side.execution("live")).latest.status is Status.CANCELLED
        assert (await side.execution("live")).latest.error_message == "the WorkerExecution was deleted"
        assert (await side.execution("done")).latest.status is Status.SUCCEEDED
        stopped = (await side.execution("live")).latest.worker_id
        assert {call[1] for call in side.launcher.calls if call[0] == "stop"} == {stopped}
        assert stopped not in side.launcher.alive
        await side.resync.once()
        await until(lambda: side.mirror.queue.is_idle)
    async with side.leading():
        await side.resync.once()
        await until(lambda: side.mirror.queue.is_idle)
        assert await side.kubectl("get", "executions", "-o", "name") == ""


async def test_records_changed_by_hand_show_after_one_resync(side: Side) -> None:
    keys, redis = side.store.keys, side.store.redis
    async with side.leading():
        await side.dispatch("removed")
        await side.reaches("removed", "Running")
        await redis.delete(keys.record("removed"))
        record = {"taskId": "by-hand", "taskType": "implementation", "attempt": 2, "status": "failed"}
        await redis.hset(keys.record("by-hand"), "2", json.dumps(record))
        await side.resync.once()
        await side.vanishes("removed")
        body = await side.reaches("by-hand", "Failed", attempt=2)
        assert body["status"]["next"] == "nothing: its payload is lost"
    assert len(side.launcher.starts) == 1


async def test_what_happened_without_a_leader_is_settled_by_the_next_one(side: Side) -> None:
    async with side.leading():
        for number in range(5):
            await side.dispatch(f"live-{number}")
            await side.dispatch(f"gone-{number}")
        for number in range(5):
            await side.reaches(f"live-{number}", "Running")
            await side.reaches(f"gone-{number}", "Running")
    starts = sum(side.launcher.starts.values())
    await side.kubectl("delete", "execution", "--wait=false", *(f"live-{number}" for number in range(5)))
    for number in range(5):
        await side.store.redis.delete(side.store.keys.record(f"gone-{number}"))
    await side.dispatch("new")
    async with side.leading():
        await side.resync.once()
        for number in range(5):
            await side.vanishes(f"live-{number}")
            await side.vanishes(f"gone-{number}")
            assert (await side.execution(f"live-{number}")).latest.status is Status.CANCELLED
        await side.reaches("new", "Running")
    assert sum(side.launcher.starts.values()) == starts + 1


async def test_an_api_server_that_is_away_holds_up_no_work_and_is_caught_up_with(side: Side) -> None:
    async with side.leading():
        await side.dispatch("before")
        await side.reaches("before", "Running")
        await asyncio.to_thread(side.plane.kill_apiserver)
        try:
            for number in range(20):
                await side.dispatch(f"during-{number}")
            await until(lambda: side.mirror.api_is_away, seconds=SECONDS)
            # Whatever came before the outage was noticed is found by the sweep; here it is woken by another entry.
            for number in range(20):
                await side.commands.assign(f"during-{number}", assignee="jane")
            for number in range(20):
                await side.works(f"during-{number}")
                await side.complete(f"during-{number}", success=True)
            await side.complete("before", success=True)
        finally:
            await asyncio.to_thread(side.plane.start_apiserver)
        for name in ("before", *(f"during-{number}" for number in range(20))):
            await side.reaches(name, "Succeeded")
        # What people do reaches us again too.
        await side.apply("by-hand", {"taskType": "digest"})
        await side.reaches("by-hand", "Running")
    assert set(side.launcher.starts.values()) == {1}


async def test_while_the_definition_is_removed_nothing_is_cancelled_and_it_may_come_back(
    tmp_path: Path, redis_store: RedisStore
) -> None:
    plane = await asyncio.to_thread(ControlPlane.start, tmp_path / "kubernetes")
    side = Side(plane, "default", redis_store)
    try:
        async with side.leading():
            # Started without a definition: nothing fails, everything waits for it.
            await side.dispatch("task-1")
            await until(lambda: side.mirror.api_is_away, seconds=SECONDS)
            await asyncio.to_thread(apply_crds, str(plane.kubeconfig))
            await side.reaches("task-1", "Running")
            await until(lambda: side.operator.is_watching, seconds=SECONDS)
            await side.kubectl("delete", "crd", "workerexecutions.alakai.dev", "--timeout=30s")
            execution = await side.execution("task-1")
            assert execution.latest.status is Status.RUNNING
            assert (execution.state.cancellation, execution.state.resource.absent_attempt) == (None, 0)
            await until(lambda: side.mirror.api_is_away, seconds=SECONDS)
            # Kopf ended with its resource; nothing else did.
            assert not any(task.done() for task in side.tasks)
            await asyncio.to_thread(apply_crds, str(plane.kubeconfig))
            await side.reaches("task-1", "Running")
            await side.apply("by-hand", {"taskType": "digest"})
            await side.reaches("by-hand", "Running")
    finally:
        await asyncio.to_thread(plane.stop)


async def _told(side: Side, reason: str, name: str) -> bool:
    return name in await side.events(reason)
