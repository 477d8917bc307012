"""One attempt's life from its launch intent to its end."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from executions.answer import Decision, Reply
from executions.lifecycle import claim_launch, ended, intend_launch, launch_failed, launched, record_outcome, suspect
from executions.outcome import MESSAGE_LIMIT, Outcome
from executions.policy import Policy
from executions.record import Evidence, Execution, Grade, Judgement, Rung, Status, Suspicion, encoded
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.unit.domain.states import (
    at_work,
    by_hand,
    cancelled,
    cancelling,
    claimed_again,
    failed,
    outcome,
    reported,
    succeeded,
)

LATER_MS = NOW_MS + 1_000
SEEN = Evidence(source="fake", observed_at=NOW_MS, detail="gone")


def intend(execution: Execution, attempt: int = 1) -> Execution:
    return intend_launch(execution, attempt, token="t" * 64, request={"a": [1]}, now_ms=LATER_MS, policy=POLICY)


def refused(execution: Execution, attempt: int = 1, launch_try: int = 1, **changes: Any) -> Execution:
    wanted: dict[str, Any] = {
        "code": "LAUNCH_CAPACITY",
        "message": "no room",
        "permanent": False,
        "now_ms": LATER_MS,
        "policy": POLICY,
    }
    return launch_failed(execution, attempt, launch_try, **{**wanted, **changes})


def judged_never_started() -> Execution:
    """Launched once, judged to have never started, to be launched again."""
    verdict = Judgement(
        kind="never_started",
        grade=Grade.PRESUMED,
        code="WORKER_NEVER_STARTED",
        message="it never came up",
        refuted_by="a callback of launch 1",
        spoken_at=NOW_MS,
        detected_after_ms=0,
        launch_try=1,
    )
    return refused(running(), verdict=verdict)


def lost(execution: Execution) -> Execution:
    number = execution.latest.number
    return ended(execution, number, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="gone", evidence=[SEEN])


def record(
    execution: Execution | None, report: Outcome, *, received_ms: int = LATER_MS, was_kept: bool = False
) -> Decision:
    return record_outcome(execution, report, received_ms=received_ms, now_ms=LATER_MS, was_kept=was_kept)


# The intent


def test_an_intent_is_written_with_its_deadline_before_anything_is_sent() -> None:
    latest = intend(pending()).latest
    assert latest.status is Status.PENDING
    assert latest.is_live
    assert latest.launch is not None
    assert (latest.launch.launch_try, latest.launch.token, latest.launch.request) == (1, "t" * 64, {"a": [1]})
    assert (latest.launch.intent_at, latest.launch.start_by) == (LATER_MS, LATER_MS + POLICY.start_timeout_ms)
    assert latest.launch_tries == 1


def test_the_next_intent_is_the_next_try_and_ends_the_wait() -> None:
    waiting = refused(intended())
    assert waiting.latest.launch_not_before is not None
    latest = intend(waiting).latest
    assert latest.launch is not None
    assert (latest.launch.launch_try, latest.launch_tries, latest.launch_not_before) == (2, 2, None)


@pytest.mark.parametrize(
    ("execution", "attempt"),
    [
        pytest.param(pending(), 2, id="for an attempt that is not there"),
        pytest.param(intended(), 1, id="while one is written down already"),
        pytest.param(running(), 1, id="while it runs"),
        pytest.param(failed(), 1, id="after its end"),
        pytest.param(claimed_again(failed()), 1, id="for an earlier attempt"),
    ],
)
def test_no_intent_is_written(execution: Execution, attempt: int) -> None:
    assert intend(execution, attempt) is execution


# The launch's answer


def test_a_launched_worker_makes_the_attempt_run() -> None:
    latest = launched(intended(), 1, 1, worker_id="w", now_ms=LATER_MS).latest
    assert (latest.status, latest.worker_id, latest.started_at) == (Status.RUNNING, "w", LATER_MS)


def test_the_rung_that_decided_and_what_stood_against_it_are_kept() -> None:
    seen = Evidence(source="ecs:launch", observed_at=NOW_MS, detail="refused, but it started")
    after = launched(intended(), 1, 1, worker_id="w", now_ms=LATER_MS, rung=Rung.VERIFIED, evidence=[seen])
    (stored,) = (orjson.loads(encoded(item)) for item in after.attempts)
    assert (stored["launch"]["rung"], stored["evidence"][-1]["detail"]) == ("verified", "refused, but it started")
    assert after.latest.launch is not None
    assert "rung" not in orjson.loads(encoded(intended().latest))["launch"], "nothing has decided yet"


def test_the_worker_of_an_attempt_that_ended_meanwhile_is_only_noted() -> None:
    quick = reported(intended(), succeeded=True)
    after = launched(quick, 1, 1, worker_id="w", now_ms=LATER_MS)
    assert after.latest.launch is not None
    assert after.latest == quick.latest.model_copy(update={"worker_id": "w", "launch": after.latest.launch})
    assert after.latest.launch.rung is Rung.SENT
    behind = launched(claimed_again(reported(intended())), 1, 1, worker_id="w", now_ms=LATER_MS)
    assert [item.worker_id for item in behind.attempts] == ["w", None]
    assert [item.status for item in behind.attempts] == [Status.FAILED, Status.PENDING]


@pytest.mark.parametrize(
    ("execution", "attempt", "launch_try"),
    [
        pytest.param(intended(), 2, 1, id="of an attempt that is not there"),
        pytest.param(intended(), 1, 2, id="of another launch try"),
        pytest.param(pending(), 1, 1, id="of a launch that nobody intended"),
        pytest.param(refused(intended()), 1, 1, id="of a launch that was given up"),
        pytest.param(running(), 1, 1, id="that is known already"),
    ],
)
def test_a_worker_changes_nothing(execution: Execution, attempt: int, launch_try: int) -> None:
    assert launched(execution, attempt, launch_try, worker_id="other", now_ms=LATER_MS) is execution


# A launch without a worker


@pytest.mark.parametrize(
    "execution", [pytest.param(intended(), id="refused"), pytest.param(running(), id="never started")]
)
def test_a_launch_without_worker_waits_for_the_next_try_and_spends_no_attempt(execution: Execution) -> None:
    latest = refused(execution, evidence=[SEEN]).latest
    assert (latest.number, latest.status, latest.launch, latest.worker_id) == (1, Status.PENDING, None, None)
    assert (latest.started_at, latest.suspicion, latest.launch_tries, latest.run) == (None, None, 1, 1)
    assert latest.launch_not_before == LATER_MS + POLICY.launch_wait_ms(1)
    assert latest.evidence == [SEEN]
    assert not latest.is_live


def test_a_permanent_refusal_ends_the_attempt() -> None:
    latest = refused(intended(), permanent=True, code="LAUNCH_REJECTED", evidence=[SEEN]).latest
    assert (latest.status, latest.error_code, latest.error_message) == (Status.FAILED, "LAUNCH_REJECTED", "no room")
    assert (latest.finished_at, latest.evidence) == (LATER_MS, [SEEN])


def test_the_last_launch_try_ends_the_attempt_with_its_code() -> None:
    policy = Policy(max_launch_tries=3)
    execution = intended()
    for launch_try in (1, 2):
        execution = refused(execution, launch_try=launch_try, policy=policy)
        assert execution.latest.status is Status.PENDING
        execution = intend(execution)
    latest = refused(execution, launch_try=3, policy=policy).latest
    assert (latest.status, latest.error_code, latest.launch_tries) == (Status.FAILED, "LAUNCH_CAPACITY", 3)


def test_a_cancelled_launch_that_failed_is_not_tried_again() -> None:
    for permanent in (False, True):
        latest = refused(cancelling(intended()), permanent=permanent).latest
        assert (latest.status, latest.error_message, latest.error_code) == (Status.CANCELLED, "not needed", None)


def test_a_wish_to_cancel_an_earlier_attempt_does_not_touch_this_one() -> None:
    execution = intend(claimed_again(failed()), 2)
    cancellation = cancelling(running()).state.cancellation
    assert refused(execution.with_state(cancellation=cancellation), 2).latest.status is Status.PENDING


def test_a_running_record_written_by_hand_is_not_launched_again_but_ended() -> None:
    latest = refused(by_hand(worker_id="arn"), code="WORKER_NEVER_STARTED").latest
    assert (latest.status, latest.error_code) == (Status.FAILED, "WORKER_NEVER_STARTED")


@pytest.mark.parametrize(
    ("execution", "attempt", "launch_try"),
    [
        pytest.param(intended(), 2, 1, id="of an attempt that is not there"),
        pytest.param(intended(), 1, 2, id="of another launch try"),
        pytest.param(pending(), 1, 1, id="of an attempt without a launch"),
        pytest.param(succeeded(), 1, 1, id="of an attempt that ended"),
        pytest.param(at_work(claimed_again(failed())), 1, 1, id="of an earlier attempt"),
    ],
)
def test_a_refusal_changes_nothing(execution: Execution, attempt: int, launch_try: int) -> None:
    assert refused(execution, attempt, launch_try) is execution


def test_the_evidence_of_many_launches_is_bounded() -> None:
    execution = intended().with_latest(evidence=[SEEN] * 16)
    assert len(refused(execution, evidence=[SEEN]).latest.evidence) == 16
    assert len(ended(execution, 1, Status.FAILED, now_ms=1, evidence=[SEEN]).latest.evidence) == 16


# The claim of a launch


def claim(execution: Execution | None, claim_id: str = "one", attempt: int = 1, launch_try: int = 1) -> Decision:
    return claim_launch(execution, "task-1", attempt=attempt, launch_try=launch_try, claim_id=claim_id, now_ms=LATER_MS)


@pytest.mark.parametrize("execution", [pytest.param(intended(), id="fast"), pytest.param(running(), id="known")])
def test_the_first_claim_of_a_launch_is_granted_and_every_other_one_is_not(execution: Execution) -> None:
    decision = claim(execution)
    assert decision.answer.reply is Reply.GRANTED
    assert decision.execution is not None
    launch = decision.execution.latest.launch
    assert launch is not None
    assert (launch.claim_id, launch.claimed_at) == ("one", LATER_MS)
    assert decision.execution.latest.status is execution.latest.status
    repeat = claim(decision.execution)
    assert repeat.answer.reply is Reply.GRANTED
    assert repeat.execution is decision.execution
    other = claim(decision.execution, "two")
    assert other.answer.reply is Reply.REFUSED
    assert other.execution is decision.execution


@pytest.mark.parametrize(
    ("execution", "attempt", "launch_try"),
    [
        pytest.param(running(), 2, 1, id="for an attempt that is not there"),
        pytest.param(running(), 1, 2, id="for another launch try"),
        pytest.param(pending(), 1, 1, id="before an intent"),
        pytest.param(by_hand(worker_id="arn"), 1, 1, id="for a record without a launch of ours"),
        pytest.param(failed(), 1, 1, id="after the end"),
        pytest.param(cancelling(running()), 1, 1, id="when somebody has cancelled it"),
        pytest.param(at_work(claimed_again(failed())), 1, 1, id="for an earlier attempt"),
        pytest.param(intend(refused(intended())), 1, 1, id="for an earlier launch try"),
    ],
)
def test_a_claim_is_refused(execution: Execution, attempt: int, launch_try: int) -> None:
    decision = claim(execution, attempt=attempt, launch_try=launch_try)
    assert decision.answer.reply is Reply.REFUSED
    assert decision.execution is execution


def test_a_claim_of_an_unknown_task_is_not_found() -> None:
    decision = claim(None)
    assert (decision.execution, decision.answer.reply) == (None, Reply.NOT_FOUND)


# The outcome


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param(running(), id="a running attempt"),
        pytest.param(intended(), id="an attempt whose launch is not answered yet"),
        pytest.param(by_hand(worker_id="arn", started_at=NOW_MS), id="a running record written by hand"),
    ],
)
def test_an_outcome_decides(execution: Execution) -> None:
    for succeeds, status in ((True, Status.SUCCEEDED), (False, Status.FAILED)):
        decision = record(execution, outcome(succeeded=succeeds, attempt=1))
        assert decision.answer.reply is Reply.RECORDED
        assert decision.answer.status == status
        assert decision.execution is not None
        latest = decision.execution.latest
        assert (latest.status, latest.finished_at) == (status, LATER_MS)
        assert (latest.error_message, latest.error_code) == ((None, None) if succeeds else ("boom", "E1"))
        assert latest.started_at == (execution.latest.started_at or LATER_MS)


def test_what_the_worker_said_is_kept() -> None:
    report = outcome(
        pullRequestUrl="https://x/pull/1",
        errorFamily="transient_upstream",
        retryNotBefore=5,
        agent={"provider": "codex"},
    )
    execution = record(running(), report, received_ms=NOW_MS + 7).execution
    assert execution is not None
    result = execution.latest.result
    assert result is not None
    assert (result.pull_request_url, result.error_family, result.retry_not_before, result.received_at) == (
        "https://x/pull/1",
        "transient_upstream",
        5,
        NOW_MS + 7,
    )
    assert result.agent is not None
    assert result.agent.provider == "codex"


def test_an_outcome_ends_a_suspicion() -> None:
    suspected = suspect(running(), 1, suspicion=Suspicion(since=NOW_MS))
    assert reported(suspected, succeeded=True).latest.suspicion is None


@pytest.mark.parametrize(
    ("succeeds", "status", "message"),
    [
        pytest.param(True, Status.SUCCEEDED, None, id="a success is a success"),
        pytest.param(False, Status.CANCELLED, "not needed", id="a failure is the cancellation"),
    ],
)
def test_the_outcome_of_a_worker_that_was_told_to_stop(succeeds: bool, status: Status, message: str | None) -> None:
    latest = reported(cancelling(running()), succeeded=succeeds).latest
    assert (latest.status, latest.error_message, latest.error_code) == (status, message, None)


@pytest.mark.parametrize(
    ("execution", "fields", "reply"),
    [
        pytest.param(succeeded(), {}, Reply.ALREADY_FINISHED, id="a repeat after a success"),
        pytest.param(failed(), {"attempt": 1}, Reply.ALREADY_FINISHED, id="a repeat after a failure"),
        pytest.param(pending(), {}, Reply.SUPERSEDED, id="while the attempt still waits for its launch"),
        pytest.param(pending(), {"attempt": 2}, Reply.SUPERSEDED, id="for an attempt to come"),
        pytest.param(claimed_again(failed()), {"attempt": 1}, Reply.SUPERSEDED, id="for an earlier attempt"),
        pytest.param(at_work(claimed_again(failed())), {"attempt": 1}, Reply.SUPERSEDED, id="for an earlier one again"),
        pytest.param(running(), {"launchTry": 2}, Reply.SUPERSEDED, id="of another launch"),
        pytest.param(intend(refused(intended())), {"launchTry": 1}, Reply.SUPERSEDED, id="of a launch given up"),
    ],
)
def test_an_outcome_changes_nothing(execution: Execution, fields: dict[str, Any], reply: Reply) -> None:
    for succeeds in (True, False):
        decision = record(execution, outcome(succeeded=succeeds, **fields))
        assert decision.answer.reply is reply
        assert decision.execution is execution


@pytest.mark.parametrize("execution", [judged_never_started(), intend(judged_never_started())])
def test_a_launch_that_was_judged_and_reports_after_all_changes_nothing_and_is_kept(execution: Execution) -> None:
    decision = record(execution, outcome(succeeded=True, attempt=1, launchTry=1))
    assert decision.answer.reply is Reply.SUPERSEDED
    kept = decision.execution
    assert kept is not None
    assert [item.succeeded for item in kept.latest.late_results] == [True]
    assert kept.with_latest(late_results=[]) == execution
    repeated = record(kept, outcome(succeeded=True, attempt=1, launchTry=1))
    assert repeated.execution is kept
    # What follows is decided by its own worker all the same.
    again = at_work(kept) if kept.latest.launch is None else launched(kept, 1, 2, worker_id="w", now_ms=NOW_MS)
    assert record(again, outcome(succeeded=True, attempt=1, launchTry=2)).answer.reply is Reply.RECORDED


def test_an_outcome_of_the_right_launch_decides() -> None:
    assert record(running(), outcome(attempt=1, launchTry=1)).answer.reply is Reply.RECORDED
    assert record(by_hand(), outcome(attempt=1, launchTry=1)).answer.reply is Reply.RECORDED


def test_the_outcome_of_an_unknown_task_is_not_found() -> None:
    decision = record(None, outcome("nobody"))
    assert (decision.execution, decision.answer.reply, decision.answer.task_id) == (None, Reply.NOT_FOUND, "nobody")


# An outcome that waited on its own queue during an outage


def test_a_kept_outcome_decides_only_an_attempt_that_had_begun_when_it_came() -> None:
    second = at_work(claimed_again(failed(), now_ms=NOW_MS + 10))
    early = record(second, outcome(succeeded=True), received_ms=NOW_MS + 9, was_kept=True)
    assert early.answer.reply is Reply.SUPERSEDED
    assert early.execution is second
    later = record(second, outcome(succeeded=True), received_ms=NOW_MS + 11, was_kept=True)
    assert later.answer.reply is Reply.RECORDED
    named = record(second, outcome(succeeded=True, attempt=2), received_ms=NOW_MS + 9, was_kept=True)
    assert named.answer.reply is Reply.RECORDED


def test_a_kept_outcome_is_no_evidence_for_an_attempt_that_began_after_it() -> None:
    second = lost(at_work(claimed_again(failed(), now_ms=NOW_MS + 10)))
    decision = record(second, outcome(succeeded=True), received_ms=NOW_MS + 9, was_kept=True)
    assert decision.answer.reply is Reply.SUPERSEDED
    assert decision.execution is second


@pytest.mark.parametrize(
    ("times", "reply"),
    [
        pytest.param({"started_at": NOW_MS + 10}, Reply.SUPERSEDED, id="its start counts where no claim is known"),
        pytest.param({"started_at": NOW_MS - 10}, Reply.RECORDED, id="and an earlier start takes it"),
        pytest.param({}, Reply.RECORDED, id="a record without times takes it"),
    ],
)
def test_a_kept_outcome_for_a_record_written_by_hand(times: dict[str, Any], reply: Reply) -> None:
    assert record(by_hand(**times), outcome(), received_ms=NOW_MS, was_kept=True).answer.reply is reply


# Late results


@pytest.mark.parametrize(
    ("execution", "fields", "reply"),
    [
        pytest.param(lost(running()), {}, Reply.ALREADY_FINISHED, id="of the latest attempt"),
        pytest.param(claimed_again(lost(running())), {"attempt": 1}, Reply.SUPERSEDED, id="of an earlier attempt"),
        pytest.param(cancelled(), {}, Reply.ALREADY_FINISHED, id="of a cancelled attempt"),
    ],
)
def test_the_late_result_of_an_attempt_that_we_judged_is_kept_beside_it(
    execution: Execution, fields: dict[str, Any], reply: Reply
) -> None:
    decision = record(execution, outcome(succeeded=True, pullRequestUrl="https://x/pull/1", **fields))
    assert decision.answer.reply is reply
    after = decision.execution
    assert after is not None
    (late,) = after.attempts[0].late_results
    assert (late.succeeded, late.received_at, late.message) == (True, LATER_MS, None)
    assert late.pull_request_url == "https://x/pull/1"
    assert after.attempts[0].model_copy(update={"late_results": []}) == execution.attempts[0]
    assert after.attempts[1:] == execution.attempts[1:]


def test_the_same_late_result_is_kept_once_and_different_ones_are_bounded() -> None:
    execution = lost(running())
    for number in range(8):
        for _ in range(2):
            report = outcome(error={"message": f"message {number}"})
            following = record(execution, report).execution
            assert following is not None
            execution = following
    assert [item.message for item in execution.latest.late_results] == [f"message {number}" for number in range(5)]


# Suspicion and the end


def test_a_suspicion_is_remembered_and_taken_back() -> None:
    suspicion = Suspicion(since=NOW_MS, looks=2)
    suspected = suspect(running(), 1, suspicion=suspicion)
    assert suspected.latest.suspicion == suspicion
    assert suspected.latest.status is Status.RUNNING
    assert suspect(suspected, 1, suspicion=None).latest.suspicion is None


@pytest.mark.parametrize(
    ("execution", "attempt", "suspicion"),
    [
        pytest.param(running(), 2, Suspicion(since=1), id="of another attempt"),
        pytest.param(pending(), 1, Suspicion(since=1), id="of one without a worker"),
        pytest.param(failed(), 1, Suspicion(since=1), id="of one that ended"),
        pytest.param(running(), 1, None, id="that nobody had"),
    ],
)
def test_a_suspicion_changes_nothing(execution: Execution, attempt: int, suspicion: Suspicion | None) -> None:
    assert suspect(execution, attempt, suspicion=suspicion) is execution


def test_an_end_of_ours_says_why() -> None:
    latest = ended(
        running(), 1, Status.FAILED, now_ms=LATER_MS, code="WORKER_LOST", message="x" * 9999, evidence=[SEEN]
    ).latest
    assert (latest.status, latest.finished_at, latest.error_code) == (Status.FAILED, LATER_MS, "WORKER_LOST")
    assert latest.error_message == "x" * MESSAGE_LIMIT
    assert latest.evidence == [SEEN]
    assert ended(pending(), 1, Status.CANCELLED, now_ms=LATER_MS).latest.error_message is None


@pytest.mark.parametrize(
    ("execution", "attempt"),
    [
        pytest.param(succeeded(), 1, id="after a success"),
        pytest.param(failed(), 1, id="after a failure"),
        pytest.param(cancelled(), 1, id="after a cancellation"),
        pytest.param(running(), 2, id="for another attempt"),
        pytest.param(claimed_again(failed()), 1, id="for an earlier attempt"),
    ],
)
def test_an_end_changes_nothing(execution: Execution, attempt: int) -> None:
    assert ended(execution, attempt, Status.FAILED, now_ms=LATER_MS, code="X", message="x") is execution


@pytest.mark.parametrize(
    ("tries", "wait_ms"),
    [(1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (50, 60_000), (0, 1_000)],
)
def test_the_wait_between_launches_doubles_up_to_a_minute(tries: int, wait_ms: int) -> None:
    assert POLICY.launch_wait_ms(tries) == wait_ms
