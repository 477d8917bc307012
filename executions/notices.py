"""What is told about a custom resource as Kubernetes Events: only what is out of the ordinary.

A notice has a deterministic name, so that telling it again is refused by the API server and means that it was told.
Posting is ``controller/notifier.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alakai_worker.redaction import sanitised

from executions import names
from executions.conditions import Why, schedule_text, verdict_on, why_attempt
from executions.moment import iso_from_ms
from executions.policy import Policy
from executions.record import Attempt, Execution, Schedule, ScheduleOutcome, Status
from executions.resource import Observed

COMPONENT = "alakai-controller"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. ``key`` identifies it within its object and incarnation."""

    key: str
    why: Why
    is_warning: bool = True


def notices_from(execution: Execution, policy: Policy, *, since_attempt: int) -> tuple[Notice, ...]:
    """What is to be told of the attempts from ``since_attempt`` on, those before were told."""
    told = [item for item in execution.attempts if item.number >= since_attempt]
    found = [notice for attempt in told for notice in _of_attempt(attempt)]
    latest, schedule = execution.latest, execution.state.schedule
    if schedule is not None and schedule.attempt == latest.number + 1 and latest.status is Status.FAILED:
        found.append(_of_schedule(schedule))
    elif latest.status is Status.FAILED and not policy.may_retry(latest.number):
        message = f"attempt {latest.number} failed and no retry is left (MAX_RETRIES is {policy.max_retries})"
        found.append(Notice(f"{latest.number}/exhausted", Why("RetryBudgetExhausted", message)))
    return tuple(found)


def _of_schedule(schedule: Schedule) -> Notice:
    match schedule.outcome:
        case None:
            why = Why("RetryScheduled", schedule_text(schedule))
            return Notice(f"{schedule.attempt}/scheduled", why, is_warning=False)
        case ScheduleOutcome.EXHAUSTED:
            message = (
                f"Bounded retry exhausted: {schedule.reason} at attempt {schedule.attempt - 1}, and "
                f"{schedule.automatic_retry - 1} of at most {schedule.limit} automatic retries were made"
            )
            return Notice(f"{schedule.attempt - 1}/exhausted", Why("BoundedRetryExhausted", message))
    message = f"the automatic retry, attempt {schedule.attempt}, is {schedule.outcome}: {schedule.reason}"
    return Notice(f"{schedule.attempt}/{schedule.outcome}", Why("RetryDropped", message), is_warning=False)


def _of_attempt(attempt: Attempt) -> Iterator[Notice]:
    failed_tries = attempt.launch_tries - (1 if attempt.launch is not None or attempt.status.is_finished else 0)
    if failed_tries > 0:
        verdict = verdict_on(attempt, failed_tries)
        seen = verdict.message if verdict else attempt.evidence[-1].detail if attempt.evidence else "it gave no worker"
        message = f"launch {failed_tries} of attempt {attempt.number} is repeated: {seen}"
        yield Notice(f"{attempt.number}/relaunched/{failed_tries}", Why("WorkerRelaunched", message))
    if attempt.status is Status.PENDING and attempt.waiting is not None and attempt.waiting.reason == "BreakerOpen":
        yield Notice(f"{attempt.number}/breaker", Why("BreakerOpen", attempt.waiting.message))
    if attempt.status is Status.FAILED:
        why = why_attempt(attempt)
        yield Notice(f"{attempt.number}/ended", Why(why.reason, f"attempt {attempt.number} failed: {why.message}"))
    if attempt.status is Status.CANCELLED:
        why = why_attempt(attempt)
        message = f"attempt {attempt.number} was cancelled: {why.message}"
        yield Notice(f"{attempt.number}/ended", Why(why.reason, message), is_warning=False)
    if attempt.late_results and attempt.verdict is not None:
        ended = "success" if attempt.late_results[-1].succeeded else "failure"
        message = (
            f"the worker of attempt {attempt.number}, judged as {attempt.verdict.code}, reported {ended} after all"
        )
        yield Notice(f"{attempt.number}/late", Why("VerdictRefuted", f"{message}; nothing changes"))


def event_from_notice(notice: Notice, observed: Observed, *, namespace: str, now_ms: int) -> dict[str, Any]:
    """The core/v1 Event that tells a notice."""
    identity = "\0".join((observed.uid, observed.incarnation or observed.made_by or "", notice.key))
    suffix = hashlib.sha256(identity.encode()).hexdigest()[:16]
    at = iso_from_ms(now_ms)[:19] + "Z"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{observed.name}.{suffix}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": f"{names.GROUP}/{names.VERSION}",
            "kind": names.KIND,
            "name": observed.name,
            "namespace": namespace,
            "uid": observed.uid,
        },
        "type": "Warning" if notice.is_warning else "Normal",
        "reason": notice.why.reason,
        "message": sanitised(notice.why.message),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
