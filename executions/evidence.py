"""From what a launcher saw of a worker to a verdict on it.

Errors of a launcher's API are not observations and never reach this module: only a positive look counts. A worker
that looks gone is suspected first and judged only after the grace period and a further look, because its callback may
still be on the way and because some APIs do not know a worker yet that they just started. Who looks, and who commits
what is judged here, is ``controller/loops/sweep.py``.

Who is believed: a success that is reported, always; what we asked for ourselves (``Attempt.stop``) before what anybody
says of a stopped worker; the platform that took a worker away before the worker, which only felt the signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from alakai_worker.redaction import sanitised

from executions.policy import Policy
from executions.record import Attempt, Evidence, Grade, Judgement, StopOrder, Suspicion

PREEMPTED = "WORKER_PREEMPTED"
STOPPED_EXTERNALLY = "WORKER_STOPPED_EXTERNALLY"
LOST = "WORKER_LOST"
OWN_STOP = "CANCELLED"
"""A launcher's finding: stopped at our own request. What it was requested for stands in the record."""
PERMANENT = frozenset({"IMAGE_ERROR", "LAUNCH_REJECTED"})
"""Findings that would be the same at the next launch: the attempt ends."""

_LOOKS_NEEDED = 2
_MISSING_LOOKS_NEEDED = 3
_UNKNOWN_MS = 60_000
"""For so long after its launch intent a worker that nobody has seen yet may be missing without a meaning.

ECS is eventually consistent: RunTask's page in the API model advises to describe a new task with waits from "a couple
of seconds" up to five minutes; the longest that users report is 51 s. With the looks and the grace that follow it takes
two minutes at the default settings, and what is then concluded is graded ``presumed``.
"""
_EVIDENCE_KEPT = 8

_CAUSES = {
    "ATTEMPT_TIMEOUT": "the attempt ran too long and its worker was stopped",
    "COMPLETED_UNREPORTED": "the worker ended well and never reported, which is no success",
    "IMAGE_ERROR": "the worker's image cannot be pulled",
    "LAUNCH_REJECTED": "the platform will never start this worker",
    "START_TIMEOUT": "the worker did not start in time and was stopped",
    PREEMPTED: "the platform took the worker away",
    "WORKER_FAILED": "the worker failed and never reported",
    "WORKER_NEVER_STARTED": "the worker never started",
    "WORKER_OOM": "the worker ran out of memory",
    STOPPED_EXTERNALLY: "the worker was stopped by somebody else",
}


class WorkerState(StrEnum):
    """What one look at a worker showed."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    MISSING = "missing"
    """The launcher answered and does not know the worker."""

    @property
    def is_present(self) -> bool:
        return self in (WorkerState.STARTING, WorkerState.RUNNING)


@dataclass(frozen=True, slots=True)
class Observation:
    """One successful look at one worker."""

    worker_id: str
    state: WorkerState
    source: str
    """Where it was seen, for example ``ecs:DescribeTasks``."""
    detail: str
    """What was seen, in words for a person; no secrets."""
    exit_code: int | None = None
    never_started: bool = False
    """The launcher proves that the worker's program never ran."""
    code: str | None = None
    """What the launcher found of a stopped worker: an error code of ours, or OWN_STOP. None: it only knows "gone".

    One of PERMANENT may also come with a worker that is starting: it never will, and is to be stopped.
    """
    version: int | None = None
    """Rises with each change of the worker, where the launcher counts them; an older look than one seen is ignored."""
    happened_ms: int | None = None
    """When the worker stopped, where the launcher says so."""


class Fate(StrEnum):
    """What to do about an attempt after a look."""

    ALIVE = "alive"
    SUSPECTED = "suspected"
    STOP = "stop"
    """Alive past a deadline: stop it; it is judged once it is gone."""
    REPORTED = "reported"
    """The worker said that it was told to stop, and nothing says more: its word is the attempt's end."""
    NEVER_STARTED = "never_started"
    PREEMPTED = "preempted"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on a live attempt. ``spoken`` is set for the last three fates, ``stop`` for STOP."""

    fate: Fate
    suspicion: Suspicion | None = None
    """What the record is to remember; the evidence that led to ``spoken``."""
    spoken: Judgement | None = None
    stop: StopOrder | None = None

    @property
    def is_permanent(self) -> bool:
        """Whether another launch would end in the same way."""
        return self.spoken is not None and self.spoken.code in PERMANENT


def judge(
    attempt: Attempt, observation: Observation, *, now_ms: int, policy: Policy, seen_alive_ms: int | None = None
) -> Verdict:
    """Judge one look at the worker of a live attempt. ``seen_alive_ms`` is when an earlier look found it alive."""
    past = attempt.suspicion
    if past is not None and _is_older(observation, past):
        return Verdict(Fate.SUSPECTED, past)
    if observation.state.is_present:
        return _judge_present(attempt, observation, now_ms, policy)
    found = _suspected(attempt, observation, now_ms, seen_alive_ms)
    launch = attempt.launch
    was_ever_seen = found.has_stopped or found.last_seen_alive_at is not None or found.report is not None
    if not was_ever_seen and launch is not None and now_ms - launch.intent_at < _UNKNOWN_MS:
        return Verdict(Fate.SUSPECTED, past)
    if found.never_started and found.report is None and (launch is None or launch.claim_id is None):
        code = _code_of_unstarted(attempt, found, now_ms)
        fate = Fate.PREEMPTED if code == PREEMPTED else Fate.NEVER_STARTED
        return _spoken(attempt, found, fate, code, now_ms, policy)
    if not _is_ripe(found, now_ms, policy):
        return Verdict(Fate.SUSPECTED, found)
    if attempt.stop is not None:
        return _spoken(attempt, found, Fate.LOST, attempt.stop.code, now_ms, policy)
    if found.code == PREEMPTED:
        return _spoken(attempt, found, Fate.PREEMPTED, PREEMPTED, now_ms, policy)
    if found.report is not None:
        return Verdict(Fate.REPORTED, found)
    # Stopped in our name, and the record knows of no such wish: somebody else's controller, or a hand.
    code = STOPPED_EXTERNALLY if found.code == OWN_STOP else found.code or LOST
    return _spoken(attempt, found, Fate.LOST, code, now_ms, policy)


def report_is_overdue(suspicion: Suspicion | None, now_ms: int, policy: Policy) -> bool:
    """Whether a worker's word that it was told to stop has waited long enough for a look that says by whom."""
    report = suspicion.report if suspicion is not None else None
    return report is not None and now_ms - report.at >= policy.lost_worker_grace_ms


def _judge_present(attempt: Attempt, observation: Observation, now_ms: int, policy: Policy) -> Verdict:
    past = attempt.suspicion
    if past is not None and past.report is not None:
        if PREEMPTED in (past.code, observation.code):
            # A Spot notice comes two minutes ahead; until it is gone nothing may be launched in its place.
            return Verdict(Fate.SUSPECTED, past.model_copy(update={"code": PREEMPTED}))
        return Verdict(Fate.REPORTED if report_is_overdue(past, now_ms, policy) else Fate.SUSPECTED, past)
    if attempt.stop is not None:
        return Verdict(Fate.STOP, stop=attempt.stop)
    if _has_run_too_long(attempt, now_ms, policy):
        return Verdict(Fate.STOP, stop=StopOrder(code="ATTEMPT_TIMEOUT", asked_at=now_ms))
    if observation.state is WorkerState.STARTING and observation.code in PERMANENT:
        return Verdict(Fate.STOP, stop=StopOrder(code=str(observation.code), asked_at=now_ms))
    if observation.state is WorkerState.STARTING and _is_late_to_start(attempt, now_ms):
        return Verdict(Fate.STOP, stop=StopOrder(code="START_TIMEOUT", asked_at=now_ms))
    return Verdict(Fate.ALIVE)


def _suspected(attempt: Attempt, observation: Observation, now_ms: int, seen_alive_ms: int | None) -> Suspicion:
    """The suspicion with this look added. What a stopped worker was found to have died of outlives its traces."""
    past = attempt.suspicion or Suspicion(since=now_ms, looks=0)
    claimed_ms = attempt.launch.claimed_at if attempt.launch is not None else None
    alive = [at for at in (past.last_seen_alive_at, seen_alive_ms, claimed_ms) if at is not None]
    seen = Evidence(
        source=observation.source,
        observed_at=now_ms,
        detail=observation.detail,
        code=observation.code,
        version=observation.version,
    )
    found = {
        "looks": past.looks + 1,
        "evidence": _with(past.evidence, seen),
        "last_seen_alive_at": max(alive, default=None),
    }
    if observation.state is WorkerState.STOPPED:
        found |= {
            "has_stopped": True,
            "never_started": observation.never_started,
            "code": observation.code,
            "version": observation.version,
            "happened_at": observation.happened_ms,
        }
    return past.model_copy(update=found)


def _is_older(observation: Observation, past: Suspicion) -> bool:
    """Answers overtake each other: a look that was taken before one that is known says nothing new."""
    return past.version is not None and observation.version is not None and observation.version < past.version


def _is_ripe(found: Suspicion, now_ms: int, policy: Policy) -> bool:
    if found.report is not None and found.has_stopped:
        return True  # The grace is for its callback, which has come.
    needed = _LOOKS_NEEDED if found.has_stopped else _MISSING_LOOKS_NEEDED
    return found.looks >= needed and now_ms - found.since >= policy.lost_worker_grace_ms


def _code_of_unstarted(attempt: Attempt, found: Suspicion, now_ms: int) -> str:
    if found.code in PERMANENT:
        return str(found.code)
    if attempt.stop is not None:
        return attempt.stop.code if attempt.stop.code in PERMANENT else "START_TIMEOUT"
    if found.code in (PREEMPTED, STOPPED_EXTERNALLY):
        return str(found.code)
    return "START_TIMEOUT" if _is_late_to_start(attempt, now_ms) else "WORKER_NEVER_STARTED"


def _spoken(attempt: Attempt, found: Suspicion, fate: Fate, code: str, now_ms: int, policy: Policy) -> Verdict:
    grade = _grade(attempt, found)
    refuted_by = _refuted_by(attempt, found, fate)
    told = [item for item in found.evidence if item.code is not None] or found.evidence
    cause = _CAUSES.get(code) or f"the worker is gone without a callback for {policy.lost_worker_grace_ms / 1000:g} s"
    happened_ms = next(at for at in (found.happened_at, found.last_seen_alive_at, found.since) if at is not None)
    judgement = Judgement(
        kind=fate.value,
        grade=grade,
        code=code,
        message=sanitised(f"{cause} ({grade}; {refuted_by} would refute it): {told[-1].detail}"),
        refuted_by=refuted_by,
        spoken_at=now_ms,
        detected_after_ms=max(now_ms - happened_ms, 0),  # the launcher's clock need not be ours
        last_seen_alive_at=found.last_seen_alive_at,
        launch_try=attempt.launch.launch_try if attempt.launch is not None else None,
    )
    return Verdict(fate, found, judgement)


def _grade(attempt: Attempt, found: Suspicion) -> Grade:
    if found.has_stopped:
        is_explained = found.code not in (None, LOST) or found.never_started or attempt.stop is not None
        return Grade.CONFIRMED if is_explained else Grade.PROBABLE
    return Grade.PRESUMED if found.last_seen_alive_at is None else Grade.PROBABLE


def _refuted_by(attempt: Attempt, found: Suspicion, fate: Fate) -> str:
    launch = f"launch {attempt.launch.launch_try}" if attempt.launch is not None else "this worker"
    if fate is Fate.NEVER_STARTED:
        return f"a claim or callback of {launch}"
    if found.has_stopped:
        return f"a callback of {launch}"
    return f"a callback of {launch} or a look that finds its worker"


def _with(past: list[Evidence], seen: Evidence) -> list[Evidence]:
    """Add a look; of looks that show the same one after the other the first and the latest are enough."""
    is_same = len(past) >= 2 and all((item.source, item.detail) == (seen.source, seen.detail) for item in past[-2:])
    return [*(past[:-1] if is_same else past), seen][-_EVIDENCE_KEPT:]


def _has_run_too_long(attempt: Attempt, at_ms: int, policy: Policy) -> bool:
    limit_ms, began_ms = policy.attempt_timeout_ms, attempt.started_at
    return limit_ms is not None and began_ms is not None and at_ms - began_ms >= limit_ms


def _is_late_to_start(attempt: Attempt, at_ms: int) -> bool:
    launch = attempt.launch
    return launch is not None and launch.claim_id is None and at_ms >= launch.start_by
