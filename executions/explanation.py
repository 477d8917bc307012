"""Where an execution stands, why, and what happens next, in words: what ``alakai explain`` shows.

Says the same as the custom resource (``resource.status_from_execution``), with what only a look around can add: who
holds the slots right now, the hold, the breaker. Reads nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from executions.admission import Breaker, Hold, Standing, who_holds
from executions.conditions import Reason
from executions.moment import iso_from_ms
from executions.policy import Policy
from executions.record import Execution, Status
from executions.resource import status_from_execution

_HOLDERS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is to be known beside the record."""

    hold: Hold | None
    breakers: Sequence[Breaker]
    standing: Standing
    holders: Sequence[str]
    """Tasks with a live attempt, oldest first."""


def explain(execution: Execution, policy: Policy, around: Surroundings) -> Iterator[tuple[str, str]]:
    """Lines as (what, text); the first is the task's own."""
    status = status_from_execution(execution, policy, observed_generation=0, unknown_ms=0)
    run = f", run {status['run']}" if status["run"] else ""
    yield execution.task_id, f"{status['phase']}, attempt {status['attempt']}{run}"
    yield "why", f"{status['reason']}: {status['message']}"
    yield from obstacles(execution, policy, around)
    if status["next"]:
        yield "next", status["next"]
    schedule = status["schedule"]
    if schedule is not None and schedule["outcome"]:
        why = f" ({schedule['reason']})" if schedule["reason"] else ""
        yield "schedule", f"of attempt {schedule['attempt']}: {schedule['outcome']}{why}"
    for attempt in status["attempts"]:
        yield from _attempt(attempt)


def obstacles(execution: Execution, policy: Policy, around: Surroundings) -> Iterator[tuple[str, str]]:
    """What stands in the way of a launch right now."""
    latest = execution.latest
    if latest.status is not Status.PENDING or latest.launch is not None:
        return
    if around.hold is not None:
        since = iso_from_ms(around.hold.since_ms)
        yield "on hold", f"by {around.hold.by} since {since}: {around.hold.reason}; alakai resume ends it"
    for breaker in around.breakers:
        if (breaker.launcher, breaker.task_type) == (latest.launcher, latest.task_type):
            what = f"launches of {breaker.task_type} on {breaker.launcher} fail with {breaker.code}"
            yield "breaker", f"open: {what}; one is let through at {iso_from_ms(breaker.probe_at_ms)}"
    if latest.waiting is not None and latest.waiting.reason == Reason.SLOT_UNAVAILABLE:
        yield "slots", who_holds(around.standing, policy.slots, latest.task_type)
        shown = ", ".join(around.holders[:_HOLDERS_SHOWN])
        more = len(around.holders) - _HOLDERS_SHOWN
        yield "held by", f"{shown} and {more} more" if more > 0 else shown or "nobody"


def _attempt(attempt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    tries = f", launch {attempt['launchTry']}" if attempt.get("launchTry") else ""
    worker = f", worker {attempt['workerId']}" if attempt.get("workerId") else ""
    yield (
        f"attempt {attempt['attempt']}",
        f"{attempt['phase']} {attempt['reason']}{tries}{worker}: {attempt['message']}",
    )
    for name, time in (("claimed", "claimedAt"), ("started", "startTime"), ("finished", "finishTime")):
        if attempt.get(time):
            yield f"  {name}", attempt[time]
    for item in attempt.get("evidence") or []:
        yield "  seen", f"{item['observedAt']} {item['source']}: {item['detail']}"
    if attempt.get("pullRequestUrl"):
        yield "  result", attempt["pullRequestUrl"]
