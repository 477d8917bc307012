"""Which message or resource starts which attempt."""

from __future__ import annotations

from typing import Any

import pytest

from executions import submission
from executions.answer import Decision, Reply
from executions.control import cancel
from executions.lifecycle import launch_failed
from executions.policy import Policy
from executions.record import Execution, Status
from executions.submission import dispatch, submit
from tests.support.builders import NOW_MS, POLICY, a_task, intended, pending, running, task_document
from tests.unit.domain.states import at_work, by_hand, cancelled, cancelling, failed, scheduled, succeeded
from tests.unit.domain.test_retry import clicked


def submitted(execution: Execution | None, *, policy: Policy = POLICY, **fields: Any) -> Decision:
    return submit(
        execution, a_task(**fields), now_ms=NOW_MS + 5, policy=policy, launcher="ecs", incarnation="incarnation-2"
    )


def dispatched(execution: Execution | None, *, policy: Policy = POLICY, **fields: Any) -> Decision:
    return dispatch(
        execution, a_task(**fields), now_ms=NOW_MS + 5, policy=policy, launcher="ecs", incarnation="incarnation-2"
    )


def claimed(decision: Decision) -> Execution:
    assert decision.answer.reply is Reply.CLAIMED
    assert decision.execution is not None
    return decision.execution


def test_an_unknown_task_begins_with_attempt_1_and_run_1() -> None:
    execution = claimed(submitted(None, metadata={"assignee": "jane"}))
    attempt = execution.latest
    assert (attempt.number, attempt.run, attempt.status) == (1, 1, Status.PENDING)
    assert (attempt.launcher, attempt.claimed_at, attempt.launch) == ("ecs", NOW_MS + 5, None)
    assert attempt.task_snapshot == task_document(metadata={"assignee": "jane"})
    assert (execution.state.incarnation, attempt.incarnation) == ("incarnation-2", "incarnation-2")
    assert (execution.state.assignee, execution.state.sequence) == ("jane", 0)


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param(pending(), id="one that waits"),
        pytest.param(intended(), id="one that is being launched"),
        pytest.param(running(), id="one that runs"),
        pytest.param(succeeded(), id="one that succeeded"),
        pytest.param(cancelled(), id="one that was cancelled"),
        pytest.param(cancelling(running()), id="one that is being stopped"),
    ],
)
def test_a_submit_leaves_alone(execution: Execution) -> None:
    decision = submitted(execution)
    assert decision.execution is execution
    assert decision.answer.reply is Reply.NOTHING_TO_DO
    assert (decision.answer.attempt, decision.answer.status) == (1, execution.latest.status)


def test_a_failed_task_is_executed_again_and_its_run_counter_rises() -> None:
    execution = claimed(submitted(failed()))
    assert [item.number for item in execution.attempts] == [1, 2]
    assert [item.run for item in execution.attempts] == [1, 2]
    assert [item.status for item in execution.attempts] == [Status.FAILED, Status.PENDING]
    assert execution.state.incarnation == "incarnation-1"


def test_the_run_counter_rises_again_after_another_failure() -> None:
    assert claimed(submitted(failed(attempts=2), policy=Policy(max_retries=2))).latest.run == 3


def test_the_run_counter_does_not_rise_when_a_worker_that_never_started_is_launched_again() -> None:
    again = at_work(
        launch_failed(running(), 1, 1, code="X", message="x", permanent=False, now_ms=NOW_MS, policy=POLICY)
    )
    assert (again.latest.launch_tries, again.latest.run, again.latest.number) == (2, 1, 1)


def test_a_submit_over_the_budget_is_refused() -> None:
    execution = failed(attempts=2)
    decision = submitted(execution)
    assert decision.execution is execution
    assert decision.answer.reply is Reply.BUDGET_EXHAUSTED


@pytest.mark.parametrize(
    ("execution", "assignee", "reply"),
    [
        pytest.param(scheduled(failed()), None, Reply.NOTHING_TO_DO, id="a retry scheduled for nobody, and nobody"),
        pytest.param(
            scheduled(failed(), assignee="jane"), "jane", Reply.NOTHING_TO_DO, id="a retry scheduled for the same"
        ),
        pytest.param(scheduled(failed(), assignee="jane"), "joe", Reply.CLAIMED, id="somebody else does not wait"),
        pytest.param(scheduled(failed(), outcome="dropped"), None, Reply.CLAIMED, id="a dropped one holds nothing"),
    ],
)
def test_a_submit_beside_a_scheduled_retry(execution: Execution, assignee: str | None, reply: Reply) -> None:
    decision = submitted(execution, metadata={"assignee": assignee})
    assert decision.answer.reply is reply
    assert (decision.execution is execution) == (reply is Reply.NOTHING_TO_DO)


def test_a_claim_for_somebody_else_drops_a_schedule_that_waits_and_no_other() -> None:
    waiting = claimed(submitted(scheduled(failed(), assignee="jane"), metadata={"assignee": "joe"})).state.schedule
    settled = claimed(submitted(scheduled(failed(), outcome="dropped"))).state.schedule
    assert waiting is not None
    assert settled is not None
    assert (waiting.outcome, waiting.reason, waiting.settled_at) == ("dropped", "issue_reassigned", NOW_MS + 5)
    assert (settled.outcome, settled.reason) == ("dropped", "E1")


def test_a_message_with_the_next_attempt_supersedes_a_schedule_that_waits() -> None:
    schedule = claimed(dispatched(scheduled(failed(), assignee="jane"), attempt=2)).state.schedule
    assert schedule is not None
    assert schedule.outcome == "superseded"


def test_a_claim_takes_the_new_message_and_keeps_trace_and_assignee() -> None:
    first = failed().with_state(assignee="jane")
    execution = claimed(submitted(first, payload={"prompt": "other"}, metadata={"trace_id": "other-trace"}))
    assert execution.latest.task_snapshot == task_document(
        payload={"prompt": "other"}, metadata={"trace_id": "other-trace"}
    )
    assert execution.latest.trace_id == "trace-task-1"
    assert execution.state.assignee == "jane"
    assert claimed(submitted(first, metadata={"assignee": "joe"})).state.assignee == "joe"


def test_a_claim_after_a_record_without_trace_id_takes_that_of_the_message() -> None:
    assert claimed(submitted(by_hand(Status.FAILED))).latest.trace_id == "trace-task-1"


def test_a_wish_to_cancel_ends_with_its_attempt() -> None:
    from_cancelled_worker = cancelling(running()).with_latest(status=Status.FAILED)
    assert claimed(submitted(from_cancelled_worker)).state.cancellation is None


@pytest.mark.parametrize(
    ("execution", "attempt", "reply"),
    [
        pytest.param(None, None, Reply.CLAIMED, id="no attempt for an unknown task begins it"),
        pytest.param(None, 1, Reply.CLAIMED, id="attempt 1 for an unknown task begins it"),
        pytest.param(None, 2, Reply.OUT_OF_ORDER, id="attempt 2 for an unknown task is out of order"),
        pytest.param(None, 3, Reply.OVER_BUDGET, id="attempt 3 for an unknown task is over the budget"),
        pytest.param(running(), None, Reply.NOTHING_TO_DO, id="no attempt while one runs does nothing"),
        pytest.param(failed(), None, Reply.CLAIMED, id="no attempt after a failure is the next one"),
        pytest.param(failed(), 1, Reply.NOTHING_TO_DO, id="the attempt that failed does nothing"),
        pytest.param(failed(), 2, Reply.CLAIMED, id="the attempt after the failed one is claimed"),
        pytest.param(failed(), 3, Reply.OVER_BUDGET, id="above the budget is dropped before the order is looked at"),
        pytest.param(failed(attempts=2), 2, Reply.NOTHING_TO_DO, id="the latest one does nothing"),
        pytest.param(failed(attempts=2), 1, Reply.NOTHING_TO_DO, id="an old one does nothing"),
        pytest.param(failed(attempts=2), 3, Reply.OVER_BUDGET, id="the next one is dropped when the budget is spent"),
        pytest.param(failed(attempts=2), None, Reply.BUDGET_EXHAUSTED, id="no attempt is refused when it is spent"),
        pytest.param(pending(), 2, Reply.OUT_OF_ORDER, id="the next one while the latest waits is out of order"),
        pytest.param(running(), 2, Reply.OUT_OF_ORDER, id="the next one while the latest runs is out of order"),
        pytest.param(succeeded(), 2, Reply.OUT_OF_ORDER, id="the next one after a success is out of order"),
        pytest.param(cancelled(), 2, Reply.OUT_OF_ORDER, id="the next one after a cancellation is out of order"),
        pytest.param(running(), 1, Reply.NOTHING_TO_DO, id="a duplicate of the running one does nothing"),
    ],
)
def test_what_a_message_does(execution: Execution | None, attempt: int | None, reply: Reply) -> None:
    fields: dict[str, Any] = {} if attempt is None else {"attempt": attempt}
    decision = dispatched(execution, **fields)
    assert decision.answer.reply is reply
    if reply is Reply.CLAIMED:
        expected = execution.latest.number + 1 if execution else 1
        assert claimed(decision).latest.number == expected
    else:
        assert decision.execution is execution


def test_the_message_of_a_retry_that_was_cancelled_on_its_way_does_nothing() -> None:
    stopped = cancel(clicked(failed()), "task-1", reason="x", requested_by="jane", now_ms=NOW_MS).execution
    assert stopped is not None
    decision = dispatched(stopped, attempt=2)
    assert decision.answer.reply is Reply.NOTHING_TO_DO
    assert decision.execution is stopped
    assert claimed(dispatched(clicked(stopped), attempt=2)).latest.number == 2
    assert claimed(submitted(stopped)).state.cancellation is None


def test_an_attempt_two_ahead_within_the_budget_is_out_of_order() -> None:
    assert dispatched(failed(), policy=Policy(max_retries=5), attempt=3).answer.reply is Reply.OUT_OF_ORDER


def test_a_record_that_begins_at_attempt_2_goes_on_with_3() -> None:
    seeded = failed(attempts=2)
    seeded = Execution(seeded.task_id, seeded.attempts[1:], seeded.state)
    assert dispatched(seeded, policy=Policy(max_retries=2), attempt=1).answer.reply is Reply.NOTHING_TO_DO
    assert claimed(dispatched(seeded, policy=Policy(max_retries=2), attempt=3)).latest.number == 3


def test_without_a_budget_the_first_failure_is_the_last_word() -> None:
    policy = Policy(max_retries=0)
    assert dispatched(failed(), policy=policy, attempt=2).answer.reply is Reply.OVER_BUDGET
    assert submitted(failed(), policy=policy).answer.reply is Reply.BUDGET_EXHAUSTED


# Handing over


def hand_over(execution: Execution, assignee: str | None, *, max_retries: int = 1) -> Execution:
    policy = Policy(max_retries=max_retries)
    decision = submission.hand_over(
        execution, "task-1", assignee=assignee, now_ms=NOW_MS, policy=policy, launcher="local"
    )
    assert decision.execution is not None
    return decision.execution


def test_a_failed_task_that_is_handed_over_is_claimed_for_the_new_assignee_at_once() -> None:
    after = hand_over(scheduled(failed(), assignee="jane"), "joe")
    assert (after.latest.number, after.latest.status, after.latest.run) == (2, Status.PENDING, 2)
    assert after.state.assignee == "joe"
    assert after.state.schedule is not None
    assert (after.state.schedule.outcome, after.state.schedule.reason) == ("dropped", "issue_reassigned")
    assert (after.latest.task_snapshot or {})["metadata"]["assignee"] == "joe"


@pytest.mark.parametrize("metadata", [None, "text", 7, []])
def test_a_record_with_broken_metadata_can_be_handed_over(metadata: object) -> None:
    snapshot = {"taskId": "task-1", "taskType": "digest", "metadata": metadata}
    after = hand_over(failed().with_latest(task_snapshot=snapshot), "joe")
    assert (after.latest.number, after.latest.task_snapshot) == (2, {**snapshot, "metadata": {"assignee": "joe"}})


@pytest.mark.parametrize(
    ("execution", "assignee", "max_retries"),
    [
        pytest.param(running(), "joe", 1, id="a live worker goes on"),
        pytest.param(failed(), "joe", 0, id="without budget nothing is claimed"),
        pytest.param(failed(), None, 1, id="nobody is nobody to work for"),
        pytest.param(failed().with_latest(task_snapshot=None), "joe", 1, id="a lost payload cannot be run"),
        pytest.param(failed().with_latest(task_snapshot={"no": "task"}), "joe", 1, id="nor can a broken one"),
    ],
)
def test_handing_over_only_names_the_assignee_when(execution: Execution, assignee: str, max_retries: int) -> None:
    execution = execution.with_state(assignee="jane")
    after = hand_over(execution, assignee, max_retries=max_retries)
    assert after.state.assignee == assignee
    assert after.attempts == execution.attempts
