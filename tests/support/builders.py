"""Short ways to make the objects that tests begin with."""

from __future__ import annotations

from typing import Any

from executions.lifecycle import intend_launch, launched
from executions.policy import Policy
from executions.record import Execution
from executions.submission import submit
from executions.task import Task, task_from_document

NOW_MS = 1_700_000_000_000
POLICY = Policy()


def task_document(task_id: str = "task-1", **fields: Any) -> dict[str, Any]:
    """A valid task message."""
    return {
        "taskId": task_id,
        "taskType": "implementation",
        "payload": {"repo": "my-org/my-repo", "source": "coding.implementation", "prompt": "add retries"},
        "metadata": {"createdAt": 1, "trace_id": f"trace-{task_id}"},
        "callbacks": {"github": {"repo": "my-org/my-repo", "issueNumber": 1}},
        **fields,
    }


def a_task(task_id: str = "task-1", **fields: Any) -> Task:
    return task_from_document(task_document(task_id, **fields))


def pending(task_id: str = "task-1", *, now_ms: int = NOW_MS) -> Execution:
    """A claimed execution that nobody has launched."""
    decision = submit(
        None, a_task(task_id), now_ms=now_ms, policy=POLICY, launcher="local", incarnation="incarnation-1"
    )
    assert decision.execution is not None
    return decision.execution


def intended(task_id: str = "task-1", *, now_ms: int = NOW_MS) -> Execution:
    """A claimed execution with a durable launch intent and no answer yet."""
    return intend_launch(pending(task_id, now_ms=now_ms), 1, token="t" * 64, request={}, now_ms=now_ms, policy=POLICY)


def running(task_id: str = "task-1", *, now_ms: int = NOW_MS) -> Execution:
    """An execution whose worker runs."""
    return launched(intended(task_id, now_ms=now_ms), 1, 1, worker_id=f"worker-of-{task_id}", now_ms=now_ms)
