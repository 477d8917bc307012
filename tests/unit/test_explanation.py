"""What ``alakai explain`` says: the true reason and the next step, state by state."""

from __future__ import annotations

import pytest

from executions.admission import Breaker, Hold, Slots, Standing
from executions.conditions import Reason
from executions.explanation import Surroundings, explain
from executions.lifecycle import ended, hindered
from executions.policy import Policy
from executions.record import Evidence, Execution, Status, Waiting
from tests.support.builders import NOW_MS, pending, running
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


@pytest.mark.parametrize(
    ("execution", "state", "why", "following"),
    [
        (pending(), "Pending, attempt 1, run 1", "WaitingForLaunch", "launch"),
        (running(), "Running, attempt 1, run 1", "WorkerRunning: worker worker-of-task-1 is at work", None),
        (succeeded(), "Succeeded, attempt 1, run 1", "WorkerSucceeded", None),
        (failed(), "Failed, attempt 1, run 1", "WorkerFailed: E1: boom", "annotate alakai.dev/retry to retry"),
        (failed(attempts=2), "Failed, attempt 2, run 2", "WorkerFailed", "nothing: no retry is left"),
        (cancelled(), "Cancelled, attempt 1", "Cancelled: not needed", None),
        (cancelling(running()), "Running, attempt 1, run 1", "Cancelling: not needed", None),
        (lost(), "Failed, attempt 1, run 1", "WorkerOom: out of memory", "annotate alakai.dev/retry to retry"),
    ],
)
def test_each_state_has_its_reason_and_its_next_step(
    execution: Execution, state: str, why: str, following: str | None
) -> None:
    lines = said(execution)
    assert lines["task-1"].startswith(state)
    assert lines["why"].startswith(why)
    assert lines.get("next") == following


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
