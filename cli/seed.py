"""``alakai seed``: a failed execution in the record, so that a retry can be tried without a worker.

The record and the dashboard's row carry the same task name and actor, which later attempts keep.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from typing import Any

from executions.adapters.redis_epoch import create_epoch_if_untouched
from executions.adapters.redis_store import open_store
from executions.adapters.settings import Settings, settings_from_environment
from executions.adapters.task_tracking import open_tracking
from executions.adapters.visibility_file import visibility_from
from executions.answer import Answer, Decision, Reply, changed
from executions.errors import InvalidTask, StoreUnavailable
from executions.lifecycle import ended
from executions.operations.transact import transact
from executions.ports import Snapshot
from executions.record import Attempt, Execution, State, Status
from executions.task import Task, task_from_document
from executions.tracking import told_event


def run(values: Mapping[str, str | None]) -> None:
    """``values``: repo, task_name, actor_provider, actor_id, actor_display, execution_id, attempt. Prints the ids."""
    settings = settings_from_environment()
    task, attempt = seeded_task(values)
    asyncio.run(_write(settings, task, attempt))
    actor = task.metadata.actor
    print(f"execution-id: {task.execution_id}")
    print(f"queue-task-id: {task.task_id}")
    print(f"task-name: {task.task_name}")
    if actor is not None:
        print(f"actor: {actor.provider} {actor.id} {actor.display}")
    print(f"record: {settings.executions_redis_key_prefix}:{task.task_id}")


def seeded_task(values: Mapping[str, str | None]) -> tuple[Task, int]:
    """The task to seed and the number of its failed attempt. The queue task id follows from the execution id."""
    repo = values.get("repo") or "my-org/my-repo"
    if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", repo):
        raise InvalidTask("repo must look like owner/name, for example repo='my-org/my-repo'")
    number = values.get("attempt") or "1"
    if not re.fullmatch(r"[1-9][0-9]{0,2}", number):
        raise InvalidTask("attempt must be a whole number from 1 to 999")
    execution_id = values.get("execution_id") or f"exec-{secrets.token_hex(4)}"
    document: dict[str, Any] = {
        "taskId": f"impl-{execution_id}",
        "taskType": "implementation",
        "payload": {"repo": repo, "source": "coding.implementation", "prompt": "seeded by alakai seed"},
        "metadata": {
            "executionId": execution_id,
            "taskName": values.get("task_name") or "Seeded implementation",
            "trace_id": execution_id,
            "actor": {
                "provider": values.get("actor_provider") or "slack",
                "id": values.get("actor_id") or "U000000",
                "display": values.get("actor_display") or "Seed User",
            },
        },
        "callbacks": {"github": {"repo": repo, "issueNumber": 1}},
    }
    return task_from_document(document), int(number)


async def _write(settings: Settings, task: Task, attempt: int) -> None:
    store = open_store(settings)
    try:
        if settings.is_local:
            await create_epoch_if_untouched(store.redis, settings.executions_redis_key_prefix)
        await transact(store, task.task_id, lambda seen: _failed(seen, task, attempt))
        await _project(settings, await store.read(task.task_id))
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{error}; is Redis up (make up) and did a controller start once?") from error
    finally:
        await store.close()


async def _project(settings: Settings, seeded: Snapshot) -> None:
    """The dashboard's row too, which is otherwise made when a controller comes to it: that may not run yet."""
    visibility = visibility_from(settings.task_visibility_file)
    event = told_event(seeded.execution, visibility) if seeded.execution is not None else None
    if event is None:
        return
    tracking = open_tracking(settings)
    try:
        await tracking.projection.apply([event])
    finally:
        await tracking.close()


def _failed(seen: Snapshot, task: Task, number: int) -> Decision:
    incarnation = seen.execution.state.incarnation if seen.execution else secrets.token_hex(8)
    attempt = Attempt(
        task_id=task.task_id,
        task_type=task.task_type,
        number=number,
        status=Status.RUNNING,
        task_snapshot=task.snapshot(),
        trace_id=task.trace_id,
        launcher="local",
        run=number,
        claimed_at=seen.now_ms,
        started_at=seen.now_ms,
        incarnation=incarnation,
    )
    if seen.execution is not None and seen.execution.latest.number >= number:
        answer = Answer(Reply.NOTHING_TO_DO, task.task_id, seen.execution.latest.number)
        return Decision(seen.execution, answer)
    execution = seen.execution or Execution(task.task_id, (), State(incarnation=incarnation))
    failed = ended(execution.with_attempt(attempt), number, Status.FAILED, now_ms=seen.now_ms, message="seeded failure")
    return changed(failed, Reply.ACCEPTED)
