"""What ``alakai explain`` says: the true reason and the next step, state by state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from executions.admission import Breaker, Hold, Slots, Standing
from executions.conditions import Reason
from executions.control import suspend
from executions.explanation import Surroundings, explain
from executions.lifecycle import ended, hindered, suspect
from executions.policy import Policy
from executions.record import Evidence, Execution, Schedule, Status, Suspicion, Waiting
from tests.support.builders import NOW_MS, intended, pending, running
from tests.unit.domain.states import cancelled, cancelling, failed, succeeded

SLOTS = Policy(slots=Slots(total=12))
NOBODY = Surroundings(None, [], Standing({}, {}), [])
HOLD = Hold("jane", "the provider is down", NOW_MS)
BREAKER = Breaker("local", "implementation", "LAUNCH_CAPACITY", NOW_MS, NOW_MS + 60_000)


def waiting(reason: Reason) -> Execution:
    execution = pending()
    return hindered(execution, 1, Waiting(reason=reason, message="as it was then", since=NOW_MS))


def lost() -> Execution:
    seen = Evidence(source="ecs:DescribeTasks", observed_at=NOW_MS, detail="STOPPED, exit code 137", code="WORKER_OOM")
    return ended(
        running(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_OOM", message="out of memory", evidence=[seen]
    )


def said(execution: Execution, around: Surroundings = NOBODY, policy: Policy = SLOTS) -> dict[str, str]:
    lines = list(explain(execution, policy, around))
    assert all(text for _, text in lines)
    return {name.strip(): text for name, text in lines}


def scheduled() -> Execution:
    return failed().with_state(schedule=Schedule(attempt=2, due_at=NOW_MS + 120_000, reason="transient_upstream"))


def exhausted() -> Execution:
    spent = Schedule(attempt=3, reason="transient_upstream", limit=1, outcome="exhausted", settled_at=NOW_MS)
    return failed(attempts=2).with_state(schedule=spent)


def doubted() -> Execution:
    seen = Evidence(source="ecs:DescribeTasks", observed_at=NOW_MS, detail="MISSING")
    return suspect(running(), 1, suspicion=Suspicion(since=NOW_MS, looks=2, evidence=[seen]))


HOUR_MS = 3_600_000
LATER = replace(NOBODY, now_ms=NOW_MS + 3 * HOUR_MS + 120_000)
LIMITED = replace(SLOTS, attempt_timeout_ms=4 * HOUR_MS)


@pytest.mark.parametrize(
    ("execution", "state", "why", "following"),
    [
        pytest.param(pending(), "Pending, attempt 1, run 1", "WaitingForLaunch", "launch", id="waits"),
        pytest.param(
            waiting(Reason.SLOT_UNAVAILABLE), "Pending", "SlotUnavailable", "launch, once a slot is free", id="no slot"
        ),
        pytest.param(
            waiting(Reason.BREAKER_OPEN),
            "Pending",
            "BreakerOpen",
            "launch, once launches work again",
            id="breaker open",
        ),
        pytest.param(waiting(Reason.HELD), "Pending", "Held", "launch, once the hold ends (alakai resume)", id="held"),
        pytest.param(
            suspend(pending(), suspended=True),
            "Pending",
            "Suspended",
            "launch, once spec.suspend is false",
            id="suspended",
        ),
        pytest.param(
            intended(),
            "Pending",
            "Launching",
            "its worker starts, or counts as never started at 2023-11-14T22:28:20.000Z",
            id="launching",
        ),
        pytest.param(
            scheduled(),
            "RetryScheduled, attempt 1",
            "RetryScheduled",
            "attempt 2 at 2023-11-14T22:15:20.000Z",
            id="scheduled retry",
        ),
        pytest.param(
            doubted(),
            "Running",
            "WorkerRunning",
            "its worker reports; there is no limit of time",
            id="waiting for evidence",
        ),
        pytest.param(
            running(),
            "Running, attempt 1, run 1",
            "WorkerRunning: worker worker-of-task-1 is at work",
            "its worker reports; there is no limit of time",
            id="running",
        ),
        pytest.param(
            succeeded(), "Succeeded, attempt 1, run 1", "WorkerSucceeded", "nothing: it is over", id="succeeded"
        ),
        pytest.param(
            failed(),
            "Failed, attempt 1, run 1",
            "WorkerFailed: E1: boom",
            "annotate alakai.dev/retry to retry",
            id="failed",
        ),
        pytest.param(
            failed(attempts=2),
            "Failed, attempt 2, run 2",
            "WorkerFailed",
            "nothing: no retry is left",
            id="no retry left",
        ),
        pytest.param(exhausted(), "Failed, attempt 2", "WorkerFailed", "nothing: no retry is left", id="exhausted"),
        pytest.param(
            cancelled(), "Cancelled, attempt 1", "Cancelled: not needed", "nothing: it is over", id="cancelled"
        ),
        pytest.param(
            cancelling(running()),
            "Running, attempt 1, run 1",
            "Cancelling: not needed",
            "its worker reports; there is no limit of time",
            id="cancelling",
        ),
        pytest.param(
            lost(),
            "Failed, attempt 1, run 1",
            "WorkerOom: out of memory",
            "annotate alakai.dev/retry to retry",
            id="lost",
        ),
    ],
)
def test_each_state_has_its_reason_and_its_next_step(
    execution: Execution, state: str, why: str, following: str
) -> None:
    lines = said(execution)
    assert lines["task-1"].startswith(state)
    assert lines["why"].startswith(why)
    assert lines["next"] == following


def test_of_one_that_runs_long_it_is_told_for_how_long_and_what_ends_it() -> None:
    assert said(running(), LATER)["next"] == "its worker reports; there is no limit of time (at work for 3 h 2 min)"
    limited = said(running(), LATER, LIMITED)["next"]
    assert limited == "its worker reports, or is stopped at 2023-11-15T02:13:20.000Z (at work for 3 h 2 min)"


def test_a_worker_that_looks_gone_is_told_with_what_was_seen_and_when_it_is_judged() -> None:
    lines = said(doubted())
    assert lines["doubt"] == (
        "its worker is missing (2 looks) since 2023-11-14T22:13:20.000Z; "
        "judged from 2023-11-14T22:14:20.000Z on, unless it reports"
    )
    assert lines["seen"] == "2023-11-14T22:13:20.000Z ecs:DescribeTasks: MISSING"


def test_a_schedule_that_is_spent_says_so() -> None:
    assert said(exhausted())["schedule"] == "of attempt 3: exhausted (transient_upstream)"


def test_who_holds_the_slots_is_told_as_it_is_now() -> None:
    holders = [f"task-{number}" for number in range(12)]
    around = Surroundings(None, [], Standing({"implementation": 8, "digest": 4}, {}), holders)
    lines = said(waiting(Reason.SLOT_UNAVAILABLE), around)
    assert lines["slots"] == "12 of 12 slots in all are held (digest 4, implementation 8)"
    assert lines["held by"] == ", ".join(holders[:10]) + " and 2 more"
    assert lines["next"] == "launch, once a slot is free"


def test_a_hold_and_a_breaker_are_told_of_what_waits_only() -> None:
    around = Surroundings(HOLD, [BREAKER], Standing({}, {}), [])
    lines = said(pending(), around)
    assert lines["on hold"] == "by jane since 2023-11-14T22:13:20.000Z: the provider is down; alakai resume ends it"
    assert lines["breaker"] == (
        "open: launches of implementation on local fail with LAUNCH_CAPACITY; "
        "one is let through at 2023-11-14T22:14:20.000Z"
    )
    assert not said(running(), around).keys() & {"on hold", "breaker"}


def test_a_breaker_of_another_class_says_nothing() -> None:
    other = Breaker("local", "digest", "LAUNCH_CAPACITY", NOW_MS, NOW_MS)
    assert "breaker" not in said(pending(), Surroundings(None, [other], Standing({}, {}), []))


def test_what_was_seen_of_a_lost_worker_is_told() -> None:
    lines = said(lost())
    assert lines["seen"] == "2023-11-14T22:13:20.000Z ecs:DescribeTasks: STOPPED, exit code 137"
    assert lines["attempt 1"].startswith("Failed WorkerOom, launch 1, worker worker-of-task-1")
