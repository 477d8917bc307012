"""Manual retry: the mark, the double click, the refusals, the message."""

from __future__ import annotations

import pytest

from executions.answer import Decision, Reply
from executions.policy import Policy
from executions.record import Execution, RetryRequest, Status
from executions.retry import (
    DOUBLE_CLICK_MS,
    request_retry,
    retry_is_due,
    retry_message,
    retry_refusal,
    retry_resent,
    withdraw_retry,
)
from tests.support.builders import NOW_MS, POLICY, pending, running, task_document
from tests.unit.domain.states import (
    at_work,
    by_hand,
    cancelled,
    claimed_again,
    failed,
    reported,
    scheduled,
    succeeded,
)


def click(execution: Execution | None, *, at_ms: int = NOW_MS, policy: Policy = POLICY) -> Decision:
    return request_retry(execution, "task-1", requested_by="jane", now_ms=at_ms, policy=policy)


def clicked(execution: Execution, *, at_ms: int = NOW_MS, policy: Policy = POLICY) -> Execution:
    decision = click(execution, at_ms=at_ms, policy=policy)
    assert decision.answer.reply is Reply.QUEUED
    assert decision.execution is not None
    return decision.execution


def mark_of(execution: Execution | None) -> RetryRequest:
    assert execution is not None
    assert execution.state.retry is not None
    return execution.state.retry


def test_the_first_click_marks_the_retry_and_is_the_one_to_send_it() -> None:
    decision = click(failed())
    assert (decision.answer.reply, decision.answer.detail) == (Reply.QUEUED, "send")
    assert (decision.answer.attempt, decision.answer.status) == (2, "queued")
    mark = mark_of(decision.execution)
    assert (mark.attempt, mark.requested_by, mark.requested_at, mark.joined) == (2, "jane", NOW_MS, False)
    assert mark.resend_at == NOW_MS + POLICY.retry_redeliver_ms
    assert decision.execution is not None
    assert decision.execution.attempts == failed().attempts


def test_every_further_click_gets_the_same_answer_and_sends_nothing() -> None:
    second = click(clicked(failed()), at_ms=NOW_MS + 1)
    assert (second.answer.reply, second.answer.attempt, second.answer.status) == (Reply.QUEUED, 2, "queued")
    assert second.answer.detail is None
    assert mark_of(second.execution).joined
    assert second.execution is not None
    third = click(second.execution, at_ms=NOW_MS + 2)
    assert third.answer == second.answer
    assert third.execution is second.execution


def test_a_click_joins_an_unclaimed_mark_however_old_it_is() -> None:
    decision = click(clicked(failed()), at_ms=NOW_MS + 86_400_000)
    assert (decision.answer.reply, decision.answer.detail) == (Reply.QUEUED, None)


@pytest.mark.parametrize(
    ("after_ms", "reply"),
    [
        pytest.param(0, Reply.QUEUED, id="at once"),
        pytest.param(DOUBLE_CLICK_MS, Reply.QUEUED, id="within ten seconds"),
        pytest.param(DOUBLE_CLICK_MS + 1, Reply.NOT_FAILED, id="later its own state answers"),
    ],
)
def test_a_click_on_the_attempt_that_just_began(after_ms: int, reply: Reply) -> None:
    for execution in (claimed_again(clicked(failed())), at_work(claimed_again(clicked(failed())))):
        decision = click(execution, at_ms=NOW_MS + after_ms)
        assert (decision.answer.reply, decision.answer.detail) == (reply, None)
        assert decision.execution is execution


@pytest.mark.parametrize(
    ("succeeds", "policy", "reply"),
    [
        pytest.param(True, POLICY, Reply.NOT_FAILED, id="a success cannot be retried"),
        pytest.param(False, POLICY, Reply.BUDGET_EXHAUSTED, id="a failure at the end of the budget neither"),
        pytest.param(False, Policy(max_retries=2), Reply.QUEUED, id="a failure within the budget can"),
    ],
)
def test_once_the_asked_for_attempt_is_finished_its_own_state_answers(
    succeeds: bool, policy: Policy, reply: Reply
) -> None:
    execution = reported(at_work(claimed_again(clicked(failed()))), succeeded=succeeds)
    decision = click(execution, at_ms=NOW_MS + 1, policy=policy)
    assert decision.answer.reply is reply
    if reply is Reply.QUEUED:
        assert (decision.answer.attempt, decision.answer.detail) == (3, "send")
        assert mark_of(decision.execution).attempt == 3


@pytest.mark.parametrize(
    ("execution", "reply", "status"),
    [
        pytest.param(None, Reply.NOT_FOUND, None, id="an unknown task"),
        pytest.param(pending(), Reply.NOT_FAILED, "pending", id="one that waits"),
        pytest.param(running(), Reply.NOT_FAILED, "running", id="one that runs"),
        pytest.param(succeeded(), Reply.NOT_FAILED, "succeeded", id="one that succeeded"),
        pytest.param(cancelled(), Reply.NOT_FAILED, "cancelled", id="one that was cancelled"),
        pytest.param(failed(attempts=2), Reply.BUDGET_EXHAUSTED, "failed", id="one whose budget is spent"),
        pytest.param(by_hand(Status.FAILED), Reply.PAYLOAD_LOST, "failed", id="one without its message"),
        pytest.param(
            by_hand(Status.FAILED, task_snapshot={}), Reply.PAYLOAD_LOST, "failed", id="one with an empty message"
        ),
    ],
)
def test_a_retry_is_refused(execution: Execution | None, reply: Reply, status: str | None) -> None:
    decision = click(execution)
    assert (decision.answer.reply, decision.answer.status) == (reply, status)
    assert decision.execution is execution


def test_a_manual_retry_does_not_wait_for_a_scheduled_one() -> None:
    assert click(scheduled(failed())).answer.reply is Reply.QUEUED


@pytest.mark.parametrize(
    ("attempts", "max_retries", "refusal"),
    [
        pytest.param(1, 0, Reply.BUDGET_EXHAUSTED, id="no budget"),
        pytest.param(1, 1, None, id="attempt 1 of budget 1"),
        pytest.param(2, 1, Reply.BUDGET_EXHAUSTED, id="attempt 2 of budget 1"),
        pytest.param(3, 3, None, id="attempt 3 of budget 3"),
        pytest.param(4, 3, Reply.BUDGET_EXHAUSTED, id="attempt 4 of budget 3"),
    ],
)
def test_the_budget(attempts: int, max_retries: int, refusal: Reply | None) -> None:
    assert retry_refusal(failed(attempts=attempts), Policy(max_retries=max_retries)) is refusal


def test_a_mark_is_taken_back_after_a_send_that_failed() -> None:
    assert withdraw_retry(clicked(failed()), 2).state.retry is None


@pytest.mark.parametrize(
    ("execution", "attempt"),
    [
        pytest.param(failed(), 2, id="when there is none"),
        pytest.param(clicked(failed()), 3, id="for another attempt"),
        pytest.param(clicked(clicked(failed())), 2, id="when another click relies on it"),
        pytest.param(claimed_again(clicked(failed())), 2, id="once it was claimed"),
    ],
)
def test_a_mark_stays(execution: Execution, attempt: int) -> None:
    assert withdraw_retry(execution, attempt) is execution


@pytest.mark.parametrize(
    ("execution", "after_ms", "due"),
    [
        pytest.param(failed(), 10**9, False, id="never without a mark"),
        pytest.param(clicked(failed()), POLICY.retry_redeliver_ms - 1, False, id="not a millisecond early"),
        pytest.param(clicked(failed()), POLICY.retry_redeliver_ms, True, id="at its time"),
        pytest.param(claimed_again(clicked(failed())), 10**9, False, id="not once it was claimed"),
    ],
)
def test_when_a_mark_is_sent_again(execution: Execution, after_ms: int, due: bool) -> None:
    assert retry_is_due(execution, NOW_MS + after_ms) is due


def test_the_next_time_is_set_before_the_message_is_sent_again() -> None:
    after = retry_resent(clicked(failed()), now_ms=NOW_MS + 100_000, policy=POLICY)
    assert mark_of(after).resend_at == NOW_MS + 100_000 + POLICY.retry_redeliver_ms
    assert not retry_is_due(after, NOW_MS + 100_000)
    untouched = failed()
    assert retry_resent(untouched, now_ms=NOW_MS, policy=POLICY) is untouched


def test_the_message_is_the_stored_one_with_the_next_attempt() -> None:
    assert retry_message(failed()) == task_document(attempt=2)
    assert retry_message(failed(attempts=2)) == task_document(attempt=3)
    assert retry_message(by_hand(Status.FAILED)) is None
    foreign = by_hand(Status.FAILED, task_snapshot={"taskId": "another", "taskType": "x", "attempt": 9})
    assert retry_message(foreign) == {"taskId": "task-1", "taskType": "x", "attempt": 2}
