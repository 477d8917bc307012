"""From one look at a worker to a verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from executions.evidence import OWN_STOP, PERMANENT, Fate, Observation, Verdict, WorkerState, judge, report_is_overdue
from executions.lifecycle import claim_launch, stop_ordered, suspect
from executions.names import OUR_ERROR_CODES
from executions.policy import Policy
from executions.record import Attempt, Execution, Grade, Judgement, StopOrder, Suspicion
from tests.support.builders import NOW_MS, POLICY, running
from tests.unit.domain.states import by_hand, stop_reported

GRACE_MS = POLICY.lost_worker_grace_ms
START_MS = POLICY.start_timeout_ms
YOUNG_MS = 60_000
LIMIT_MS = 3_600_000
LIMITED = Policy(attempt_timeout_ms=LIMIT_MS)

STOPPED, MISSING, RUNNING, STARTING = (
    WorkerState.STOPPED,
    WorkerState.MISSING,
    WorkerState.RUNNING,
    WorkerState.STARTING,
)
PRESENT = (STARTING, RUNNING)


def seen(state: WorkerState, **fields: Any) -> Observation:
    return Observation("worker", state, "fake:look", fields.pop("detail", "as seen"), **fields)


def claimed_attempt() -> Attempt:
    execution = claim_launch(running(), "task-1", attempt=1, launch_try=1, claim_id="one", now_ms=NOW_MS).execution
    assert execution is not None
    return execution.latest


def told_to_stop(code: str = "ATTEMPT_TIMEOUT", execution: Execution | None = None) -> Attempt:
    return stop_ordered(execution or running(), 1, StopOrder(code=code, asked_at=NOW_MS)).latest


def look(attempt: Attempt, state: WorkerState, after_ms: int, *, policy: Policy = POLICY, **fields: Any) -> Verdict:
    alive_ms = fields.pop("seen_alive_ms", None)
    observation = seen(state, **fields)
    return judge(attempt, observation, now_ms=NOW_MS + after_ms, policy=policy, seen_alive_ms=alive_ms)


def looked(attempt: Attempt, *looks: tuple[WorkerState, int], policy: Policy = POLICY, **fields: Any) -> Verdict:
    """The last verdict of several looks in a row, each so much later than now; all but the last must only suspect."""
    verdict = Verdict(Fate.ALIVE)
    for state, after_ms in looks:
        verdict = look(attempt, state, after_ms, policy=policy, **fields)
        attempt = attempt.model_copy(update={"suspicion": verdict.suspicion})
    return verdict


def spoken(verdict: Verdict) -> Judgement:
    assert verdict.spoken is not None, verdict
    return verdict.spoken


# Suspected first


def test_a_worker_that_stopped_is_suspected_first() -> None:
    verdict = look(running().latest, STOPPED, 5, code="WORKER_OOM", version=7)
    assert (verdict.fate, verdict.spoken) == (Fate.SUSPECTED, None)
    assert verdict.suspicion is not None
    assert (verdict.suspicion.since, verdict.suspicion.looks) == (NOW_MS + 5, 1)
    (evidence,) = verdict.suspicion.evidence
    assert (evidence.source, evidence.observed_at, evidence.detail) == ("fake:look", NOW_MS + 5, "as seen")
    assert (evidence.code, evidence.version) == ("WORKER_OOM", 7)


@pytest.mark.parametrize(
    ("looks", "policy", "fate"),
    [
        pytest.param([0, GRACE_MS - 1], POLICY, Fate.SUSPECTED, id="a second look within the grace is not enough"),
        pytest.param([0, GRACE_MS], POLICY, Fate.LOST, id="a second look after the grace is"),
        pytest.param([10 * GRACE_MS], POLICY, Fate.SUSPECTED, id="a first look never is, however late it comes"),
        pytest.param([0], Policy(lost_worker_grace_ms=0), Fate.SUSPECTED, id="not even without a grace"),
        pytest.param([0, 0], Policy(lost_worker_grace_ms=0), Fate.LOST, id="without a grace the second look is enough"),
    ],
)
def test_the_grace_and_the_second_look_at_a_stopped_worker(looks: list[int], policy: Policy, fate: Fate) -> None:
    assert looked(running().latest, *[(STOPPED, after_ms) for after_ms in looks], policy=policy).fate is fate


@pytest.mark.parametrize(
    ("looks", "fate"),
    [
        pytest.param([0, 1, 30_000, YOUNG_MS - 1], Fate.SUSPECTED, id="right after the launch it says nothing"),
        pytest.param([YOUNG_MS - 1, YOUNG_MS, YOUNG_MS + GRACE_MS], Fate.SUSPECTED, id="early looks do not count"),
        pytest.param([YOUNG_MS, YOUNG_MS + GRACE_MS], Fate.SUSPECTED, id="two looks are not enough"),
        pytest.param([YOUNG_MS, YOUNG_MS + 1, YOUNG_MS + GRACE_MS - 1], Fate.SUSPECTED, id="nor three in the grace"),
        pytest.param([YOUNG_MS, YOUNG_MS + 1, YOUNG_MS + GRACE_MS], Fate.LOST, id="three looks and the grace are"),
    ],
)
def test_a_worker_that_nobody_has_seen_yet_may_be_missing_for_a_while(looks: list[int], fate: Fate) -> None:
    verdict = looked(running().latest, *[(MISSING, after_ms) for after_ms in looks])
    assert verdict.fate is fate
    if fate is Fate.LOST:
        assert (spoken(verdict).grade, spoken(verdict).code) == (Grade.PRESUMED, "WORKER_LOST")


def test_a_young_missing_worker_is_not_even_suspected() -> None:
    assert look(running().latest, MISSING, YOUNG_MS - 1) == Verdict(Fate.SUSPECTED, None)


@pytest.mark.parametrize(
    ("attempt", "seen_alive_ms"),
    [
        pytest.param(running().latest, NOW_MS + 1, id="seen alive by an earlier look"),
        pytest.param(claimed_attempt(), None, id="it claimed its launch"),
    ],
)
def test_a_worker_missing_after_it_was_alive_is_probably_lost_however_young(
    attempt: Attempt, seen_alive_ms: int | None
) -> None:
    policy = Policy(lost_worker_grace_ms=100)
    verdict = looked(attempt, (MISSING, 2), (MISSING, 3), (MISSING, 102), policy=policy, seen_alive_ms=seen_alive_ms)
    assert (verdict.fate, spoken(verdict).grade) == (Fate.LOST, Grade.PROBABLE)
    assert spoken(verdict).last_seen_alive_at in (NOW_MS, NOW_MS + 1)
    assert spoken(verdict).refuted_by == "a callback of launch 1 or a look that finds its worker"


def test_a_record_written_by_hand_has_no_youth() -> None:
    verdict = looked(by_hand().latest, (MISSING, 0), (MISSING, 1), (MISSING, GRACE_MS))
    assert (verdict.fate, spoken(verdict).launch_try) == (Fate.LOST, None)
    assert spoken(verdict).refuted_by == "a callback of this worker or a look that finds its worker"


# What a lost worker leaves


def test_a_lost_worker_leaves_its_evidence() -> None:
    verdict = looked(running().latest, (STOPPED, 0), (MISSING, GRACE_MS))
    assert verdict.suspicion is not None
    assert [item.observed_at for item in verdict.suspicion.evidence] == [NOW_MS, NOW_MS + GRACE_MS]
    assert spoken(verdict) == Judgement(
        kind="lost",
        grade=Grade.PROBABLE,
        code="WORKER_LOST",
        message="the worker is gone without a callback for 60 s (probable; a callback of launch 1 would refute it): "
        "as seen",
        refuted_by="a callback of launch 1",
        spoken_at=NOW_MS + GRACE_MS,
        detected_after_ms=GRACE_MS,
        launch_try=1,
    )


@pytest.mark.parametrize(
    ("found", "code", "grade"),
    [
        ("WORKER_OOM", "WORKER_OOM", Grade.CONFIRMED),
        ("WORKER_FAILED", "WORKER_FAILED", Grade.CONFIRMED),
        ("COMPLETED_UNREPORTED", "COMPLETED_UNREPORTED", Grade.CONFIRMED),
        ("WORKER_STOPPED_EXTERNALLY", "WORKER_STOPPED_EXTERNALLY", Grade.CONFIRMED),
        (OWN_STOP, "WORKER_STOPPED_EXTERNALLY", Grade.CONFIRMED),  # of which our record knows nothing
        ("WORKER_LOST", "WORKER_LOST", Grade.PROBABLE),
        (None, "WORKER_LOST", Grade.PROBABLE),  # a launcher that only knows "gone"
        ("POD_EVICTED", "POD_EVICTED", Grade.CONFIRMED),  # a launcher of somebody else
    ],
)
def test_what_the_launcher_found_is_the_code_and_the_grade(found: str | None, code: str, grade: Grade) -> None:
    verdict = looked(running().latest, (STOPPED, 0), (STOPPED, GRACE_MS), code=found)
    assert (verdict.fate, spoken(verdict).code, spoken(verdict).grade) == (Fate.LOST, code, grade)
    assert f"({grade}; a callback of launch 1 would refute it): as seen" in spoken(verdict).message


def test_what_it_died_of_outlives_the_platforms_memory() -> None:
    """ECS forgets a stopped task after an hour: the sweep may have been away for longer."""
    first = look(running().latest, STOPPED, 0, code="WORKER_OOM", detail="exit code 137", happened_ms=NOW_MS - 5)
    attempt = suspect(running(), 1, suspicion=first.suspicion).latest
    verdict = look(attempt, MISSING, 2 * GRACE_MS, detail="not known")
    assert (spoken(verdict).code, spoken(verdict).grade) == ("WORKER_OOM", Grade.CONFIRMED)
    assert spoken(verdict).message.endswith(": exit code 137")
    assert spoken(verdict).detected_after_ms == 2 * GRACE_MS + 5


@pytest.mark.parametrize(
    ("happened_ms", "seen_alive_ms", "expected_ms"),
    [
        (NOW_MS - 4_000, NOW_MS - 9_000, GRACE_MS + 4_000),
        (None, NOW_MS - 9_000, GRACE_MS + 9_000),
        (None, None, GRACE_MS),
        (NOW_MS + 10 * GRACE_MS, None, 0),  # the platform's clock is ahead of ours
    ],
)
def test_detection_is_measured_from_the_earliest_that_is_known(
    happened_ms: int | None, seen_alive_ms: int | None, expected_ms: int
) -> None:
    verdict = looked(
        running().latest, (STOPPED, 0), (STOPPED, GRACE_MS), happened_ms=happened_ms, seen_alive_ms=seen_alive_ms
    )
    assert spoken(verdict).detected_after_ms == expected_ms


def test_the_message_is_one_bounded_line_without_secrets() -> None:
    detail = "token=hunter2 " + "x\n" * 4000
    message = spoken(looked(running().latest, (STOPPED, 0), (STOPPED, GRACE_MS), detail=detail)).message
    assert message.isprintable()
    assert len(message) <= 512
    assert "hunter2" not in message
    assert "would refute it" in message


def test_of_many_looks_that_show_the_same_the_first_and_the_latest_are_kept() -> None:
    verdict = looked(running().latest, *[(STOPPED, number) for number in range(30)])
    assert verdict.suspicion is not None
    assert (verdict.suspicion.since, verdict.suspicion.looks) == (NOW_MS, 30)
    assert [item.observed_at for item in verdict.suspicion.evidence] == [NOW_MS, NOW_MS + 29]


def test_the_evidence_of_many_different_looks_is_bounded() -> None:
    attempt = running().latest
    for number in range(30):
        verdict = look(attempt, STOPPED, number, detail=f"look {number}")
        attempt = suspect(running(), 1, suspicion=verdict.suspicion).latest
    assert attempt.suspicion is not None
    assert [item.detail for item in attempt.suspicion.evidence] == [f"look {number}" for number in range(22, 30)]


# Alive


@pytest.mark.parametrize("state", PRESENT)
def test_a_worker_that_is_there_is_alive_whatever_was_suspected(state: WorkerState) -> None:
    suspected = suspect(running(), 1, suspicion=Suspicion(since=NOW_MS, looks=9)).latest
    for attempt in (running().latest, suspected, by_hand(started_at=NOW_MS).latest):
        assert look(attempt, state, 10 * GRACE_MS) == Verdict(Fate.ALIVE)


@pytest.mark.parametrize(
    ("version", "fate"),
    [
        pytest.param(4, Fate.SUSPECTED, id="older than the stop that is known"),
        pytest.param(5, Fate.ALIVE, id="as new"),
        pytest.param(None, Fate.ALIVE, id="a launcher without versions"),
    ],
)
def test_an_answer_that_was_overtaken_says_nothing(version: int | None, fate: Fate) -> None:
    first = look(running().latest, STOPPED, 0, version=5)
    attempt = suspect(running(), 1, suspicion=first.suspicion).latest
    verdict = look(attempt, RUNNING, 1, version=version)
    assert verdict.fate is fate
    assert verdict.suspicion == (attempt.suspicion if fate is Fate.SUSPECTED else None)


# Deadlines of a worker that is there


@pytest.mark.parametrize(
    ("attempt", "state", "after_ms", "policy", "code"),
    [
        pytest.param(running().latest, STARTING, START_MS - 1, POLICY, None, id="it may still start"),
        pytest.param(running().latest, STARTING, START_MS, POLICY, "START_TIMEOUT", id="it starts too late"),
        pytest.param(running().latest, RUNNING, 10 * START_MS, POLICY, None, id="a running one started, claim or not"),
        pytest.param(claimed_attempt(), STARTING, 10 * START_MS, POLICY, None, id="one that claimed has started"),
        pytest.param(
            by_hand(started_at=NOW_MS).latest,
            STARTING,
            10 * START_MS,
            POLICY,
            None,
            id="one without a launch of ours has no start deadline",
        ),
        pytest.param(claimed_attempt(), RUNNING, LIMIT_MS - 1, LIMITED, None, id="it may still run"),
        pytest.param(claimed_attempt(), RUNNING, LIMIT_MS, LIMITED, "ATTEMPT_TIMEOUT", id="it runs too long"),
        pytest.param(by_hand().latest, RUNNING, LIMIT_MS, LIMITED, None, id="without a start time it has no limit"),
        pytest.param(running().latest, STARTING, LIMIT_MS, LIMITED, "ATTEMPT_TIMEOUT", id="too long beats too late"),
        pytest.param(told_to_stop(), RUNNING, 1, POLICY, "ATTEMPT_TIMEOUT", id="told to stop, and still there"),
    ],
)
def test_a_worker_past_its_deadline_is_stopped_before_it_is_judged(
    attempt: Attempt, state: WorkerState, after_ms: int, policy: Policy, code: str | None
) -> None:
    verdict = look(attempt, state, after_ms, policy=policy)
    assert verdict.fate is (Fate.ALIVE if code is None else Fate.STOP)
    assert (verdict.stop.code if verdict.stop else None) == code
    assert (verdict.spoken, verdict.suspicion) == (None, None)


@pytest.mark.parametrize("code", sorted(PERMANENT))
def test_a_worker_that_will_never_start_is_stopped_at_once_and_ends_the_attempt(code: str) -> None:
    """Kubernetes tries to pull an image for ever, and never says that the pod has failed."""
    verdict = look(running().latest, STARTING, 0, code=code)
    assert (verdict.fate, verdict.stop) == (Fate.STOP, StopOrder(code=code, asked_at=NOW_MS))
    proven = look(told_to_stop(code), STOPPED, 1, never_started=True)
    doubtful = looked(told_to_stop(code), (STOPPED, 0), (STOPPED, GRACE_MS))
    assert [item.fate for item in (proven, doubtful)] == [Fate.NEVER_STARTED, Fate.LOST]
    for item in (proven, doubtful):
        assert spoken(item).code == code
        assert item.is_permanent


# Never started


@pytest.mark.parametrize(
    ("attempt", "after_ms", "found", "code", "fate"),
    [
        pytest.param(running().latest, 0, None, "WORKER_NEVER_STARTED", Fate.NEVER_STARTED, id="in time"),
        pytest.param(running().latest, START_MS, None, "START_TIMEOUT", Fate.NEVER_STARTED, id="past the deadline"),
        pytest.param(
            told_to_stop("START_TIMEOUT"), 1, OWN_STOP, "START_TIMEOUT", Fate.NEVER_STARTED, id="stopped by us"
        ),
        pytest.param(
            running().latest, START_MS, "WORKER_PREEMPTED", "WORKER_PREEMPTED", Fate.PREEMPTED, id="taken away"
        ),
        pytest.param(
            running().latest,
            0,
            "WORKER_STOPPED_EXTERNALLY",
            "WORKER_STOPPED_EXTERNALLY",
            Fate.NEVER_STARTED,
            id="stopped by somebody else",
        ),
        pytest.param(running().latest, START_MS, "IMAGE_ERROR", "IMAGE_ERROR", Fate.NEVER_STARTED, id="no image"),
        pytest.param(by_hand().latest, 0, None, "WORKER_NEVER_STARTED", Fate.NEVER_STARTED, id="written by hand"),
    ],
)
def test_proof_that_a_worker_never_started_needs_no_second_look(
    attempt: Attempt, after_ms: int, found: str | None, code: str, fate: Fate
) -> None:
    for policy in (POLICY, Policy(attempt_timeout_ms=1)):
        verdict = look(attempt, STOPPED, after_ms, never_started=True, code=found, policy=policy)
        assert (verdict.fate, spoken(verdict).code, spoken(verdict).grade) == (fate, code, Grade.CONFIRMED)
        assert verdict.is_permanent == (code in PERMANENT)
        assert code in OUR_ERROR_CODES


def test_proof_that_it_never_started_is_refuted_by_a_claim() -> None:
    """A worker that claimed was started, whatever a platform says afterwards."""
    verdict = look(claimed_attempt(), STOPPED, 0, never_started=True)
    assert verdict.fate is Fate.SUSPECTED
    after = looked(claimed_attempt(), (STOPPED, 0), (STOPPED, GRACE_MS), never_started=True)
    assert after.fate is Fate.LOST
    assert (
        spoken(look(running().latest, STOPPED, 0, never_started=True)).refuted_by == "a claim or callback of launch 1"
    )


def test_a_worker_that_never_started_is_still_known_as_such_when_it_is_forgotten() -> None:
    """While kept outcomes are waited for no verdict is spoken, and ECS forgets the task meanwhile."""
    first = look(running().latest, STOPPED, 0, never_started=True)
    attempt = suspect(running(), 1, suspicion=first.suspicion).latest
    assert look(attempt, MISSING, 100 * GRACE_MS).fate is Fate.NEVER_STARTED


@pytest.mark.parametrize("state", [STOPPED, MISSING])
def test_a_worker_that_does_not_claim_is_not_taken_for_one_that_never_started(state: WorkerState) -> None:
    """Workers that read their payload from Redis never claim; launched again, they would do their work twice."""
    looks = [(state, START_MS), (state, START_MS + 1), (state, START_MS + GRACE_MS)]
    verdict = looked(running().latest, *looks)
    assert (verdict.fate, spoken(verdict).code) == (Fate.LOST, "WORKER_LOST")


# Taken away by the platform


def test_a_worker_that_was_taken_away_is_launched_again_only_after_the_grace() -> None:
    """Its callback may have been on the way when it was taken."""
    attempt = running().latest
    assert looked(attempt, (STOPPED, 0), (STOPPED, GRACE_MS - 1), code="WORKER_PREEMPTED").fate is Fate.SUSPECTED
    verdict = looked(attempt, (STOPPED, 0), (STOPPED, GRACE_MS), code="WORKER_PREEMPTED")
    assert (verdict.fate, spoken(verdict).code) == (Fate.PREEMPTED, "WORKER_PREEMPTED")
    assert not verdict.is_permanent


# Stopped by us because of a deadline


@pytest.mark.parametrize("found", [None, OWN_STOP, "WORKER_FAILED", "WORKER_OOM", "WORKER_PREEMPTED"])
def test_a_worker_that_we_told_to_stop_ends_as_what_we_told_it_for(found: str | None) -> None:
    verdict = looked(told_to_stop(), (STOPPED, 0), (STOPPED, GRACE_MS), code=found)
    assert (verdict.fate, spoken(verdict).code) == (Fate.LOST, "ATTEMPT_TIMEOUT")
    assert spoken(verdict).grade is Grade.CONFIRMED


def test_a_worker_that_died_past_its_limit_before_we_told_it_to_stop_died_of_its_own_cause() -> None:
    verdict = looked(
        running().latest, (STOPPED, LIMIT_MS), (STOPPED, LIMIT_MS + GRACE_MS), policy=LIMITED, code="WORKER_OOM"
    )
    assert spoken(verdict).code == "WORKER_OOM"


# The worker said that it was told to stop


@pytest.mark.parametrize(
    ("observation", "after_ms", "fate"),
    [
        pytest.param(seen(RUNNING), 1, Fate.SUSPECTED, id="still there: the next look may tell by whom"),
        pytest.param(seen(RUNNING), GRACE_MS, Fate.REPORTED, id="still there after the grace: its word is all"),
        pytest.param(seen(STOPPED), 1, Fate.REPORTED, id="gone, and nobody says by whom"),
        pytest.param(seen(STOPPED, code="WORKER_FAILED"), 1, Fate.REPORTED, id="its exit code says less than its word"),
        pytest.param(seen(STOPPED, code="WORKER_PREEMPTED"), 1, Fate.PREEMPTED, id="the platform took it away"),
        pytest.param(
            seen(RUNNING, code="WORKER_PREEMPTED"),
            9 * GRACE_MS,
            Fate.SUSPECTED,
            id="the platform is taking it away: nothing may be launched yet",
        ),
        pytest.param(seen(MISSING), 1, Fate.SUSPECTED, id="missing says nothing yet"),
    ],
)
def test_a_worker_that_felt_a_signal_is_looked_at_before_it_is_believed(
    observation: Observation, after_ms: int, fate: Fate
) -> None:
    attempt = stop_reported(running()).latest
    verdict = judge(attempt, observation, now_ms=NOW_MS + after_ms, policy=POLICY)
    assert verdict.fate is fate
    assert verdict.suspicion is not None
    assert verdict.suspicion.report == attempt.suspicion.report if attempt.suspicion else False


def test_a_spot_notice_is_remembered_when_the_stopped_task_says_nothing() -> None:
    attempt = stop_reported(running()).latest
    verdict = judge(attempt, seen(RUNNING, code="WORKER_PREEMPTED"), now_ms=NOW_MS + 1, policy=POLICY)
    attempt = attempt.model_copy(update={"suspicion": verdict.suspicion})
    assert looked(attempt, (MISSING, 2), (MISSING, 3), (MISSING, GRACE_MS)).fate is Fate.PREEMPTED


def test_a_missing_worker_that_felt_a_signal_is_believed_after_the_grace() -> None:
    verdict = looked(stop_reported(running()).latest, (MISSING, 1), (MISSING, 2), (MISSING, GRACE_MS))
    assert verdict.fate is Fate.REPORTED


def test_a_report_is_overdue_after_the_grace() -> None:
    suspicion = stop_reported(running()).latest.suspicion
    assert not report_is_overdue(suspicion, NOW_MS + GRACE_MS - 1, POLICY)
    assert report_is_overdue(suspicion, NOW_MS + GRACE_MS, POLICY)
    assert not report_is_overdue(None, NOW_MS + GRACE_MS, POLICY)
    assert not report_is_overdue(Suspicion(since=0), NOW_MS + GRACE_MS, POLICY)


def test_judging_is_pure() -> None:
    attempt, observation = running().latest, seen(STOPPED, code="WORKER_OOM", version=3)
    first = judge(attempt, observation, now_ms=NOW_MS, policy=POLICY)
    assert first == judge(attempt, replace(observation), now_ms=NOW_MS, policy=POLICY)
    assert attempt == running().latest
