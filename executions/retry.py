"""Manual retry: a request is marked in the record, sent to the queue, and claimed like any other message.

The mark is what makes a double click one retry and what survives a crash between mark and send. Automatic retry
shares the budget (``Policy.may_retry``).
"""

from __future__ import annotations

from typing import Any

from executions.answer import Answer, Decision, Reply, unchanged
from executions.policy import Policy
from executions.record import Execution, RetryRequest, Status

DOUBLE_CLICK_MS = 10_000
"""A click this soon after the first one belongs to it, even when the attempt has begun meanwhile."""


def request_retry(
    execution: Execution | None, task_id: str, *, requested_by: str, now_ms: int, policy: Policy
) -> Decision:
    """Mark a retry, or join the one that was just asked for.

    The answer's reply is QUEUED with detail ``send`` for the one caller who must enqueue the message, QUEUED without
    detail for a joined click, or a refusal.
    """
    if execution is None:
        return unchanged(None, Reply.NOT_FOUND, task_id)
    joined = _joined(execution, now_ms)
    if joined is not None:
        return joined
    refusal = retry_refusal(execution, policy)
    if refusal is not None:
        return unchanged(execution, refusal, task_id)
    attempt = execution.latest.number + 1
    mark = RetryRequest(
        attempt=attempt,
        requested_at=now_ms,
        requested_by=requested_by,
        resend_at=now_ms + policy.retry_redeliver_ms,
    )
    return Decision(
        execution.with_state(retry=mark, cancellation=None),
        Answer(Reply.QUEUED, task_id, attempt, "queued", detail="send"),
    )


def retry_refusal(execution: Execution, policy: Policy) -> Reply | None:
    """Why the latest attempt cannot be retried, or None when it can."""
    latest = execution.latest
    if latest.status is not Status.FAILED:
        return Reply.NOT_FAILED
    if not policy.may_retry(latest.number):
        return Reply.BUDGET_EXHAUSTED
    if not latest.task_snapshot:
        return Reply.PAYLOAD_LOST
    return None


def withdraw_retry(execution: Execution, attempt: int) -> Execution:
    """Take a mark back after a send that provably failed, unless another click relies on it or it was claimed."""
    mark = execution.waiting_retry
    if mark is None or mark.attempt != attempt or mark.joined:
        return execution
    return execution.with_state(retry=None)


def retry_is_due(execution: Execution, now_ms: int) -> bool:
    """Whether a marked retry is still unclaimed past its time, so that its message must be enqueued again."""
    mark = execution.waiting_retry
    return mark is not None and mark.resend_at <= now_ms


def retry_resent(execution: Execution, *, now_ms: int, policy: Policy) -> Execution:
    """Set the next time of a marked retry, before its message is enqueued again."""
    mark = execution.state.retry
    if mark is None:
        return execution
    return execution.with_state(retry=mark.model_copy(update={"resend_at": now_ms + policy.retry_redeliver_ms}))


def retry_message(execution: Execution) -> dict[str, Any] | None:
    """The message that a retry enqueues: the stored snapshot with the next attempt; None when the snapshot is lost."""
    latest = execution.latest
    if not latest.task_snapshot:
        return None
    message = {**latest.task_snapshot, "taskId": execution.task_id, "attempt": latest.number + 1}
    known = message.get("metadata")
    assignee = execution.state.assignee
    if assignee is not None and isinstance(known, dict) and known.get("assignee") != assignee:
        # Somebody else works on it now: the old message must not hand the work back.
        message["metadata"] = {**known, "assignee": assignee}
    return message


def _joined(execution: Execution, now_ms: int) -> Decision | None:
    mark = execution.state.retry
    if mark is None:
        return None
    latest = execution.latest
    unclaimed = execution.waiting_retry is not None
    just_begun = (
        latest.number == mark.attempt
        and not latest.status.is_finished
        and now_ms - mark.requested_at <= DOUBLE_CLICK_MS
    )
    if not (unclaimed or just_begun):
        return None
    answer = Answer(Reply.QUEUED, execution.task_id, mark.attempt, "queued")
    if mark.joined or just_begun:
        return Decision(execution, answer)
    return Decision(execution.with_state(retry=mark.model_copy(update={"joined": True})), answer)
