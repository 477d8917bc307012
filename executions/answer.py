"""What a decision says: the next execution to commit, and the answer for whoever asked.

Doors (queue, HTTP, kubectl) translate an Answer into their own words; the rules are the same at every door.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from executions.record import Execution


class Reply(StrEnum):
    """Why something was done or not. Stable: logs, metrics and Events use these words."""

    CLAIMED = "claimed"
    NOTHING_TO_DO = "nothing_to_do"
    OVER_BUDGET = "over_budget"
    """A message asks for an attempt above MAX_RETRIES + 1: dropped."""
    OUT_OF_ORDER = "out_of_order"
    """A message asks for an attempt that cannot follow the latest one: left to the dead-letter policy."""
    QUEUED = "queued"
    NOT_FOUND = "not_found"
    NOT_FAILED = "not_failed"
    BUDGET_EXHAUSTED = "budget_exhausted"
    PAYLOAD_LOST = "payload_lost"
    RECORDED = "recorded"
    ALREADY_FINISHED = "already_finished"
    SUPERSEDED = "superseded"
    GRANTED = "granted"
    """The claim of a launch succeeded (first time or again)."""
    REFUSED = "refused"
    """The claim of a launch belongs to another worker, or the launch is not the live one."""
    ACCEPTED = "accepted"
    HINDERED = "hindered"
    """No launch may begin now: the detail is a Hindrance."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one command on one execution; ``status`` is the attempt's status after it."""

    reply: Reply
    task_id: str
    attempt: int | None = None
    status: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """``execution`` is what must be committed; the object that was read, or None, means that nothing changes."""

    execution: Execution | None
    answer: Answer
    is_final: bool = True
    """False when the same operation may be decided differently later, so that it must not be remembered."""


def unchanged(execution: Execution | None, reply: Reply, task_id: str, detail: str | None = None) -> Decision:
    """A decision that changes nothing and tells the latest attempt as it is."""
    if execution is None:
        return Decision(None, Answer(reply, task_id, detail=detail))
    latest = execution.latest
    return Decision(execution, Answer(reply, task_id, latest.number, latest.status, detail))


def changed(execution: Execution, reply: Reply, detail: str | None = None) -> Decision:
    latest = execution.latest
    return Decision(execution, Answer(reply, execution.task_id, latest.number, latest.status, detail))
