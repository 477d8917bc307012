"""Cancel, done, assign, suspend: what people do to an execution, through HTTP or kubectl.

Stopping the worker itself is the reconciler's work (``plan``); here only the wish is recorded.
"""

from __future__ import annotations

from executions.answer import Decision, Reply, changed, unchanged
from executions.automatic_retry import settle_schedule
from executions.lifecycle import ended
from executions.record import Attempt, Cancellation, Execution, ScheduleOutcome, Status

REASON_LIMIT = 1024
ISSUE_CANCELLED = "issue_cancelled"
ISSUE_DONE = "issue_done"
ISSUE_REASSIGNED = "issue_reassigned"


def cancel(execution: Execution | None, task_id: str, *, reason: str, requested_by: str, now_ms: int) -> Decision:
    """Stop the live worker, drop a retry that has not begun.

    An attempt without a launch intent ends at once; one with a worker ends when the worker is gone.
    """
    if execution is None:
        return unchanged(None, Reply.NOT_FOUND, task_id)
    following = settle_schedule(execution, ScheduleOutcome.DROPPED, now_ms=now_ms, reason=ISSUE_CANCELLED)
    latest, waiting = following.latest, following.waiting_retry
    target = (waiting.attempt if waiting else None) if latest.status.is_finished else latest.number
    if target is not None and following.state.cancellation is None:
        cancellation = Cancellation(
            attempt=target, reason=reason[:REASON_LIMIT], requested_by=requested_by, requested_at=now_ms
        )
        # A retry that was asked for is on its way in the queue: its message must find that it was cancelled.
        following = following.with_state(cancellation=cancellation, retry=None if waiting else following.state.retry)
        if not latest.status.is_finished and not _has_worker(latest):
            following = ended(following, target, Status.CANCELLED, now_ms=now_ms, message=cancellation.reason)
    if following is execution:
        return unchanged(execution, Reply.NOTHING_TO_DO, task_id)
    return changed(following, Reply.ACCEPTED)


def mark_done(execution: Execution | None, task_id: str, *, now_ms: int) -> Decision:
    """Drop a scheduled retry; leave a live worker alone."""
    if execution is None:
        return unchanged(None, Reply.NOT_FOUND, task_id)
    following = settle_schedule(execution, ScheduleOutcome.DROPPED, now_ms=now_ms, reason=ISSUE_DONE)
    if following is execution:
        return unchanged(execution, Reply.NOTHING_TO_DO, task_id)
    return changed(following, Reply.ACCEPTED)


def assign(execution: Execution | None, task_id: str, *, assignee: str | None, now_ms: int) -> Decision:
    """Name who the work is for and drop a schedule of somebody else's; ``submission.hand_over`` also submits."""
    if execution is None:
        return unchanged(None, Reply.NOT_FOUND, task_id)
    if execution.state.assignee == assignee:
        return unchanged(execution, Reply.NOTHING_TO_DO, task_id)
    dropped = settle_schedule(execution, ScheduleOutcome.DROPPED, now_ms=now_ms, reason=ISSUE_REASSIGNED)
    following = dropped.with_state(assignee=assignee)
    return changed(following, Reply.ACCEPTED)


def suspend(execution: Execution, *, suspended: bool) -> Execution:
    """Hold or release new launches; a live worker runs on."""
    if execution.state.suspended == suspended:
        return execution
    return execution.with_state(suspended=suspended)


def _has_worker(attempt: Attempt) -> bool:
    """Whether there may be a worker whose end can be waited for; a running record written by hand need not name one."""
    return attempt.is_live and (attempt.launch is not None or attempt.worker_id is not None)
