"""The executions that are measured: one kind of task, and its record and resource at each step of its life."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import orjson

from executions.lifecycle import intend_launch, launched, record_outcome
from executions.names import launch_token
from executions.outcome import Outcome
from executions.policy import Policy
from executions.record import Execution
from executions.resource import manifest_from_execution, status_from_execution
from executions.submission import submit
from executions.task import task_from_document

LAUNCHER = "bench"
POLICY = Policy()


def message(task_id: str) -> dict[str, Any]:
    """A task message of ordinary size."""
    return {
        "taskId": task_id,
        "taskType": "implementation",
        "payload": {"repo": "my-org/my-repo", "source": "coding.implementation", "prompt": "add retries " * 20},
        "metadata": {"createdAt": 1, "trace_id": f"trace-{task_id}"},
        "callbacks": {"github": {"repo": "my-org/my-repo", "issueNumber": 1}},
    }


def worker_id(token: str) -> str:
    """As long as the ARN of an ECS task."""
    return f"arn:aws:ecs:us-east-1:000000000000:task/bench/{token[:32]}"


@dataclass(frozen=True, slots=True)
class Life:
    """One execution as it is claimed, runs and ends; `claimed_ms` is the time of its claim."""

    task_id: str
    claimed_ms: int

    @classmethod
    def of(cls, task_id: str, *, age_ms: int = 0) -> Life:
        return cls(task_id, time.time_ns() // 1_000_000 - age_ms)

    def running(self) -> Execution:
        incarnation = "0123456789abcdef"
        claimed = submit(
            None,
            task_from_document(message(self.task_id)),
            now_ms=self.claimed_ms,
            policy=POLICY,
            launcher=LAUNCHER,
            incarnation=incarnation,
        ).execution
        assert claimed is not None
        token = launch_token("bench", self.task_id, incarnation, 1, 1)
        intended = intend_launch(claimed, 1, token=token, request={}, now_ms=self.claimed_ms, policy=POLICY)
        return launched(intended, 1, 1, worker_id=worker_id(token), now_ms=self.claimed_ms)

    def ended(self, *, succeeded: bool) -> Execution:
        outcome = Outcome(task_id=self.task_id, succeeded=succeeded, attempt=1, error_message="it did not work")
        after = record_outcome(self.running(), outcome, received_ms=self.claimed_ms, now_ms=self.claimed_ms).execution
        assert after is not None
        return after


def manifest(execution: Execution, namespace: str) -> bytes:
    return orjson.dumps(manifest_from_execution(execution, namespace))


def status_patch(execution: Execution) -> bytes:
    status = status_from_execution(execution, POLICY, observed_generation=1, unknown_ms=0)
    return orjson.dumps({"status": status})
