"""One execution in full, as the dashboard shows it: the same truth as the resource's status and ``alakai explain``;
and the installation at a glance.

Made of the record alone. Never tells the payload, a launch request or a token, and no other task's name: whoever may
see this execution need not be one who may see those that it waits for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alakai_worker.redaction import sanitised

from executions import control, names, retry
from executions.admission import Breaker, Hold, Standing
from executions.answer import Reply
from executions.explanation import Surroundings, doubts, next_step, obstacles
from executions.moment import iso_from_ms
from executions.policy import Policy
from executions.ports import Snapshot
from executions.record import Attempt, Execution
from executions.resource import attempt_status, status_from_execution
from executions.rows import actor_shown
from executions.tracking import execution_id_of, followed

ATTEMPTS_SHOWN = 100
LATE_RESULTS_SHOWN = 16
_NOT_FOR_OTHERS = "held by"


def view(snapshot: Snapshot, execution: Execution, policy: Policy, around: Surroundings) -> dict[str, Any]:
    """All of it; ``around`` says what it waits for, and what time it is."""
    status = status_from_execution(execution, policy, observed_generation=0, unknown_ms=0)
    told, latest = followed(execution), execution.latest
    said = ("phase", "reason", "message", "attempt", "run", "launcher", "workerId", "traceId")
    times = ("startTime", "finishTime", "nextRetryTime", "schedule")
    return {
        "taskId": execution.task_id,
        "executionId": execution_id_of(execution),
        "resourceName": names.resource_name(execution.task_id),
        "taskType": latest.task_type,
        **{name: told[name] for name in ("taskName", "flow", "project", "prLinks", "status")},
        "actor": actor_shown(told["actor"]),
        **{name: status[name] for name in (*said, *times)},
        "next": next_step(execution, policy, around),
        "obstacles": [
            {"what": what.strip(), "text": text}
            for what, text in (*obstacles(execution, policy, around), *doubts(execution, policy))
            if what != _NOT_FOR_OTHERS
        ],
        "assignee": execution.state.assignee,
        "retriesLeft": max(policy.max_retries + 1 - latest.number, 0),
        **_possible(snapshot, execution, policy),
        "attempts": [_attempt(item) for item in execution.attempts[-ATTEMPTS_SHOWN:]],
    }


def overview_shown(
    now_ms: int, hold: Hold | None, breakers: Sequence[Breaker], standing: Standing, policy: Policy
) -> dict[str, Any]:
    """What holds for the whole installation: figures only, because whoever reads them may see no other's tasks."""
    slots, live, waiting = policy.slots, standing.live, standing.waiting
    types = sorted({*slots.per_type, *live, *waiting})
    return {
        "now": iso_from_ms(now_ms),
        "hold": {"by": hold.by, "reason": hold.reason, "since": iso_from_ms(hold.since_ms)} if hold else None,
        "breakers": [
            {
                "launcher": item.launcher,
                "taskType": item.task_type,
                "code": item.code,
                "openedAt": iso_from_ms(item.opened_ms),
                "probeAt": iso_from_ms(item.probe_at_ms),
            }
            for item in breakers
        ],
        "slots": {"limit": slots.total, "live": sum(live.values()), "waiting": sum(waiting.values())},
        "types": [
            {
                "taskType": name,
                "limit": slots.per_type.get(name),
                "live": live.get(name, 0),
                "waiting": waiting.get(name, 0),
            }
            for name in types
        ],
        "maxRetries": policy.max_retries,
    }


def _possible(snapshot: Snapshot, execution: Execution, policy: Policy) -> Mapping[str, Any]:
    """What a click would do right now, by the rules that decide on clicks."""
    now_ms, task_id = snapshot.now_ms, execution.task_id
    asked = retry.request_retry(execution, task_id, requested_by="", now_ms=now_ms, policy=policy).answer.reply
    ended = control.cancel(execution, task_id, reason="", requested_by="", now_ms=now_ms).answer.reply
    return {
        "canRetry": asked is Reply.QUEUED,
        "retryRefusal": None if asked is Reply.QUEUED else asked.value,
        "canCancel": ended is Reply.ACCEPTED,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        **attempt_status(attempt),
        "status": attempt.status.value,
        "errorMessage": sanitised(attempt.error_message) if attempt.error_message else None,
        "lateResults": [
            {
                "status": "success" if late.succeeded else "failure",
                "receivedAt": iso_from_ms(late.received_at),
                "message": sanitised(late.message) if late.message else None,
                "pullRequestUrl": late.pull_request_url,
            }
            for late in attempt.late_results[-LATE_RESULTS_SHOWN:]
        ],
    }
