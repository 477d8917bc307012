"""Submitting work: which message or resource starts which attempt.

``submit`` is for work without an attempt number (a new message, a resource made by a user), ``dispatch`` for a message,
``promote`` for an automatic retry that is due. What happens to a claimed attempt afterwards is in ``lifecycle``.
"""

from __future__ import annotations

from dataclasses import replace

from executions.answer import Decision, Reply, changed, unchanged
from executions.automatic_retry import settle_schedule
from executions.control import ISSUE_REASSIGNED, assign
from executions.errors import InvalidTask
from executions.policy import Policy
from executions.record import Attempt, Execution, Schedule, ScheduleOutcome, State, Status
from executions.retry import retry_message
from executions.task import Task, task_from_document


def submit(
    execution: Execution | None, task: Task, *, now_ms: int, policy: Policy, launcher: str, incarnation: str
) -> Decision:
    """Status-aware submit: unknown starts attempt 1, failed within budget the next one, anything else nothing.

    The ``run`` counter rises here and nowhere else: only a failed task that is really executed again counts.
    ``incarnation`` is the id given to an execution that begins now.
    """
    if execution is None:
        return changed(_begun(task, now_ms, launcher, incarnation), Reply.CLAIMED)
    if execution.latest.status is not Status.FAILED:
        return unchanged(execution, Reply.NOTHING_TO_DO, task.task_id)
    schedule = execution.waiting_schedule
    if schedule is not None and not _names_somebody_else(task, schedule):
        return unchanged(execution, Reply.NOTHING_TO_DO, task.task_id, "an automatic retry is scheduled")
    if not policy.may_retry(execution.latest.number):
        return unchanged(execution, Reply.BUDGET_EXHAUSTED, task.task_id)
    return changed(_claimed_next(execution, task, now_ms, launcher), Reply.CLAIMED)


def dispatch(
    execution: Execution | None, task: Task, *, now_ms: int, policy: Policy, launcher: str, incarnation: str
) -> Decision:
    """What a queue message does. The order of the checks is part of the contract."""
    wanted = task.attempt
    if wanted is None or (wanted == 1 and execution is None):
        return submit(execution, task, now_ms=now_ms, policy=policy, launcher=launcher, incarnation=incarnation)
    latest = execution.latest.number if execution else 0
    if wanted <= latest:
        return unchanged(execution, Reply.NOTHING_TO_DO, task.task_id)
    if wanted > policy.max_retries + 1:
        return unchanged(execution, Reply.OVER_BUDGET, task.task_id)
    cancellation = execution.state.cancellation if execution else None
    if cancellation is not None and cancellation.attempt == wanted:
        return unchanged(execution, Reply.NOTHING_TO_DO, task.task_id, "this retry was cancelled")
    if execution is not None and wanted == latest + 1 and execution.latest.status is Status.FAILED:
        return changed(_claimed_next(execution, task, now_ms, launcher), Reply.CLAIMED)
    return replace(unchanged(execution, Reply.OUT_OF_ORDER, task.task_id), is_final=False)


def promote(execution: Execution, *, now_ms: int, policy: Policy, launcher: str) -> Execution:
    """Begin the attempt of an automatic retry that is due; nothing is promoted a moment too early."""
    schedule = execution.waiting_schedule
    if schedule is None or schedule.due_at is None or now_ms < schedule.due_at:
        return execution
    if not policy.may_retry(execution.latest.number):
        return settle_schedule(execution, ScheduleOutcome.DROPPED, now_ms=now_ms, reason="budget_exhausted")
    try:
        task = task_from_document(retry_message(execution))
    except InvalidTask:
        return settle_schedule(execution, ScheduleOutcome.DROPPED, now_ms=now_ms, reason="payload_invalid")
    settled = settle_schedule(execution, ScheduleOutcome.PROMOTED, now_ms=now_ms)
    return _claimed_next(settled, task, now_ms, launcher).with_latest(
        automatic_retry=schedule.automatic_retry,
        codex_transient_fallback_mode=schedule.fallback_mode,
        transient_retry_not_before=schedule.not_before,
    )


def hand_over(
    execution: Execution | None, task_id: str, *, assignee: str | None, now_ms: int, policy: Policy, launcher: str
) -> Decision:
    """Name another assignee, which is itself a submit for them: a failed task within budget is claimed at once.

    The next attempt's message names the new assignee too, so that its retry does not hand the work back.
    """
    decision = assign(execution, task_id, assignee=assignee, now_ms=now_ms)
    following = decision.execution
    if following is None or following is execution or assignee is None:
        return decision
    latest = following.latest
    if latest.status is not Status.FAILED or not policy.may_retry(latest.number) or not latest.task_snapshot:
        return decision
    known = latest.task_snapshot.get("metadata")
    metadata = {**(known if isinstance(known, dict) else {}), "assignee": assignee}
    try:
        task = task_from_document({**latest.task_snapshot, "taskId": task_id, "metadata": metadata})
    except InvalidTask:
        return decision  # a payload written by hand that could not be launched anyway
    return changed(_claimed_next(following, task, now_ms, launcher), Reply.ACCEPTED)


def _begun(task: Task, now_ms: int, launcher: str, incarnation: str) -> Execution:
    state = State(incarnation=incarnation, assignee=task.metadata.assignee)
    return Execution(task.task_id, (_attempt(task, 1, 1, now_ms, launcher, incarnation),), state)


def _claimed_next(execution: Execution, task: Task, now_ms: int, launcher: str) -> Execution:
    latest = execution.latest
    attempt = _attempt(
        task, latest.number + 1, latest.run + 1, now_ms, launcher, execution.state.incarnation
    ).model_copy(update={"trace_id": latest.trace_id or task.trace_id})
    schedule = execution.waiting_schedule
    if schedule is not None and _names_somebody_else(task, schedule):
        execution = settle_schedule(execution, ScheduleOutcome.DROPPED, now_ms=now_ms, reason=ISSUE_REASSIGNED)
    elif schedule is not None:
        execution = settle_schedule(execution, ScheduleOutcome.SUPERSEDED, now_ms=now_ms)
    mark = execution.waiting_retry
    if mark is not None:
        mark = mark.model_copy(update={"claimed": True})
    return execution.with_attempt(attempt).with_state(
        retry=mark, cancellation=None, assignee=task.metadata.assignee or execution.state.assignee
    )


def _names_somebody_else(task: Task, schedule: Schedule) -> bool:
    """Whether the work is for another one than the retry was scheduled for; who names nobody names nobody else."""
    return task.metadata.assignee is not None and task.metadata.assignee != schedule.assignee


def _attempt(task: Task, number: int, run: int, now_ms: int, launcher: str, incarnation: str) -> Attempt:
    return Attempt(
        task_id=task.task_id,
        task_type=task.task_type,
        number=number,
        status=Status.PENDING,
        task_snapshot=task.snapshot(),
        trace_id=task.trace_id,
        launcher=launcher,
        run=run,
        claimed_at=now_ms,
        incarnation=incarnation,
    )
