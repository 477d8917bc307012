"""Which lists an execution stands in: a pure function of the execution, stored again with every commit.

Because membership is derived and written in the same transaction as the record, a list can never leak an entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from executions.record import NO_LAUNCHER, Execution, Status


class Index(StrEnum):
    """Sorted lists of task ids; the score is a time in milliseconds."""

    WAITING = "waiting"
    """Pending without a launch intent, by the time of the claim: the order in which attempts start."""
    LIVE = "live"
    """A worker may exist, by the time of the claim: what the sweep looks at, and who holds the slots."""
    DUE = "due"
    """Something must be done at the score's time: a launch after its back-off, a retry to enqueue again or to begin."""
    FINISHED = "finished"
    """The latest attempt is finished, by its finish time: what the resource TTL goes by."""


def index_scores(execution: Execution) -> dict[Index, int | None]:
    """The score in every index; None means that the execution does not stand in it."""
    latest = execution.latest
    began_ms = latest.claimed_at or latest.started_at or 0
    waiting = latest.status is Status.PENDING and latest.launch is None
    return {
        Index.WAITING: began_ms if waiting else None,
        Index.LIVE: began_ms if latest.is_live else None,
        Index.DUE: _due_ms(execution),
        Index.FINISHED: (latest.finished_at or 0) if latest.status.is_finished else None,
    }


@dataclass(frozen=True, slots=True)
class Place:
    """Where an execution stands among those of its task type."""

    task_type: str
    since_ms: int | None
    """Since when it could be launched, or when it may be again; None when it waits for no slot."""
    live_ms: int | None
    """The time of the claim of a live attempt, which holds a slot; None for any other."""


def place(execution: Execution) -> Place:
    """In the line for a slot, among the holders of slots, or nowhere."""
    latest, scores = execution.latest, index_scores(execution)
    waits_ms, hindered = scores[Index.WAITING], latest.waiting is not None and latest.waiting.reason == NO_LAUNCHER
    can_begin = waits_ms is not None and not execution.state.suspended and not hindered
    since_ms = max(waits_ms or 0, latest.launch_not_before or 0) if can_begin else None
    return Place(latest.task_type, since_ms, scores[Index.LIVE])


def _due_ms(execution: Execution) -> int | None:
    latest = execution.latest
    mark, schedule = execution.waiting_retry, execution.waiting_schedule
    times = [
        latest.launch_not_before if latest.status is Status.PENDING else None,
        mark.resend_at if mark is not None else None,
        schedule.due_at if schedule is not None else None,
    ]
    return min((time for time in times if time is not None), default=None)
