"""``python -m tests.skew``: record what this version keeps of executions, into ``fixtures/<version>/``.

Run it at each release, once its version is set, and commit what it wrote; recordings of earlier versions stay, because
those versions may still run, or have run, somewhere. It starts a Redis of its own, lets the real commands,
reconciler, sweep and local launcher work on it, and takes every key. Times are those of the recording, so two
recordings of one version differ in times and ids only.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from cli import seed
from controller.loops.sweep import Sweep
from controller.reconciler import Reconciler
from devstack.redis import RedisServer
from executions.adapters.local_launcher import LocalLauncher
from executions.adapters.redis_connection import connect
from executions.adapters.redis_epoch import create_epoch
from executions.adapters.redis_payloads import RedisPayloads
from executions.adapters.redis_store import RedisStore
from executions.adapters.settings import Settings
from executions.admission import Hold
from executions.automatic_retry import retry_scheduling
from executions.errors import LaunchUnclear
from executions.evidence import WorkerState
from executions.operations.commands import Commands
from executions.operations.transact import transact
from executions.outcome import outcome_from_document
from executions.policy import Policy
from executions.resource import manifest_from_execution, status_from_execution
from executions.task import task_from_document
from tests.skew.recorded import Recorded, taken
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue

POLICY = Policy(max_retries=2, lost_worker_grace_ms=0)
TASK_ID = "task-1"


@dataclass
class Scene:
    """An installation with one task."""

    store: RedisStore
    commands: Commands
    reconciler: Reconciler
    watched: FakeLauncher
    """What the sweep sees."""

    async def dispatch(self) -> None:
        await self.commands.dispatch(task_from_document(message()), message_id="first")

    async def launch(self) -> None:
        await self.dispatch()
        await self.reconciler.reconcile(TASK_ID)

    async def claim(self) -> None:
        await self.launch()
        await self.commands.claim(TASK_ID, attempt=1, launch_try=1, claim_id="worker-instance-1")

    async def report(self, **result: Any) -> None:
        agent = {"provider": "codex", "model": "some-model"}
        body = {"taskId": TASK_ID, "attempt": 1, "result": result, "agent": agent}
        await self.commands.complete(outcome_from_document(body))

    async def find_it_gone(self, *, looks: int) -> None:
        execution = (await self.store.read(TASK_ID)).execution
        assert execution is not None
        assert execution.latest.worker_id is not None
        self.watched.see(execution.latest.worker_id, WorkerState.STOPPED, "exit code 137", exit_code=137)
        sweep = Sweep(self.store, {"local": self.watched}, POLICY, lambda _: None)
        for _ in range(looks):
            await sweep.pass_once()


def message(**fields: Any) -> dict[str, Any]:
    """As upstream sends it, with fields that nobody here knows."""
    return {
        "taskId": TASK_ID,
        "taskType": "implementation",
        "payload": {
            "repo": "my-org/my-repo",
            "source": "coding.implementation",
            "prompt": "add retries",
            "extra": None,
        },
        "metadata": {
            "createdAt": 1,
            "trace_id": "trace-1",
            "executionId": "execution-1",
            "actor": {"provider": "slack", "id": "U1", "display": "Jane", "team": "T1"},
            "assignee": "jane",
        },
        "callbacks": {"github": {"repo": "my-org/my-repo", "issueNumber": 1}},
        "upstream": {"priority": 3},
        **fields,
    }


# The executions that are recorded


async def pending(scene: Scene) -> None:
    await scene.dispatch()


async def pending_on_hold(scene: Scene) -> None:
    await scene.store.hold(Hold("jane", "the provider is down", await scene.store.now_ms()))
    await scene.launch()
    await scene.store.hold(None)


async def being_launched(scene: Scene) -> None:
    """Its launch was sent, and whether it has a worker is not known."""
    await scene.dispatch()
    scene.watched.lose_reply()
    with suppress(LaunchUnclear):
        await replace(scene.reconciler, launchers={"local": scene.watched}).reconcile(TASK_ID)


async def running(scene: Scene) -> None:
    await scene.claim()


async def suspected(scene: Scene) -> None:
    await scene.claim()
    await scene.find_it_gone(looks=1)


async def being_stopped(scene: Scene) -> None:
    await scene.claim()
    await scene.commands.cancel(TASK_ID, reason="not needed any more", requested_by="jane@example.org")


async def told_to_stop(scene: Scene) -> None:
    await scene.claim()
    await scene.report(status="error", errorMessage="stopped by SIGTERM", errorCode="WORKER_STOPPED_EXTERNALLY")


async def failed(scene: Scene) -> None:
    await scene.claim()
    await scene.report(status="error", errorMessage="the tests fail", errorCode="TESTS_FAILED")


async def failed_with_schedule(scene: Scene) -> None:
    await scene.claim()
    await scene.report(
        status="error", errorMessage="overloaded", errorCode="codex_transient_upstream", retryNotBefore=300
    )


async def failed_and_asked_again(scene: Scene) -> None:
    await failed(scene)
    await scene.commands.retry(TASK_ID, requested_by="jane@example.org")


async def lost_and_reported_late(scene: Scene) -> None:
    await scene.claim()
    await scene.find_it_gone(looks=2)
    await scene.report(status="success", pullRequestUrl="https://example.org/pull/1")


async def retried_and_succeeded(scene: Scene) -> None:
    await failed(scene)
    await scene.commands.dispatch(task_from_document(message(attempt=2)), message_id="second")
    await scene.reconciler.reconcile(TASK_ID)
    body = {"taskId": TASK_ID, "status": "success", "pullRequestUrl": "https://example.org/pull/1"}
    await scene.commands.complete(outcome_from_document(body))


async def cancelled(scene: Scene) -> None:
    await scene.dispatch()
    await scene.commands.cancel(TASK_ID, reason="not needed any more", requested_by="jane@example.org")


async def seeded(scene: Scene) -> None:
    """As the retry guide does it."""
    values = {"repo": "my-org/my-repo", "execution_id": "1", "attempt": "2"}
    task, attempt = seed.seeded_task(values)
    task = task_from_document({**task.snapshot(), "taskId": TASK_ID})
    await transact(scene.store, TASK_ID, lambda seen: seed._failed(seen, task, attempt))


async def by_hand(scene: Scene) -> None:
    """With redis-cli, by somebody who knows no more than what the record has at least."""
    document = {
        "taskId": TASK_ID,
        "taskType": "digest",
        "attempt": 1,
        "status": "failed",
        "taskSnapshot": message(taskType="digest"),
        "startedAt": 1_700_000_000,
        "finishedAt": "2023-11-14T22:14:00Z",
        "errorMessage": "no luck",
        "error_code": None,
    }
    await scene.store.redis.hset(scene.store.keys.record(TASK_ID), "1", orjson.dumps(document))  # type: ignore[misc]


SCENES: tuple[Callable[[Scene], Awaitable[None]], ...] = (
    *(pending, pending_on_hold, being_launched, running, suspected, being_stopped, told_to_stop),
    *(failed, failed_with_schedule, failed_and_asked_again, lost_and_reported_late),
    *(retried_and_succeeded, cancelled, seeded, by_hand),
)


async def record(url: str, act: Callable[[Scene], Awaitable[None]]) -> Recorded:
    """Play one scene in a key prefix of its own and take what is there afterwards."""
    name = act.__name__.replace("_", "-")
    store = RedisStore(connect(url), name, follow_up=retry_scheduling(POLICY, lambda: 0.5))
    try:
        await create_epoch(store.redis, name)
        commands = Commands(store, MemoryQueue(), POLICY, "local")
        launcher = LocalLauncher(Settings(env="local"), RedisPayloads(store.redis, name), environment={})
        reconciler = Reconciler(
            store=store,
            commands=commands,
            launchers={"local": launcher},
            policy=POLICY,
            token_prefix="recorded",
            wake_after=lambda _task_id, _seconds: None,
            emit=lambda _: None,
        )
        await act(Scene(store, commands, reconciler, FakeLauncher()))
        execution = (await store.read(TASK_ID)).execution
        assert execution is not None
        resource = {
            "manifest": manifest_from_execution(execution, "alakai"),
            "status": status_from_execution(execution, POLICY, observed_generation=1, unknown_ms=0),
        }
        return Recorded(version("alakai-operator"), name, TASK_ID, await taken(store.redis, name), resource)
    finally:
        await store.close()


async def main(url: str) -> None:
    for act in SCENES:
        found = await record(url, act)
        found.path().parent.mkdir(parents=True, exist_ok=True)
        document = {"task_id": found.task_id, "keys": found.keys, "resource": found.resource}
        found.path().write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        sys.stdout.write(f"{found.path()}\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer.start(Path(folder))
        try:
            asyncio.run(main(server.url))
        finally:
            server.stop()
