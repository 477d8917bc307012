"""The conditions: what they answer, why, and since when."""

from __future__ import annotations

from typing import Any

import pytest

from executions.automatic_retry import settle_schedule
from executions.conditions import Phase, Reason, conditions, phase, why_execution
from executions.control import suspend
from executions.feed import entry_between
from executions.lifecycle import ended, launch_failed, stop_ordered
from executions.moment import iso_from_ms
from executions.record import (
    Evidence,
    Execution,
    Grade,
    Judgement,
    Refusal,
    ResourceLink,
    ScheduleOutcome,
    Status,
    StopOrder,
)
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.unit.domain.states import (
    at_work,
    by_hand,
    cancelled,
    cancelling,
    claimed_again,
    failed,
    reported,
    scheduled,
    stop_reported,
    succeeded,
)

LATER_MS = NOW_MS + 60_000
UNKNOWN_MS = NOW_MS - 86_400_000


def told(execution: Execution) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in conditions(execution, unknown_ms=UNKNOWN_MS)}


def answers(execution: Execution) -> tuple[str, ...]:
    found = told(execution)
    return tuple(found[name]["status"] for name in ("Dispatched", "Running", "Succeeded", "Finished"))


def judged(code: str = "WORKER_NEVER_STARTED", *, now_ms: int = LATER_MS) -> Judgement:
    return Judgement(
        kind="never_started",
        grade=Grade.CONFIRMED,
        code=code,
        message="the worker never started (confirmed; a claim would refute it): no network",
        refuted_by="a claim",
        spoken_at=now_ms,
        detected_after_ms=7,
        launch_try=1,
    )


def relaunching(execution: Execution, *, is_judged: bool = True, now_ms: int = LATER_MS) -> Execution:
    return launch_failed(
        execution,
        1,
        1,
        code="WORKER_NEVER_STARTED",
        message="it never came up",
        permanent=False,
        now_ms=now_ms,
        policy=POLICY,
        evidence=[Evidence(source="fake", observed_at=now_ms, detail="it never came up")],
        verdict=judged(now_ms=now_ms) if is_judged else None,
    )


WAITS = ("False", "False", "Unknown", "False")
FAILED = ("True", "False", "False", "True")
ENDED_NOT_DONE = ("True", "False", "Unknown", "False")


@pytest.mark.parametrize(
    ("case", "execution", "shown", "answered", "reason"),
    [
        ("claimed", pending(), "Pending", WAITS, "WaitingForLaunch"),
        ("held back", suspend(pending(), suspended=True), "Pending", WAITS, "Suspended"),
        ("launch sent", intended(), "Pending", WAITS, "Launching"),
        ("at work", running(), "Running", ("True", "True", "Unknown", "False"), "WorkerRunning"),
        ("to be stopped", cancelling(running()), "Running", ("True", "True", "Unknown", "False"), "Cancelling"),
        ("relaunching", relaunching(running()), "Pending", WAITS, "WaitingForRelaunch"),
        ("succeeded", succeeded(), "Succeeded", ("True", "False", "True", "True"), "WorkerSucceeded"),
        ("failed", failed(), "Failed", FAILED, "WorkerFailed"),
        ("cancelled", cancelled(), "Cancelled", ("False", "False", "False", "True"), "Cancelled"),
        ("retry to come", scheduled(failed()), "RetryScheduled", ENDED_NOT_DONE, "RetryScheduled"),
        ("retry dropped", scheduled(failed(), outcome="dropped"), "Failed", FAILED, "WorkerFailed"),
        ("again", claimed_again(failed()), "Pending", WAITS, "WaitingForLaunch"),
        ("written by hand", by_hand(), "Running", ("True", "True", "Unknown", "False"), "WorkerRunning"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
def test_each_state_has_its_phase_answers_and_reason(
    case: str, execution: Execution, shown: str, answered: tuple[str, ...], reason: str
) -> None:
    assert phase(execution) == shown
    assert answers(execution) == answered
    assert why_execution(execution).reason == reason
    assert told(execution)["Finished"]["reason"] == reason
    assert (answered[3] == "True") == phase(execution).is_finished


def test_finished_phases_are_the_last_three() -> None:
    assert [item for item in Phase if item.is_finished] == [Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED]


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        ("WORKER_LOST", "WorkerLost", "gone"),
        ("START_TIMEOUT", "StartTimeout", "gone"),
        ("E_NO_DISK", "WorkerFailed", "E_NO_DISK: gone"),
        (None, "WorkerFailed", "gone"),
    ],
)
def test_a_failure_is_named_by_our_own_code_and_foreign_codes_stand_in_the_message(
    code: str | None, reason: str, message: str
) -> None:
    lost = ended(running(), 1, Status.FAILED, now_ms=LATER_MS, code=code, message="gone")
    why = why_execution(lost)
    assert (why.reason, why.message) == (reason, message)


def test_secrets_in_a_workers_words_are_not_told() -> None:
    leaky = ended(running(), 1, Status.FAILED, now_ms=LATER_MS, message="token=hunter2 is wrong")
    assert "hunter2" not in str(conditions(leaky, unknown_ms=0))


def test_times_are_those_of_what_happened_not_of_the_look() -> None:
    execution = reported(at_work(pending(), now_ms=NOW_MS + 5_000), succeeded=True, now_ms=NOW_MS + 9_000)
    found = told(execution)
    assert found["Dispatched"]["lastTransitionTime"] == iso_from_ms(NOW_MS + 5_000)
    assert found["Running"]["lastTransitionTime"] == iso_from_ms(NOW_MS + 9_000)
    assert found["Succeeded"]["lastTransitionTime"] == iso_from_ms(NOW_MS + 9_000)
    assert found["Finished"]["lastTransitionTime"] == iso_from_ms(NOW_MS + 9_000)


def test_an_answer_that_stays_the_same_keeps_its_time_across_attempts() -> None:
    first = ended(pending(), 1, Status.FAILED, now_ms=NOW_MS + 1_000, code="LAUNCH_REJECTED", message="no")
    again = claimed_again(first, now_ms=NOW_MS + 2_000)
    found = told(again)
    # No worker was ever dispatched, so that this answer is as old as the first attempt.
    assert found["Dispatched"]["lastTransitionTime"] == iso_from_ms(NOW_MS)
    assert found["Running"]["lastTransitionTime"] == iso_from_ms(NOW_MS)
    assert found["Finished"]["lastTransitionTime"] == iso_from_ms(NOW_MS + 2_000)


def test_a_retry_that_follows_by_itself_never_finished_anything_in_between() -> None:
    first = scheduled(reported(running(), now_ms=NOW_MS + 1_000), assignee="jane")
    superseded = claimed_again(first, now_ms=NOW_MS + 2_000)
    schedule = superseded.state.schedule
    assert schedule is not None
    assert (superseded.latest.number, schedule.outcome) == (2, "superseded")
    assert told(superseded)["Finished"]["lastTransitionTime"] == iso_from_ms(NOW_MS)
    promoted = superseded.with_state(schedule=schedule.model_copy(update={"outcome": "promoted"}))
    assert told(promoted)["Finished"]["lastTransitionTime"] == iso_from_ms(NOW_MS)
    for settled_ms, unfinished_since_ms in ((NOW_MS + 2_000, NOW_MS), (NOW_MS + 1_500, NOW_MS + 2_000)):
        update = {"outcome": "dropped", "settled_at": settled_ms}
        dropped = superseded.with_state(schedule=schedule.model_copy(update=update))
        assert told(dropped)["Finished"]["lastTransitionTime"] == iso_from_ms(unfinished_since_ms)


def test_a_dropped_retry_finishes_the_execution_when_it_is_dropped() -> None:
    waiting = scheduled(reported(running(), now_ms=NOW_MS + 1_000))
    dropped = settle_schedule(waiting, ScheduleOutcome.DROPPED, now_ms=NOW_MS + 7_000, reason="issue_cancelled")
    assert told(dropped)["Finished"]["status"] == "True"
    assert told(dropped)["Finished"]["lastTransitionTime"] == iso_from_ms(NOW_MS + 7_000)


def test_a_worker_that_was_taken_away_changes_the_answers_when_it_was_found_gone() -> None:
    found = told(relaunching(running()))
    assert found["Dispatched"]["lastTransitionTime"] == iso_from_ms(LATER_MS)
    assert found["Running"]["lastTransitionTime"] == iso_from_ms(LATER_MS)


def test_a_launch_that_was_refused_never_dispatched_anything() -> None:
    found = told(relaunching(intended(), is_judged=False))
    assert found["Dispatched"]["lastTransitionTime"] == iso_from_ms(NOW_MS)


def test_times_that_nobody_wrote_are_told_as_the_one_that_is_known() -> None:
    found = told(by_hand(Status.FAILED))
    assert {item["lastTransitionTime"] for item in found.values()} == {iso_from_ms(UNKNOWN_MS)}
    finished = told(by_hand(Status.FAILED, finished_at=NOW_MS))
    assert {item["lastTransitionTime"] for item in finished.values()} == {iso_from_ms(NOW_MS)}


def test_a_refused_request_is_a_condition_until_the_next_one_is_accepted() -> None:
    refusal = Refusal(reason="RetryRefused", message="cannot retry execution in status 'running'", at=LATER_MS)
    refused = running().with_state(resource=ResourceLink(uid="u", refusal=refusal))
    accepted = told(refused)["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "RetryRefused")
    assert accepted["lastTransitionTime"] == iso_from_ms(LATER_MS)
    assert "Accepted" not in told(running())


def test_a_relaunch_names_the_verdict_on_the_launch_before() -> None:
    message = why_execution(relaunching(running())).message
    assert message == (
        "launch 1 is repeated: the worker never started (confirmed; a claim would refute it): no network"
    )
    assert why_execution(relaunching(intended(), is_judged=False)).message == (
        "launch 1 gave no worker; another one follows"
    )


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (
            stop_ordered(running(), 1, StopOrder(code="ATTEMPT_TIMEOUT", asked_at=NOW_MS)),
            "worker worker-of-task-1 was told to stop: ATTEMPT_TIMEOUT",
        ),
        (stop_reported(running()), "worker worker-of-task-1 was told to stop: the next look tells by whom"),
    ],
)
def test_a_worker_that_was_told_to_stop_is_shown_as_such(execution: Execution, message: str) -> None:
    assert (phase(execution), why_execution(execution).reason) == ("Running", "WorkerStopping")
    assert why_execution(execution).message == message
    entry = entry_between(running(), execution, NOW_MS)
    assert entry is not None, "the mirror must be told"
    assert entry.transition == "updated"


def test_dispatched_says_who_launched_it() -> None:
    dispatched = told(running())["Dispatched"]
    assert (dispatched["reason"], dispatched["message"]) == (Reason.LAUNCHED, "launched by local")
