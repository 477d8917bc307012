"""From one look at a worker to a verdict."""

from __future__ import annotations

import pytest

from executions.evidence import Fate, Observation, Verdict, WorkerState, judge
from executions.lifecycle import claim_launch, suspect
from executions.policy import Policy
from executions.record import Attempt, Suspicion
from tests.support.builders import NOW_MS, POLICY, running
from tests.unit.domain.states import by_hand

GRACE_MS = POLICY.lost_worker_grace_ms
START_MS = POLICY.start_timeout_ms
LIMIT_MS = 3_600_000
LIMITED = Policy(attempt_timeout_ms=LIMIT_MS)

GONE = (WorkerState.STOPPED, WorkerState.MISSING)
PRESENT = (WorkerState.STARTING, WorkerState.RUNNING)


def seen(state: WorkerState, *, never_started: bool = False) -> Observation:
    return Observation("worker", state, "fake:look", "as seen", never_started=never_started)


def claimed_attempt() -> Attempt:
    execution = claim_launch(running(), "task-1", attempt=1, launch_try=1, claim_id="one", now_ms=NOW_MS).execution
    assert execution is not None
    return execution.latest


def suspected(since_ms: int, looks: int = 1) -> Attempt:
    return suspect(running(), 1, suspicion=Suspicion(since=since_ms, looks=looks)).latest


def look(
    attempt: Attempt, state: WorkerState, after_ms: int, *, policy: Policy = POLICY, never_started: bool = False
) -> Verdict:
    return judge(attempt, seen(state, never_started=never_started), now_ms=NOW_MS + after_ms, policy=policy)


@pytest.mark.parametrize("state", GONE)
def test_a_worker_that_looks_gone_is_suspected_first(state: WorkerState) -> None:
    verdict = look(running().latest, state, 5)
    assert (verdict.fate, verdict.code) == (Fate.SUSPECTED, None)
    assert verdict.suspicion is not None
    assert (verdict.suspicion.since, verdict.suspicion.looks) == (NOW_MS + 5, 1)
    (evidence,) = verdict.suspicion.evidence
    assert (evidence.source, evidence.observed_at, evidence.detail) == ("fake:look", NOW_MS + 5, "as seen")


@pytest.mark.parametrize("state", GONE)
@pytest.mark.parametrize(
    ("since_ms", "now_ms", "policy", "fate"),
    [
        pytest.param(0, GRACE_MS - 1, POLICY, Fate.SUSPECTED, id="a second look within the grace is not enough"),
        pytest.param(0, GRACE_MS, POLICY, Fate.LOST, id="a second look after the grace is"),
        pytest.param(None, 10 * GRACE_MS, POLICY, Fate.SUSPECTED, id="a first look never is, however late it comes"),
        pytest.param(None, 0, Policy(lost_worker_grace_ms=0), Fate.SUSPECTED, id="not even without a grace"),
        pytest.param(0, 0, Policy(lost_worker_grace_ms=0), Fate.LOST, id="without a grace the second look is enough"),
    ],
)
def test_the_grace_and_the_second_look(
    state: WorkerState, since_ms: int | None, now_ms: int, policy: Policy, fate: Fate
) -> None:
    attempt = running().latest if since_ms is None else suspected(NOW_MS + since_ms)
    assert look(attempt, state, now_ms, policy=policy).fate is fate


def test_a_lost_worker_leaves_its_evidence() -> None:
    first = look(running().latest, WorkerState.STOPPED, 0)
    attempt = suspect(running(), 1, suspicion=first.suspicion).latest
    verdict = look(attempt, WorkerState.MISSING, GRACE_MS)
    assert (verdict.fate, verdict.code) == (Fate.LOST, "WORKER_LOST")
    assert verdict.message == "the worker is gone without a callback for 60 s: as seen"
    assert [item.observed_at for item in verdict.evidence] == [NOW_MS, NOW_MS + GRACE_MS]


def test_of_many_looks_that_show_the_same_the_first_and_the_latest_are_kept() -> None:
    attempt = running().latest
    for number in range(30):
        verdict = look(attempt, WorkerState.STOPPED, number)
        attempt = suspect(running(), 1, suspicion=verdict.suspicion).latest
    assert attempt.suspicion is not None
    assert (attempt.suspicion.since, attempt.suspicion.looks) == (NOW_MS, 30)
    assert [item.observed_at for item in attempt.suspicion.evidence] == [NOW_MS, NOW_MS + 29]


def test_the_evidence_of_many_different_looks_is_bounded() -> None:
    attempt = running().latest
    for number in range(30):
        observation = Observation("worker", WorkerState.STOPPED, "test", f"look {number}")
        verdict = judge(attempt, observation, now_ms=NOW_MS + number, policy=POLICY)
        attempt = suspect(running(), 1, suspicion=verdict.suspicion).latest
    assert attempt.suspicion is not None
    assert [item.detail for item in attempt.suspicion.evidence] == [f"look {number}" for number in range(22, 30)]


@pytest.mark.parametrize("state", PRESENT)
def test_a_worker_that_is_there_is_alive_whatever_was_suspected(state: WorkerState) -> None:
    for attempt in (running().latest, suspected(NOW_MS, looks=9), by_hand(started_at=NOW_MS).latest):
        assert look(attempt, state, 10 * GRACE_MS) == Verdict(Fate.ALIVE)


# Deadlines of a worker that is there


@pytest.mark.parametrize(
    ("attempt", "state", "after_ms", "policy", "code"),
    [
        pytest.param(running().latest, WorkerState.STARTING, START_MS - 1, POLICY, None, id="it may still start"),
        pytest.param(
            running().latest, WorkerState.STARTING, START_MS, POLICY, "START_TIMEOUT", id="it starts too late"
        ),
        pytest.param(
            running().latest, WorkerState.RUNNING, 10 * START_MS, POLICY, None, id="a running one started, claim or not"
        ),
        pytest.param(
            claimed_attempt(), WorkerState.STARTING, 10 * START_MS, POLICY, None, id="one that claimed has started"
        ),
        pytest.param(
            by_hand(started_at=NOW_MS).latest,
            WorkerState.STARTING,
            10 * START_MS,
            POLICY,
            None,
            id="one without a launch of ours has no start deadline",
        ),
        pytest.param(claimed_attempt(), WorkerState.RUNNING, LIMIT_MS - 1, LIMITED, None, id="it may still run"),
        pytest.param(
            claimed_attempt(), WorkerState.RUNNING, LIMIT_MS, LIMITED, "ATTEMPT_TIMEOUT", id="it runs too long"
        ),
        pytest.param(
            by_hand().latest, WorkerState.RUNNING, LIMIT_MS, LIMITED, None, id="without a start time it has no limit"
        ),
        pytest.param(
            running().latest,
            WorkerState.STARTING,
            LIMIT_MS,
            LIMITED,
            "ATTEMPT_TIMEOUT",
            id="too long beats too late",
        ),
    ],
)
def test_a_worker_past_its_deadline_is_stopped_before_it_is_judged(
    attempt: Attempt, state: WorkerState, after_ms: int, policy: Policy, code: str | None
) -> None:
    verdict = look(attempt, state, after_ms, policy=policy)
    assert (verdict.fate, verdict.code) == (Fate.ALIVE if code is None else Fate.STOP, code)
    if code is not None:
        assert verdict.message == f"{code}: as seen"
        assert verdict.suspicion is None


# Never started


@pytest.mark.parametrize("state", GONE)
@pytest.mark.parametrize(
    ("after_ms", "code"),
    [
        pytest.param(0, "WORKER_NEVER_STARTED", id="within the start deadline"),
        pytest.param(START_MS, "START_TIMEOUT", id="past the start deadline"),
    ],
)
def test_proof_that_a_worker_never_started_needs_no_second_look(state: WorkerState, after_ms: int, code: str) -> None:
    for policy in (POLICY, Policy(attempt_timeout_ms=1)):
        verdict = look(running().latest, state, after_ms, never_started=True, policy=policy)
        assert (verdict.fate, verdict.code) == (Fate.NEVER_STARTED, code)
        assert verdict.message == "the worker never started: as seen"
        assert verdict.suspicion is not None
        assert list(verdict.evidence) == verdict.suspicion.evidence


@pytest.mark.parametrize("state", GONE)
def test_a_worker_that_does_not_claim_is_not_taken_for_one_that_never_started(state: WorkerState) -> None:
    """Workers that read their payload from Redis never claim; launched again, they would do their work twice."""
    assert look(running().latest, state, START_MS).fate is Fate.SUSPECTED
    verdict = look(suspected(NOW_MS + START_MS), state, START_MS + GRACE_MS)
    assert (verdict.fate, verdict.code) == (Fate.LOST, "WORKER_LOST")


# Ran too long, and then gone


@pytest.mark.parametrize(
    ("since_ms", "code"),
    [
        pytest.param(LIMIT_MS, "ATTEMPT_TIMEOUT", id="gone after its limit, because we stopped it"),
        pytest.param(LIMIT_MS - 1, "WORKER_LOST", id="gone before its limit, though judged after it"),
    ],
)
def test_the_limit_is_held_against_the_time_at_which_the_worker_was_gone(since_ms: int, code: str) -> None:
    verdict = look(suspected(NOW_MS + since_ms), WorkerState.STOPPED, since_ms + GRACE_MS, policy=LIMITED)
    assert (verdict.fate, verdict.code) == (Fate.LOST, code)
