"""Workers that are told to stop: by us, by a platform, by a hand; and which word counts."""

from __future__ import annotations

import orjson
import pytest

from executions.answer import Reply
from executions.lifecycle import (
    claim_launch,
    intend_launch,
    launch_failed,
    record_outcome,
    report_counts,
    stop_ordered,
)
from executions.outcome import MESSAGE_LIMIT
from executions.record import (
    Evidence,
    Execution,
    Grade,
    Judgement,
    ReportedAgent,
    Status,
    StopOrder,
    encoded,
    execution_from_stored,
)
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.unit.domain.states import by_hand, cancelling, failed, outcome, reported, stop_reported

LATER_MS = NOW_MS + 1_000
ORDER = StopOrder(code="ATTEMPT_TIMEOUT", asked_at=NOW_MS)
SIGNAL = {"message": "stopped by signal SIGTERM", "code": "WORKER_STOPPED_EXTERNALLY"}


def again(execution: Execution) -> Execution:
    """Launched again after its worker was proven gone."""
    waiting = launch_failed(execution, 1, 1, code="X", message="x", permanent=False, now_ms=LATER_MS, policy=POLICY)
    return intend_launch(waiting, 1, token="u" * 64, request={}, now_ms=LATER_MS, policy=POLICY)


# Our own order


def test_the_first_order_to_stop_stays_and_clears_the_suspicion() -> None:
    first = stop_ordered(running(), 1, ORDER)
    assert first.latest.stop == ORDER
    assert stop_ordered(first, 1, StopOrder(code="START_TIMEOUT", asked_at=LATER_MS)) is first
    suspected = stop_reported(running())
    assert stop_ordered(suspected, 1, ORDER).latest.suspicion is None


@pytest.mark.parametrize("execution", [pending(), failed()])
def test_what_has_no_live_worker_is_not_told_to_stop(execution: Execution) -> None:
    assert stop_ordered(execution, 1, ORDER) is execution
    assert stop_ordered(running(), 2, ORDER).latest.stop is None


def test_a_worker_that_was_told_to_stop_may_not_claim_any_more() -> None:
    told = stop_ordered(running(), 1, ORDER)
    for claim_id in ("first", "second"):
        decision = claim_launch(told, "task-1", attempt=1, launch_try=1, claim_id=claim_id, now_ms=LATER_MS)
        assert (decision.answer.reply, decision.execution) == (Reply.REFUSED, told)


def test_the_next_launch_is_not_told_to_stop() -> None:
    latest = again(stop_ordered(running(), 1, ORDER)).latest
    assert (latest.stop, latest.is_stopping, latest.is_live) == (None, False, True)


@pytest.mark.parametrize("code", ["WORKER_STOPPED_EXTERNALLY", "codex_transient_upstream", None])
def test_a_failure_that_is_reported_after_the_order_is_the_orders(code: str | None) -> None:
    error = {"message": "m" * 9999, **({"code": code} if code else {})}
    latest = reported(stop_ordered(running(), 1, ORDER), error=error).latest
    assert (latest.status, latest.error_code) == (Status.FAILED, "ATTEMPT_TIMEOUT")
    assert latest.error_message is not None
    assert latest.error_message.startswith("the attempt ran too long and was told to stop; its worker said: mmm")
    assert len(latest.error_message) == MESSAGE_LIMIT


def test_a_cancellation_is_told_before_a_deadline() -> None:
    latest = reported(stop_ordered(cancelling(running()), 1, ORDER)).latest
    assert (latest.status, latest.error_code, latest.error_message) == (Status.CANCELLED, None, "not needed")


# The worker's word


def test_a_worker_that_felt_a_signal_is_answered_and_its_attempt_runs_on() -> None:
    decision = record_outcome(running(), outcome(error=SIGNAL), received_ms=NOW_MS, now_ms=LATER_MS)
    assert (decision.answer.reply, decision.answer.status) == (Reply.RECORDED, Status.RUNNING)
    held = decision.execution
    assert held is not None
    assert held.latest.is_stopping
    assert (held.latest.result, held.latest.error_code, held.latest.error_message) == (None, None, None)
    repeat = record_outcome(held, outcome(error=SIGNAL), received_ms=LATER_MS, now_ms=LATER_MS)
    assert (repeat.answer.reply, repeat.execution) == (Reply.RECORDED, held)


@pytest.mark.parametrize(
    ("execution", "status"),
    [
        pytest.param(cancelling(running()), Status.CANCELLED, id="we asked it to stop: cancelled"),
        pytest.param(stop_ordered(running(), 1, ORDER), Status.FAILED, id="we asked it to stop: a deadline"),
        pytest.param(intended(), Status.FAILED, id="its launch is not answered yet: nobody could look at it"),
        pytest.param(by_hand(worker_id="arn"), Status.FAILED, id="written by hand"),
    ],
)
def test_where_no_look_could_tell_more_its_word_counts_at_once(execution: Execution, status: Status) -> None:
    assert reported(execution, error=SIGNAL).latest.status is status


@pytest.mark.parametrize("succeeded", [True, False])
def test_another_outcome_while_its_word_waits_counts(succeeded: bool) -> None:
    latest = reported(stop_reported(running()), succeeded=succeeded).latest
    assert (latest.status, latest.error_code) == ((Status.SUCCEEDED, None) if succeeded else (Status.FAILED, "E1"))
    assert latest.suspicion is None


def test_its_word_counts_with_all_that_it_reported() -> None:
    held = reported(running(), error=SIGNAL, agent={"provider": "codex"}, now_ms=NOW_MS + 5)
    latest = report_counts(held, 1, now_ms=LATER_MS).latest
    assert (latest.status, latest.error_code) == (Status.FAILED, "WORKER_STOPPED_EXTERNALLY")
    assert (latest.error_message, latest.finished_at) == ("stopped by signal SIGTERM", LATER_MS)
    assert latest.result is not None
    assert (latest.result.received_at, latest.result.agent) == (NOW_MS + 5, ReportedAgent(provider="codex"))
    assert [(item.source, item.detail) for item in latest.evidence] == [
        ("worker:callback", "stopped by signal SIGTERM")
    ]
    # It has reported: what comes later is a repeat and no false loss.
    late = record_outcome(
        report_counts(held, 1, now_ms=LATER_MS), outcome(error=SIGNAL), received_ms=LATER_MS, now_ms=LATER_MS
    )
    assert late.execution is not None
    assert late.execution.latest.late_results == []


def test_a_word_that_waits_when_the_execution_is_cancelled_ends_it_as_cancelled() -> None:
    latest = report_counts(cancelling(stop_reported(running())), 1, now_ms=LATER_MS).latest
    assert (latest.status, latest.error_code, latest.error_message) == (Status.CANCELLED, None, "not needed")


@pytest.mark.parametrize("execution", [running(), failed(), pending()])
def test_without_a_word_there_is_nothing_to_count(execution: Execution) -> None:
    assert report_counts(execution, 1, now_ms=LATER_MS) is execution
    assert report_counts(stop_reported(running()), 2, now_ms=LATER_MS).latest.is_live


def test_the_word_of_one_launch_is_not_the_next_ones() -> None:
    latest = again(stop_reported(running())).latest
    assert (latest.suspicion, latest.is_stopping) == (None, False)


def test_a_secret_in_its_word_does_not_become_evidence() -> None:
    held = reported(running(), error={**SIGNAL, "message": "token=hunter2"})
    assert held.latest.suspicion is not None
    assert "hunter2" not in held.latest.suspicion.evidence[0].detail


# Stored


def test_verdicts_orders_and_words_are_read_back_as_they_were() -> None:
    verdict = Judgement(
        kind="preempted",
        grade=Grade.CONFIRMED,
        code="WORKER_PREEMPTED",
        message="taken",
        refuted_by="a callback of launch 1",
        spoken_at=NOW_MS,
        detected_after_ms=5,
        last_seen_alive_at=NOW_MS,
        launch_try=1,
    )
    seen = Evidence(source="s", observed_at=NOW_MS, detail="d", code="WORKER_PREEMPTED", version=7)
    execution = stop_reported(running()).with_latest(verdict=verdict, evidence=[seen], stop=ORDER)
    stored = encoded(execution.latest)
    read = execution_from_stored("task-1", {"1": stored}, encoded(execution.state), is_ours=True, incarnation="x")
    assert read.latest == execution.latest
    document = orjson.loads(stored)
    assert document["verdict"]["refutedBy"] == "a callback of launch 1"
    assert (document["verdict"]["grade"], document["evidence"][0]["version"]) == ("confirmed", 7)
    assert document["stop"] == {"code": "ATTEMPT_TIMEOUT", "askedAt": "2023-11-14T22:13:20.000Z"}
