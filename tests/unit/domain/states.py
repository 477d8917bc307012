"""Executions in every state, made by the domain's own steps."""

from __future__ import annotations

from typing import Any

from executions.control import cancel
from executions.lifecycle import intend_launch, launched, record_outcome
from executions.outcome import Outcome, outcome_from_document
from executions.policy import Policy
from executions.record import Attempt, Execution, Schedule, State, Status
from executions.submission import dispatch
from tests.support.builders import NOW_MS, POLICY, a_task, pending, running

GENEROUS = Policy(max_retries=99)


def outcome(task_id: str = "task-1", *, succeeded: bool = False, **fields: Any) -> Outcome:
    """What a worker reports; the fields in wire names."""
    status = {"status": "success"} if succeeded else {"status": "failure", "error": {"message": "boom", "code": "E1"}}
    return outcome_from_document({"taskId": task_id, **status, **fields})


def at_work(execution: Execution, *, now_ms: int = NOW_MS) -> Execution:
    """The waiting latest attempt, launched."""
    number = execution.latest.number
    intended = intend_launch(execution, number, token="t" * 64, request={}, now_ms=now_ms, policy=POLICY)
    return launched(intended, number, intended.latest.launch_tries, worker_id=f"worker-{number}", now_ms=now_ms)


def reported(execution: Execution, *, succeeded: bool = False, now_ms: int = NOW_MS, **fields: Any) -> Execution:
    """The live latest attempt, decided by its worker."""
    report = outcome(execution.task_id, succeeded=succeeded, **fields)
    following = record_outcome(execution, report, received_ms=now_ms, now_ms=now_ms).execution
    assert following is not None
    return following


def stop_reported(execution: Execution, *, now_ms: int = NOW_MS) -> Execution:
    """The live latest attempt, whose worker said that it was told to stop."""
    error = {"message": "stopped by signal SIGTERM", "code": "WORKER_STOPPED_EXTERNALLY"}
    return reported(execution, now_ms=now_ms, error=error)


def claimed_again(execution: Execution, *, now_ms: int = NOW_MS, **fields: Any) -> Execution:
    """The attempt after a failed one, claimed."""
    task = a_task(execution.task_id, **{"attempt": execution.latest.number + 1, **fields})
    following = dispatch(
        execution, task, now_ms=now_ms, policy=GENEROUS, launcher="local", incarnation="unused"
    ).execution
    assert following is not None
    return following


def failed(*, attempts: int = 1) -> Execution:
    """So many attempts, each reported as failed."""
    execution = reported(running())
    for _ in range(attempts - 1):
        execution = reported(at_work(claimed_again(execution)))
    return execution


def succeeded() -> Execution:
    return reported(running(), succeeded=True)


def cancelled() -> Execution:
    following = cancel(pending(), "task-1", reason="not needed", requested_by="jane", now_ms=NOW_MS).execution
    assert following is not None
    return following


def cancelling(execution: Execution) -> Execution:
    """The live execution, with the wish to stop it."""
    following = cancel(execution, execution.task_id, reason="not needed", requested_by="jane", now_ms=NOW_MS).execution
    assert following is not None
    assert not following.latest.status.is_finished
    return following


def scheduled(execution: Execution, *, assignee: str | None = None, outcome: str | None = None) -> Execution:
    """With an automatic retry of the next attempt."""
    number = execution.latest.number + 1
    return execution.with_state(
        schedule=Schedule(attempt=number, due_at=NOW_MS + 120_000, reason="E1", assignee=assignee, outcome=outcome)
    )


def by_hand(status: Status = Status.RUNNING, **fields: Any) -> Execution:
    """An adopted record that somebody else wrote: no launch of ours."""
    attempt = Attempt(task_id="task-1", number=1, status=status, incarnation="incarnation-1", **fields)
    return Execution("task-1", (attempt,), State(incarnation="incarnation-1", sequence=1))
