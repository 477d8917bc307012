"""Bounded automatic retry: which failures are transient, when their retry is due, and what it tells its worker.

A retry is a durable schedule in the record's state, written by the very commit that ends the attempt, so that nobody
ever sees a transient failure without it: ``retry_scheduling`` is handed to the store, which adds it to its commits.
Begun in ``submission.promote`` once it is due, dropped in ``control`` and ``submission``. The manual retry is in
``retry``; both spend the same budget.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from executions.moment import FIRST_MS, LAST_MS, iso_from_ms, ms_from_iso
from executions.policy import Policy
from executions.ports import FollowUp, Snapshot
from executions.record import Attempt, Execution, Schedule, ScheduleOutcome, Status

TRANSIENT_FAMILY = "transient_upstream"
TRANSIENT_FAILURE = "transient_failure"
"""The reason of every automatic retry there is."""
CODEX_FALLBACK_MODES = ("same_session", "safer_invocation", "fresh_session", "fresh_session_safer_invocation")
"""How a Codex worker is to begin its first, second, … automatic retry."""
_PROVIDERS = ("codex", "claude")
_SECONDS = re.compile(r"\d{1,15}(\.\d*)?", re.ASCII)
_EARLIEST_TIMESTAMP_S = 1_000_000_000
_EARLIEST_TIMESTAMP_MS = 100_000_000_000


def retry_scheduling(policy: Policy, draw: Callable[[], float]) -> FollowUp:
    """The follow-up that a store adds to each commit. ``draw`` returns 0 to 1; 0.5 gives the ladder's exact delay."""

    def follow_up(seen: Snapshot, execution: Execution) -> Execution:
        return with_retry_scheduled(seen.execution, execution, now_ms=seen.now_ms, policy=policy, draw=draw)

    return follow_up


def with_retry_scheduled(
    before: Execution | None, after: Execution, *, now_ms: int, policy: Policy, draw: Callable[[], float]
) -> Execution:
    """``after``, with the retry scheduled of an attempt that fails transiently by this change.

    When no automatic retry is left that is noted instead (outcome ``exhausted``).
    """
    if before is None or not _fails(before, after) or not is_transient(after.latest, policy):
        return after
    latest, result = after.latest, after.latest.result
    if not latest.task_snapshot:
        return after  # There is nothing that another attempt could be given.
    made = sum(1 for item in after.attempts if item.automatic_retry is not None)
    schedule = Schedule(
        attempt=latest.number + 1,
        reason=TRANSIENT_FAILURE,
        automatic_retry=made + 1,
        limit=policy.automatic_retries,
        assignee=after.state.assignee,
    )
    if made >= policy.automatic_retries or not policy.may_retry(latest.number):
        exhausted = schedule.model_copy(update={"outcome": ScheduleOutcome.EXHAUSTED, "settled_at": now_ms})
        return after.with_state(schedule=exhausted)
    received_ms = now_ms if result is None or result.received_at is None else result.received_at
    not_before_ms = None if result is None else not_before_from(result.retry_not_before, received_ms)
    due_ms = max(now_ms + policy.retry_delay_ms(made, draw()), not_before_ms or 0)
    is_codex = provider_of(latest) == "codex"
    return after.with_state(
        schedule=schedule.model_copy(
            update={
                "due_at": due_ms,
                "not_before": not_before_ms,
                "fallback_mode": CODEX_FALLBACK_MODES[made] if is_codex else None,
            }
        )
    )


def settle_schedule(
    execution: Execution, outcome: ScheduleOutcome, *, now_ms: int, reason: str | None = None
) -> Execution:
    """Say what became of the automatic retry that was to come; without one nothing changes."""
    schedule = execution.waiting_schedule
    if schedule is None:
        return execution
    return execution.with_state(schedule=schedule.settled(outcome, now_ms=now_ms, reason=reason))


def is_transient(attempt: Attempt, policy: Policy) -> bool:
    """Whether a failed attempt is worth another one without anybody's asking."""
    family = attempt.result.error_family if attempt.result is not None else None
    return family == TRANSIENT_FAMILY or attempt.error_code in policy.auto_retry_codes


def provider_of(attempt: Attempt) -> str | None:
    """Who runs the agent: ``payload.agent.provider``, else what the error code begins with."""
    payload = (attempt.task_snapshot or {}).get("payload")
    agent = payload.get("agent") if isinstance(payload, dict) else None
    provider = agent.get("provider") if isinstance(agent, dict) else None
    if isinstance(provider, str) and provider:
        return provider.lower()
    prefix = (attempt.error_code or "").lower().partition("_")[0]
    return prefix if prefix in _PROVIDERS else None


def not_before_from(value: object, received_ms: int) -> int | None:
    """The time that an upstream error names, in milliseconds; None where it names none that can be understood.

    Upstream errors give an ISO time, a number of seconds from their receipt or an HTTP date (RFC 9110, Retry-After);
    a number too large for a wait is a Unix time in seconds or milliseconds.
    """
    try:
        at_ms = _not_before_ms(value, received_ms)
    except (TypeError, ValueError, OverflowError):
        return None
    return at_ms if at_ms is not None and FIRST_MS <= at_ms <= LAST_MS else None


def retry_hints(attempt: Attempt) -> dict[str, Any]:
    """What an automatic retry tells its worker; empty for any other attempt."""
    hints = {
        "codexTransientFallbackMode": attempt.codex_transient_fallback_mode,
        "transientRetryNotBefore": (
            None if attempt.transient_retry_not_before is None else iso_from_ms(attempt.transient_retry_not_before)
        ),
    }
    return {name: value for name, value in hints.items() if value is not None}


def message_for_worker(attempt: Attempt) -> dict[str, Any]:
    """The task message as the attempt's worker gets it: as received, with the hints of its retry in the payload."""
    snapshot = attempt.task_snapshot or {}
    hints = retry_hints(attempt)
    if not snapshot or not hints:
        return snapshot
    payload = snapshot.get("payload")
    return {**snapshot, "payload": {**(payload if isinstance(payload, dict) else {}), **hints}}


def _fails(before: Execution, after: Execution) -> bool:
    return (
        after.latest.status is Status.FAILED
        and before.latest.number == after.latest.number
        and not before.latest.status.is_finished
    )


def _not_before_ms(value: object, received_ms: int) -> int | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _ms_from_number(value, received_ms)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return _ms_from_number(float(text), received_ms)
    try:
        return ms_from_iso(text)
    except ValueError:
        return round(parsedate_to_datetime(text).timestamp() * 1000)


def _ms_from_number(number: float, received_ms: int) -> int | None:
    if number < 0:
        return None
    if number < _EARLIEST_TIMESTAMP_S:
        return received_ms + round(number * 1000)
    return round(number) if number >= _EARLIEST_TIMESTAMP_MS else round(number * 1000)
