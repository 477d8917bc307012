"""Cancel, done, assign, suspend."""

from __future__ import annotations

import pytest

from executions.answer import Decision, Reply
from executions.control import REASON_LIMIT, assign, cancel, mark_done, suspend
from executions.record import Execution, Status
from tests.support.builders import NOW_MS, intended, pending, running
from tests.unit.domain.states import by_hand, cancelled, cancelling, claimed_again, failed, scheduled, succeeded
from tests.unit.domain.test_retry import clicked


def stop(execution: Execution | None, reason: str = "not needed") -> Decision:
    return cancel(execution, "task-1", reason=reason, requested_by="jane", now_ms=NOW_MS + 5)


def accepted(decision: Decision) -> Execution:
    assert decision.answer.reply is Reply.ACCEPTED
    assert decision.execution is not None
    return decision.execution


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param(pending(), id="one that waits for its launch"),
        pytest.param(by_hand(Status.PENDING), id="one that waits, written by hand"),
        pytest.param(by_hand(Status.RUNNING), id="one that runs, written by hand without a worker"),
    ],
)
def test_without_a_worker_the_attempt_is_cancelled_at_once(execution: Execution) -> None:
    after = accepted(stop(execution))
    assert (after.latest.status, after.latest.finished_at) == (Status.CANCELLED, NOW_MS + 5)
    assert (after.latest.error_message, after.latest.error_code) == ("not needed", None)


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param(intended(), id="one whose launch is not answered"),
        pytest.param(running(), id="one that runs"),
        pytest.param(by_hand(worker_id="arn"), id="one that runs, written by hand with a worker"),
    ],
)
def test_with_a_worker_the_wish_is_recorded_and_the_worker_goes_first(execution: Execution) -> None:
    after = accepted(stop(execution, "r" * 2000))
    assert after.latest == execution.latest
    wish = after.state.cancellation
    assert wish is not None
    assert (wish.attempt, wish.requested_by, wish.requested_at) == (1, "jane", NOW_MS + 5)
    assert wish.reason == "r" * REASON_LIMIT


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param(succeeded(), id="after a success"),
        pytest.param(failed(), id="after a failure"),
        pytest.param(cancelled(), id="after a cancellation"),
        pytest.param(cancelling(running()), id="while the worker is being stopped"),
        pytest.param(scheduled(failed(), outcome="dropped"), id="after the retry was dropped"),
    ],
)
def test_there_is_nothing_to_cancel(execution: Execution) -> None:
    decision = stop(execution)
    assert decision.answer.reply is Reply.NOTHING_TO_DO
    assert decision.execution is execution


def test_the_first_wish_to_cancel_stands() -> None:
    first = accepted(stop(running(), "the first"))
    again = stop(first, "the second").execution
    assert again is not None
    assert again.state.cancellation == first.state.cancellation


def test_cancelling_drops_a_retry_that_has_not_begun() -> None:
    dropped = accepted(stop(scheduled(failed()))).state.schedule
    assert dropped is not None
    assert (dropped.outcome, dropped.reason) == ("dropped", "issue_cancelled")


def test_cancelling_a_retry_that_was_asked_for_is_remembered_for_its_message() -> None:
    stopped = accepted(stop(clicked(failed())))
    wish = stopped.state.cancellation
    assert stopped.state.retry is None
    assert wish is not None
    assert wish.attempt == 2
    assert stopped.attempts == failed().attempts
    assert clicked(stopped).state.cancellation is None


def test_cancelling_the_retry_once_it_has_begun_cancels_it() -> None:
    begun = claimed_again(clicked(failed()))
    stopped = accepted(stop(begun))
    assert (stopped.latest.number, stopped.latest.status) == (2, Status.CANCELLED)
    assert stopped.state.retry == begun.state.retry


def test_done_drops_the_schedule_and_leaves_a_live_worker_alone() -> None:
    after = accepted(mark_done(scheduled(failed()), "task-1", now_ms=NOW_MS))
    assert after.state.schedule is not None
    assert (after.state.schedule.outcome, after.state.schedule.reason) == ("dropped", "issue_done")
    alive = running()
    decision = mark_done(alive, "task-1", now_ms=NOW_MS)
    assert decision.answer.reply is Reply.NOTHING_TO_DO
    assert decision.execution is alive


def test_another_assignee_drops_the_schedule() -> None:
    after = accepted(assign(scheduled(failed(), assignee="jane"), "task-1", assignee="joe", now_ms=NOW_MS))
    assert after.state.assignee == "joe"
    assert after.state.schedule is not None
    assert (after.state.schedule.outcome, after.state.schedule.reason) == ("dropped", "issue_reassigned")


def test_the_same_assignee_changes_nothing() -> None:
    execution = scheduled(failed()).with_state(assignee="jane")
    decision = assign(execution, "task-1", assignee="jane", now_ms=NOW_MS)
    assert decision.answer.reply is Reply.NOTHING_TO_DO
    assert decision.execution is execution


def test_an_assignee_can_be_named_without_a_schedule_and_taken_away() -> None:
    named = accepted(assign(running(), "task-1", assignee="jane", now_ms=NOW_MS))
    assert named.state.assignee == "jane"
    assert accepted(assign(named, "task-1", assignee=None, now_ms=NOW_MS)).state.assignee is None


def test_an_unknown_task_is_not_found() -> None:
    for decision in (
        stop(None),
        mark_done(None, "task-1", now_ms=NOW_MS),
        assign(None, "task-1", assignee="jane", now_ms=NOW_MS),
    ):
        assert (decision.execution, decision.answer.reply) == (None, Reply.NOT_FOUND)


def test_suspending_holds_and_releases() -> None:
    execution = pending()
    held = suspend(execution, suspended=True)
    assert held.state.suspended
    assert suspend(held, suspended=True) is held
    assert not suspend(held, suspended=False).state.suspended
    assert suspend(execution, suspended=False) is execution
