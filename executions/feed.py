"""The change feed: one entry per change that somebody outside can see.

The mirror, tracking, events and notifications are all derived from it; entries can be read late and more than once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from executions.conditions import phase
from executions.notification import outcome_of
from executions.record import Execution
from executions.tracking import event_id, followed


class Transition(StrEnum):
    """What happened. The middle ones are the statuses of an attempt."""

    CLAIMED = "claimed"
    PENDING = "pending"
    """Launched before, waiting for its next launch."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UPDATED = "updated"
    """Nothing of the attempt's status: evidence, assignee, suspension, schedule."""
    FORGOTTEN = "forgotten"
    """The record was removed by hand."""


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One change of one execution. ``sequence`` orders the entries of an incarnation."""

    task_id: str
    incarnation: str
    sequence: int
    attempt: int
    transition: Transition
    occurred_ms: int
    event: Mapping[str, Any] | None = field(default=None, hash=False)
    """What a lifecycle event says of this change (``tracking.followed``); None when the execution took no step."""
    outcome: Mapping[str, Any] | None = field(default=None, hash=False)
    """What notifications say of the attempt that ended by this change (``notification.outcome_of``); None: none did."""

    @property
    def event_id(self) -> str:
        return event_id(self.task_id, self.incarnation, self.sequence, self.occurred_ms)


_FIELDS = frozenset(item.name for item in fields(FeedEntry))
_TRANSITIONS = frozenset(Transition)


def entry_from_document(document: Mapping[str, Any]) -> FeedEntry:
    """An entry as it is stored, also of a later version: beside it we run for as long as a rollout takes.

    Fields that we do not know are left out. A transition that we do not know is UPDATED: whatever it was, the record
    is to be looked at.
    """
    known = {name: value for name, value in document.items() if name in _FIELDS}
    transition = known["transition"]
    return FeedEntry(**{**known, "transition": Transition(transition if transition in _TRANSITIONS else "updated")})


def entry_between(before: Execution | None, after: Execution, now_ms: int) -> FeedEntry | None:
    """The entry that a commit writes, or None for bookkeeping that nobody outside sees."""
    transition = _transition(before, after)
    if transition is None:
        return None
    state = after.state
    took_step = before is None or transition is not Transition.UPDATED or phase(before) is not phase(after)
    return FeedEntry(
        task_id=after.task_id,
        incarnation=state.incarnation,
        sequence=state.sequence,
        attempt=after.latest.number,
        transition=transition,
        occurred_ms=now_ms,
        event=followed(after) if took_step else None,
        outcome=outcome_of(before, after),
    )


def _transition(before: Execution | None, after: Execution) -> Transition | None:
    latest = after.latest
    if before is None or before.state.incarnation != after.state.incarnation:
        return Transition.CLAIMED if latest.status == "pending" else Transition(latest.status)
    if latest.number > before.latest.number:
        return Transition.CLAIMED
    if latest.status is not before.latest.status:
        return Transition(latest.status)
    return Transition.UPDATED if _visible(before) != _visible(after) else None


def _visible(execution: Execution) -> object:
    state = execution.state
    attempts = [
        (
            *(item.number, item.status, item.worker_id, item.evidence, item.late_results, item.is_stopping),
            item.waiting,
        )
        for item in execution.attempts
    ]
    return (
        attempts,
        state.suspended,
        state.assignee,
        state.schedule,
        state.cancellation,
        state.resource.absent_attempt,
    )
