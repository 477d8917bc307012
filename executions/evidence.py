"""From what a launcher saw of a worker to a verdict on it.

Errors of a launcher's API are not observations and never reach this module: only a positive look counts. A worker
that looks gone is suspected first and judged only after the grace period and a second look, because its callback may
still be on the way and because some APIs do not know a worker yet that they just started.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from executions.policy import Policy
from executions.record import Attempt, Evidence, Suspicion

_LOOKS_NEEDED = 2
_EVIDENCE_KEPT = 8


class WorkerState(StrEnum):
    """What one look at a worker showed."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    MISSING = "missing"
    """The launcher answered and does not know the worker."""


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


class Fate(StrEnum):
    """What to do about an attempt after a look."""

    ALIVE = "alive"
    SUSPECTED = "suspected"
    STOP = "stop"
    """Alive past a deadline: stop it; it is judged once it is gone."""
    NEVER_STARTED = "never_started"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on a live attempt. ``code`` and ``message`` are set when it is over."""

    fate: Fate
    suspicion: Suspicion | None = None
    code: str | None = None
    message: str | None = None
    evidence: tuple[Evidence, ...] = ()


def judge(attempt: Attempt, observation: Observation, *, now_ms: int, policy: Policy) -> Verdict:
    """Judge one look at the worker of a live attempt."""
    seen = Evidence(source=observation.source, observed_at=now_ms, detail=observation.detail)
    if observation.state in (WorkerState.STARTING, WorkerState.RUNNING):
        return _judge_present(attempt, observation, seen, now_ms, policy)
    past = attempt.suspicion
    evidence = _with(past.evidence if past else [], seen)
    suspicion = Suspicion(since=past.since if past else now_ms, looks=past.looks + 1 if past else 1, evidence=evidence)
    has_claimed = attempt.launch is not None and attempt.launch.claim_id is not None
    if observation.never_started and not has_claimed:
        code = "START_TIMEOUT" if _is_late_to_start(attempt, now_ms) else "WORKER_NEVER_STARTED"
        message = f"the worker never started: {observation.detail}"
        return Verdict(Fate.NEVER_STARTED, suspicion, code, message, tuple(evidence))
    if suspicion.looks < _LOOKS_NEEDED or now_ms - suspicion.since < policy.lost_worker_grace_ms:
        return Verdict(Fate.SUSPECTED, suspicion)
    # By the time it was seen gone, not by now: a worker that died in time did not run too long.
    if _has_run_too_long(attempt, suspicion.since, policy):
        return Verdict(Fate.LOST, suspicion, "ATTEMPT_TIMEOUT", "the attempt ran too long", tuple(evidence))
    grace = policy.lost_worker_grace_ms / 1000
    message = f"the worker is gone without a callback for {grace:g} s: {observation.detail}"
    return Verdict(Fate.LOST, suspicion, "WORKER_LOST", message, tuple(evidence))


def _judge_present(attempt: Attempt, observation: Observation, seen: Evidence, now_ms: int, policy: Policy) -> Verdict:
    code = None
    if _has_run_too_long(attempt, now_ms, policy):
        code = "ATTEMPT_TIMEOUT"
    elif observation.state is WorkerState.STARTING and _is_late_to_start(attempt, now_ms):
        code = "START_TIMEOUT"
    if code is None:
        return Verdict(Fate.ALIVE)
    return Verdict(Fate.STOP, None, code, f"{code}: {observation.detail}", (seen,))


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
