"""Which failures are retried by themselves, when, and what the retry tells its worker."""

from __future__ import annotations

from typing import Any

import pytest

from executions.automatic_retry import (
    CODEX_FALLBACK_MODES,
    message_for_worker,
    not_before_from,
    provider_of,
    retry_hints,
    settle_schedule,
    with_retry_scheduled,
)
from executions.lifecycle import ended
from executions.policy import Policy
from executions.record import Attempt, Execution, ScheduleOutcome, Status
from executions.submission import promote
from tests.support.builders import NOW_MS, pending, running, task_document
from tests.unit.domain.states import at_work, by_hand, cancelling, claimed_again, failed, reported, scheduled

POLICY = Policy(max_retries=99)
MINUTE_MS = 60_000
TRANSIENT = {"errorFamily": "transient_upstream"}
CODEX = {"error": {"message": "overloaded", "code": "codex_transient_upstream"}}
CLAUDE = {"error": {"message": "overloaded", "code": "claude_transient_upstream"}}


def failing(execution: Execution, *, policy: Policy = POLICY, drawn: float = 0.5, **fields: Any) -> Execution:
    """The live latest attempt, failed by its worker's report."""
    after = reported(execution, now_ms=NOW_MS, **fields)
    return with_retry_scheduled(execution, after, now_ms=NOW_MS, policy=policy, draw=lambda: drawn)


def again(execution: Execution, *, policy: Policy = POLICY, **fields: Any) -> Execution:
    """Its automatic retry, promoted, at work and failed in the same way."""
    schedule = execution.waiting_schedule
    assert schedule is not None
    assert schedule.due_at is not None
    return failing(
        at_work(promote(execution, now_ms=schedule.due_at, policy=policy, launcher="local")), policy=policy, **fields
    )


def due_after_ms(execution: Execution) -> int:
    schedule = execution.waiting_schedule
    assert schedule is not None
    assert schedule.due_at is not None
    return schedule.due_at - NOW_MS


# Which failures


@pytest.mark.parametrize(
    ("fields", "is_retried"),
    [
        pytest.param(TRANSIENT, True, id="the family says so"),
        pytest.param({"result": {"status": "error", **TRANSIENT}}, True, id="the family within the result"),
        pytest.param(CODEX, True, id="a code of Codex"),
        pytest.param(CLAUDE, True, id="a code of Claude"),
        pytest.param({}, False, id="any other code"),
        pytest.param({"errorFamily": "permanent"}, False, id="another family"),
        pytest.param(
            {"error": {"message": "lost", "code": "WORKER_LOST"}}, False, id="a lost worker waits for a person"
        ),
    ],
)
def test_which_failures_are_retried(fields: dict[str, Any], is_retried: bool) -> None:
    assert (failing(running(), **fields).waiting_schedule is not None) is is_retried


def test_a_code_can_be_made_transient() -> None:
    policy = Policy(max_retries=4, auto_retry_codes=frozenset({"WORKER_LOST"}))
    before = running()
    after = ended(before, 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="gone")
    found = with_retry_scheduled(before, after, now_ms=NOW_MS, policy=policy, draw=lambda: 0.5)
    assert due_after_ms(found) == 2 * MINUTE_MS
    assert failing(running(), policy=policy, **CODEX).waiting_schedule is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(None, failed(), id="a record that others wrote"),
        pytest.param(failed(), failed().with_state(assignee="jane"), id="one that had failed before"),
        pytest.param(running(), reported(running(), succeeded=True), id="a success"),
        pytest.param(cancelling(running()), reported(cancelling(running()), **TRANSIENT), id="a cancelled one"),
        pytest.param(by_hand(), reported(by_hand(), **TRANSIENT), id="one whose payload is lost"),
    ],
)
def test_nothing_else_is(before: Execution | None, after: Execution) -> None:
    assert with_retry_scheduled(before, after, now_ms=NOW_MS, policy=POLICY, draw=lambda: 0.5) is after


# When


@pytest.mark.parametrize(("made", "minutes"), [(0, 2), (1, 10), (2, 30), (3, 120)])
def test_the_ladder(made: int, minutes: int) -> None:
    execution = failing(running(), **TRANSIENT)
    for _ in range(made):
        execution = again(execution, **TRANSIENT)
    assert due_after_ms(execution) == minutes * MINUTE_MS


@pytest.mark.parametrize(("drawn", "factor"), [(0.0, 0.75), (0.25, 0.875), (0.5, 1.0), (1.0, 1.25)])
def test_the_jitter(drawn: float, factor: float) -> None:
    assert due_after_ms(failing(running(), drawn=drawn, **TRANSIENT)) == 2 * MINUTE_MS * factor


def test_the_ladder_and_the_jitter_can_be_set() -> None:
    policy = Policy(max_retries=9, retry_delays_ms=(1500,), retry_jitter=0.0)
    first = failing(running(), policy=policy, drawn=0.9, **TRANSIENT)
    assert due_after_ms(first) == 1500
    second = again(first, policy=policy, **TRANSIENT).state.schedule
    assert second is not None
    assert (second.outcome, second.limit) == ("exhausted", 1)


@pytest.mark.parametrize(
    ("value", "expected_ms"),
    [
        ("2023-11-14T23:13:20Z", NOW_MS + 60 * MINUTE_MS),
        ("2023-11-15T00:13:20+01:00", NOW_MS + 60 * MINUTE_MS),
        ("2023-11-14T23:13:20", NOW_MS + 60 * MINUTE_MS),
        ("Tue, 14 Nov 2023 23:13:20 GMT", NOW_MS + 60 * MINUTE_MS),
        ("  90 ", NOW_MS + 90_000),
        ("1.5", NOW_MS + 1_500),
        (90, NOW_MS + 90_000),
        (0.25, NOW_MS + 250),
        (0, NOW_MS),
        (1_700_003_600, NOW_MS + 60 * MINUTE_MS),
        ("1700003600", NOW_MS + 60 * MINUTE_MS),
        (1_700_003_600_000, NOW_MS + 60 * MINUTE_MS),
        (None, None),
        (True, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        (-5, None),
        (float("inf"), None),
        (float("nan"), None),
        (10**30, None),
        ("9" * 15, None),
        (["90"], None),
        ("Tue, 99 Nov 2023 23:13:20 GMT", None),
    ],
)
def test_what_upstream_errors_name_as_the_earliest_time(value: object, expected_ms: int | None) -> None:
    assert not_before_from(value, NOW_MS) == expected_ms


@pytest.mark.parametrize(("seconds", "due_ms"), [(60, 2 * MINUTE_MS), (7_200, 120 * MINUTE_MS)])
def test_the_later_one_of_delay_and_earliest_time_wins(seconds: int, due_ms: int) -> None:
    execution = failing(running(), retryNotBefore=seconds, **TRANSIENT)
    assert due_after_ms(execution) == due_ms
    schedule = execution.waiting_schedule
    assert schedule is not None
    assert schedule.not_before == NOW_MS + seconds * 1000


def test_seconds_count_from_the_receipt_of_an_outcome_that_was_kept() -> None:
    before = running(now_ms=NOW_MS - 3_600_000)
    after = reported(before, now_ms=NOW_MS - 600_000, retryNotBefore=900, **TRANSIENT)
    found = with_retry_scheduled(before, after, now_ms=NOW_MS, policy=POLICY, draw=lambda: 0.5)
    assert due_after_ms(found) == 300_000


# How many


@pytest.mark.parametrize(
    ("max_retries", "automatic"),
    [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4)],
)
def test_there_are_as_many_as_the_budget_allows_and_at_most_four(max_retries: int, automatic: int) -> None:
    policy = Policy(max_retries=max_retries)
    execution = failing(running(), policy=policy, **TRANSIENT)
    for _ in range(automatic):
        execution = again(execution, policy=policy, **TRANSIENT)
    schedule = execution.state.schedule
    assert execution.latest.number == automatic + 1
    assert schedule is not None
    assert (schedule.outcome, schedule.limit, schedule.automatic_retry) == ("exhausted", automatic, automatic + 1)
    assert (schedule.due_at, schedule.settled_at) == (None, NOW_MS)
    assert execution.waiting_schedule is None


def test_manual_retries_spend_the_same_budget() -> None:
    policy = Policy(max_retries=1)
    schedule = failing(at_work(claimed_again(failed())), policy=policy, **TRANSIENT).state.schedule
    assert schedule is not None
    assert (schedule.outcome, schedule.limit, schedule.automatic_retry) == ("exhausted", 1, 1)


def test_manual_retries_use_up_no_step_of_the_ladder() -> None:
    execution = failing(at_work(claimed_again(failed())), **TRANSIENT)
    assert due_after_ms(execution) == 2 * MINUTE_MS


# What it tells


@pytest.mark.parametrize(
    ("payload", "code", "provider"),
    [
        ({"agent": {"provider": "codex"}}, "E1", "codex"),
        ({"agent": {"provider": "Claude"}}, "codex_transient_upstream", "claude"),
        ({"agent": {"provider": "gemini"}}, "codex_transient_upstream", "gemini"),
        ({}, "codex_transient_upstream", "codex"),
        ({"agent": "codex"}, "claude_transient_upstream", "claude"),
        ({"agent": {"provider": 7}}, "E1", None),
        ({}, None, None),
        ({}, "WORKER_LOST", None),
    ],
)
def test_who_runs_the_agent(payload: dict[str, Any], code: str | None, provider: str | None) -> None:
    attempt = Attempt(
        task_id="t", number=1, status=Status.FAILED, error_code=code, task_snapshot=task_document(payload=payload)
    )
    assert provider_of(attempt) == provider


def test_codex_is_told_to_begin_more_carefully_each_time_and_claude_is_not() -> None:
    for fields, modes in ((CODEX, CODEX_FALLBACK_MODES), (CLAUDE, (None,) * 4), (TRANSIENT, (None,) * 4)):
        execution = failing(running(), **fields)
        for number, mode in enumerate(modes, start=1):
            schedule = execution.waiting_schedule
            assert schedule is not None
            assert (schedule.automatic_retry, schedule.fallback_mode) == (number, mode)
            execution = again(execution, **fields)
            assert execution.latest.codex_transient_fallback_mode == mode
            assert execution.latest.automatic_retry == number


def test_the_worker_gets_the_hints_and_the_snapshot_stays_as_it_was_received() -> None:
    waiting = failing(running(), retryNotBefore=7_200, **CODEX)
    schedule = waiting.waiting_schedule
    assert schedule is not None
    assert schedule.due_at is not None
    latest = promote(waiting, now_ms=schedule.due_at, policy=POLICY, launcher="local").latest
    hints = {"codexTransientFallbackMode": "same_session", "transientRetryNotBefore": "2023-11-15T00:13:20.000Z"}
    assert retry_hints(latest) == hints
    assert latest.task_snapshot == task_document(attempt=2)
    assert message_for_worker(latest) == {
        **task_document(attempt=2),
        "payload": {**task_document()["payload"], **hints},
    }
    first = running().latest
    assert retry_hints(first) == {}
    assert message_for_worker(first) == task_document()


# Promotion


def test_nothing_is_promoted_a_moment_too_early_and_what_is_due_once() -> None:
    waiting = failing(running(), **CODEX)
    due_ms = NOW_MS + 2 * MINUTE_MS
    assert promote(waiting, now_ms=due_ms - 1, policy=POLICY, launcher="ecs") is waiting
    promoted = promote(waiting, now_ms=due_ms, policy=POLICY, launcher="ecs")
    latest, schedule = promoted.latest, promoted.state.schedule
    assert (latest.number, latest.run, latest.status, latest.launcher) == (2, 2, Status.PENDING, "ecs")
    assert schedule is not None
    assert (schedule.outcome, schedule.settled_at) == ("promoted", due_ms)
    assert promote(promoted, now_ms=due_ms, policy=POLICY, launcher="ecs") is promoted


@pytest.mark.parametrize(
    ("policy", "snapshot", "reason"),
    [
        (Policy(max_retries=0), task_document(), "budget_exhausted"),
        (POLICY, {"taskType": "implementation", "payload": "text"}, "payload_invalid"),
    ],
)
def test_what_cannot_begin_any_more_is_dropped(policy: Policy, snapshot: dict[str, Any], reason: str) -> None:
    waiting = failing(running(), **CODEX).with_latest(task_snapshot=snapshot)
    found = promote(waiting, now_ms=NOW_MS + 2 * MINUTE_MS, policy=policy, launcher="ecs")
    assert found.latest.number == 1
    assert found.state.schedule is not None
    assert (found.state.schedule.outcome, found.state.schedule.reason) == ("dropped", reason)


def test_a_late_success_drops_what_has_not_begun() -> None:
    waiting = failing(running(), **CODEX)
    after = reported(waiting, succeeded=True, now_ms=NOW_MS + 5)
    assert after.latest == waiting.latest
    assert after.state.schedule is not None
    assert (after.state.schedule.outcome, after.state.schedule.reason) == ("dropped", "late_success")
    assert reported(waiting, now_ms=NOW_MS + 5).state.schedule == waiting.state.schedule


def test_what_has_its_outcome_keeps_it() -> None:
    waiting = scheduled(failed())
    settled = settle_schedule(waiting, ScheduleOutcome.DROPPED, now_ms=NOW_MS, reason="issue_cancelled")
    assert settle_schedule(settled, ScheduleOutcome.PROMOTED, now_ms=NOW_MS + 1) is settled
    assert settle_schedule(pending(), ScheduleOutcome.DROPPED, now_ms=NOW_MS) == pending()


def test_the_assignee_is_the_one_of_the_time() -> None:
    execution = failing(running().with_state(assignee="jane"), **CODEX)
    assert execution.waiting_schedule is not None
    assert execution.waiting_schedule.assignee == "jane"
