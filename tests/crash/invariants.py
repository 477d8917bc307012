"""What must hold after every run, as pure checks on what was seen: the product's code is not asked.

The numbers are those of the failure catalogue: I for what must never happen, L for what must have happened by the time
that everything is at rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

FINAL = ("succeeded", "failed", "cancelled")
PHASES = {"succeeded": "Succeeded", "failed": "Failed", "cancelled": "Cancelled"}
NOT_AT_WORK = ("claim_refused", "stopped", "not_claimed")
"""Final statuses of a worker process that never had the work."""
_ESSENCE = ("status", "finishedAt", "errorMessage", "error_code")

Record = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """One worker process by its own summary event: which launch it was, and how it ended."""

    task_id: str
    attempt: int
    launch_try: int
    final_status: str


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a worker, by the launcher's own log; seconds of one clock."""

    task_id: str
    attempt: int
    from_seconds: float
    until_seconds: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that was seen of one run, from outside."""

    accepted: Sequence[str]
    """Ids of the tasks that somebody was told are taken, or that a queue took."""
    records: Mapping[str, Record]
    history: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    """Earlier looks at each record, oldest first."""
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sequences: Mapping[str, int] = field(default_factory=dict)
    """The sequence of each record's state."""
    workers: Sequence[WorkerEnd] = ()
    launches: Sequence[Launch] = ()
    """Where the launcher keeps a log of its own."""
    alive: Sequence[str] = ()
    """Launch tokens or ids of the workers that are still there."""
    max_retries: int = 1
    queued: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict)
    """How many entries the indexes of waiting, live and due work have."""
    deleted: Sequence[str] = ()
    """Tasks whose resource a user deleted."""
    secrets: Sequence[str] = ()
    told: str = ""
    """All logs, Events and resources."""
    probes: Mapping[str, int] = field(default_factory=dict)
    """Status codes of the probes."""


def accepted_tasks_are_recorded(seen: Seen) -> list[str]:
    """I1"""
    return [
        f"I1 {task_id} was accepted and has no record" for task_id in seen.accepted if not seen.records.get(task_id)
    ]


def one_worker_works_per_attempt(seen: Seen) -> list[str]:
    """I2"""
    worked = Counter((end.task_id, end.attempt) for end in seen.workers if end.final_status not in NOT_AT_WORK)
    return [
        f"I2 {count} workers worked on attempt {number} of {task_id}"
        for (task_id, number), count in worked.items()
        if count > 1
    ]


def one_launch_lives_per_attempt(seen: Seen) -> list[str]:
    """I2, whether the worker works or not"""
    found = []
    for one, other in combinations(seen.launches, 2):
        if (one.task_id, one.attempt) != (other.task_id, other.attempt):
            continue
        first, second = sorted((one, other), key=lambda item: item.from_seconds)
        if first.until_seconds is None or first.until_seconds > second.from_seconds:
            found.append(f"I2 attempt {one.attempt} of {one.task_id} had two workers at once")
    return found


def attempts_are_gapless_and_within_budget(seen: Seen) -> list[str]:
    """I3"""
    found = []
    for task_id, record in seen.records.items():
        if sorted(record) != list(range(1, len(record) + 1)):
            found.append(f"I3 {task_id} has the attempts {sorted(record)}")
        if len(record) > seen.max_retries + 1:
            found.append(f"I3 {task_id} has {len(record)} attempts, {seen.max_retries + 1} are allowed")
    return found


def what_is_final_never_changes(seen: Seen) -> list[str]:
    """I4"""
    found = []
    for task_id, looks in seen.history.items():
        for before, after in pairwise([*looks, seen.records.get(task_id, {})]):
            for number, attempt in before.items():
                essence = [attempt.get(name) for name in ("status", "finishedAt", "errorMessage", "error_code")]
                now = [
                    after.get(number, {}).get(name) for name in ("status", "finishedAt", "errorMessage", "error_code")
                ]
                if attempt["status"] in FINAL and essence != now:
                    found.append(f"I4 attempt {number} of {task_id} was {essence} and became {now}")
    return found


def outcomes_are_those_of_their_workers(seen: Seen) -> list[str]:
    """I5: a success was reported by a worker of this very attempt, and what a worker reported is what is recorded."""
    ends = {(end.task_id, end.attempt): end.final_status for end in seen.workers if end.final_status not in NOT_AT_WORK}
    found = []
    for task_id, record in seen.records.items():
        for number, attempt in record.items():
            said = ends.get((task_id, number))
            if attempt["status"] == "succeeded" and said != "completed":
                found.append(f"I5 attempt {number} of {task_id} succeeded, its worker ended as {said}")
            if said == "completed" and attempt["status"] == "failed" and not attempt.get("lateResults"):
                found.append(f"I5 attempt {number} of {task_id} failed, its worker reported success")
    return found


def resources_show_what_records_say(seen: Seen) -> list[str]:
    """I6, L3"""
    found = []
    for task_id, record in seen.records.items():
        latest = max(record)
        expected = (latest, PHASES.get(record[latest]["status"]))
        status = (seen.resources.get(task_id) or {}).get("status", {})
        shown = (status.get("attempt"), status.get("phase"))
        if task_id in seen.deleted:
            if seen.resources.get(task_id):
                found.append(f"I6 {task_id} was deleted by its user and is shown as {shown}")
        elif shown != expected:
            found.append(f"L3 {task_id} is {expected}, its resource shows {shown}")
        elif status.get("sequence", 0) > seen.sequences.get(task_id, 0):
            found.append(f"I6 the resource of {task_id} is ahead of its record")
    found += [f"I6 {task_id} is shown and has no record" for task_id in seen.resources if task_id not in seen.records]
    return found


def no_secret_is_told(seen: Seen) -> list[str]:
    """I7"""
    return [f"I7 a secret is told: {secret[:4]}…" for secret in seen.secrets if secret in seen.told]


def live_attempts_have_a_deadline(seen: Seen) -> list[str]:
    """I8, of every look"""
    found = []
    for task_id, looks in seen.history.items():
        for record in looks:
            attempt = record[max(record)] if record else {}
            if attempt.get("status") == "running" and not attempt.get("launch", {}).get("startBy"):
                found.append(f"I8 {task_id} ran without a deadline for its start")
    return found


def no_worker_is_left(seen: Seen) -> list[str]:
    """I9"""
    return [f"I9 a worker is left: {worker}" for worker in seen.alive]


def everything_has_ended(seen: Seen) -> list[str]:
    """L1"""
    return [
        f"L1 {task_id} is {record[max(record)]['status']}"
        for task_id, record in seen.records.items()
        if record[max(record)]["status"] not in FINAL
    ]


def nothing_waits(seen: Seen) -> list[str]:
    """L2"""
    found = [f"L2 {seen.queued} messages are in the queue"] if seen.queued else []
    return found + [f"L2 {count} entries wait in {name}" for name, count in seen.waiting.items() if count]


def deleted_resources_are_gone(seen: Seen) -> list[str]:
    """L4"""
    return [
        f"L4 {task_id} is being deleted for ever"
        for task_id, body in seen.resources.items()
        if "deletionTimestamp" in body.get("metadata", {})
    ]


def probes_are_well(seen: Seen) -> list[str]:
    """L5"""
    return [f"L5 {name} answers {code}" for name, code in seen.probes.items() if code != 200]


CHECKS: tuple[Callable[[Seen], list[str]], ...] = (
    accepted_tasks_are_recorded,
    one_worker_works_per_attempt,
    one_launch_lives_per_attempt,
    attempts_are_gapless_and_within_budget,
    what_is_final_never_changes,
    outcomes_are_those_of_their_workers,
    resources_show_what_records_say,
    no_secret_is_told,
    live_attempts_have_a_deadline,
    no_worker_is_left,
    everything_has_ended,
    nothing_waits,
    deleted_resources_are_gone,
    probes_are_well,
)


def violations(seen: Seen) -> list[str]:
    """Every invariant that does not hold, in words; empty when all do."""
    return [problem for check in CHECKS for problem in check(seen)]
