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
    now_ms: int | None = None
    """For how long things have lasted; None where nobody asked what time it is."""


def explain(execution: Execution, policy: Policy, around: Surroundings) -> Iterator[tuple[str, str]]:
    """Lines as (what, text); the first is the task's own."""
    status = status_from_execution(execution, policy, observed_generation=0, unknown_ms=0)
    run = f", run {status['run']}" if status["run"] else ""
    yield execution.task_id, f"{status['phase']}, attempt {status['attempt']}{run}"
    yield "why", f"{status['reason']}: {status['message']}"
    yield from obstacles(execution, policy, around)
    yield from doubts(execution, policy)
    yield "next", next_step(execution, policy, around)
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


def doubts(execution: Execution, policy: Policy) -> Iterator[tuple[str, str]]:
    """A worker that looks gone and is not judged yet."""
    latest, suspicion = execution.latest, execution.latest.suspicion
    if suspicion is None or not latest.is_live:
        return
    looks = f"{suspicion.looks} look{'' if suspicion.looks == 1 else 's'}"
    what = "its worker stopped" if suspicion.has_stopped else f"its worker is missing ({looks})"
    if suspicion.report is not None:
        what = "its worker says that it was told to stop"
    due = iso_from_ms(suspicion.since + policy.lost_worker_grace_ms)
    yield "doubt", f"{what} since {iso_from_ms(suspicion.since)}; judged from {due} on, unless it reports"
    for item in suspicion.evidence:
        yield "  seen", f"{iso_from_ms(item.observed_at)} {item.source}: {item.detail}"


def next_step(execution: Execution, policy: Policy, around: Surroundings) -> str:
    """What is to come, and when. The resource says only what somebody has to launch or to retry."""
    status = status_from_execution(execution, policy, observed_generation=0, unknown_ms=0)
    if status["next"]:
        return str(status["next"])
    latest = execution.latest
    if latest.status.is_finished:
        return "nothing: it is over"
    if latest.launch is not None and latest.started_at is None:
        return f"its worker starts, or counts as never started at {iso_from_ms(latest.launch.start_by)}"
    if latest.is_stopping:
        return "its worker ends"
    since_ms, limit_ms = latest.started_at, policy.attempt_timeout_ms
    lasted = f" (at work for {_duration(around.now_ms - since_ms)})" if around.now_ms and since_ms else ""
    if limit_ms is None or since_ms is None:
        return f"its worker reports; there is no limit of time{lasted}"
    return f"its worker reports, or is stopped at {iso_from_ms(since_ms + limit_ms)}{lasted}"


def _duration(milliseconds: int) -> str:
    seconds = max(milliseconds, 0) // 1000
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


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
