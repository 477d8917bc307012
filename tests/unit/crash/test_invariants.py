"""The checks of the crash matrix can fail: each of them on a run that breaks its invariant, and none on a good one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.crash.invariants import CHECKS, Launch, Seen, WorkerEnd, violations


def attempt(number: int, status: str, **fields: Any) -> dict[str, Any]:
    finished = {} if status in ("pending", "running") else {"finishedAt": "2026-01-01T00:00:00Z"}
    return {"attempt": number, "status": status, **finished, **fields}


def resource(number: int, phase: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "status": {"attempt": number, "phase": phase, "sequence": 5, **status}}


RETRIED = {1: attempt(1, "failed", errorMessage="no"), 2: attempt(2, "succeeded")}
GOOD = Seen(
    accepted=["fine", "retried"],
    records={"fine": {1: attempt(1, "succeeded")}, "retried": RETRIED},
    history={"retried": [{1: attempt(1, "running", launch={"startBy": "x"})}, {1: RETRIED[1]}, RETRIED]},
    resources={"fine": resource(1, "Succeeded"), "retried": resource(2, "Succeeded")},
    sequences={"fine": 5, "retried": 9},
    workers=[
        WorkerEnd("fine", 1, 1, "completed"),
        WorkerEnd("fine", 1, 1, "claim_refused"),
        WorkerEnd("retried", 1, 1, "failed"),
        WorkerEnd("retried", 2, 1, "completed"),
    ],
    launches=[Launch("fine", 1, 1.0, 2.0), Launch("fine", 1, 2.5, 3.0), Launch("retried", 1, 1.0, 9.0)],
    secrets=["hunter2"],
    told="nothing of interest",
    probes={"api": 200},
)


def test_a_good_run_has_no_violation() -> None:
    assert violations(GOOD) == []


BROKEN = {
    "I1": replace(GOOD, accepted=[*GOOD.accepted, "forgotten"]),
    "I2": replace(GOOD, workers=[*GOOD.workers, WorkerEnd("fine", 1, 2, "failed")]),
    "I2 at once": replace(GOOD, launches=[Launch("fine", 1, 1.0, 5.0), Launch("fine", 1, 4.0, None)]),
    "I3 with a gap": replace(GOOD, records={"fine": {1: attempt(1, "failed"), 3: attempt(3, "succeeded")}}),
    "I3 over budget": replace(GOOD, max_retries=0),
    "I4": replace(GOOD, history={"retried": [{1: attempt(1, "succeeded")}, RETRIED]}),
    "I4 removed": replace(GOOD, history={"fine": [{1: attempt(1, "succeeded"), 2: attempt(2, "failed")}]}),
    "I5 invented": replace(GOOD, workers=[end for end in GOOD.workers if end.task_id != "fine"]),
    "I5 overruled": replace(GOOD, records={"fine": {1: attempt(1, "failed")}}),
    "L3": replace(GOOD, resources={**GOOD.resources, "fine": resource(1, "Running")}),
    "L3 missing": replace(GOOD, resources={"fine": GOOD.resources["fine"]}),
    "I6 ahead": replace(GOOD, sequences={"fine": 4, "retried": 9}),
    "I6 resurrected": replace(GOOD, deleted=["fine"]),
    "I6 without a record": replace(GOOD, resources={**GOOD.resources, "ghost": resource(1, "Failed")}),
    "I7": replace(GOOD, told="the password is hunter2"),
    "I8": replace(GOOD, history={"fine": [{1: attempt(1, "running")}, GOOD.records["fine"]]}),
    "I9": replace(GOOD, alive=["1234"]),
    "L1": replace(GOOD, records={**GOOD.records, "fine": {1: attempt(1, "pending")}}),
    "L2 queue": replace(GOOD, queued=1),
    "L2 index": replace(GOOD, waiting={"due": 1}),
    "L4": replace(
        GOOD, resources={**GOOD.resources, "fine": {**resource(1, "Succeeded"), "metadata": {"deletionTimestamp": "x"}}}
    ),
    "L5": replace(GOOD, probes={"api": 503}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_run_is_named(case: str) -> None:
    found = violations(BROKEN[case])
    assert any(problem.startswith(case.split()[0]) for problem in found), found


def test_every_check_has_failed_here() -> None:
    assert [check.__name__ for check in CHECKS if not any(check(seen) for seen in BROKEN.values())] == []
