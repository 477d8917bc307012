"""What a commit counts: each thing once, and nothing that another commit counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from executions.adapters.metrics import count_commit, tell_admission
from executions.admission import Breaker, Slots, Standing
from executions.lifecycle import ended, launch_failed, launched, record_outcome, suspect
from executions.record import Execution, Grade, Judgement, Status, Suspicion
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.unit.domain.states import (
    by_hand,
    claimed_again,
    failed,
    outcome,
    reported,
    scheduled,
    stop_reported,
    succeeded,
)

Step = Callable[[Execution], Execution]


def judgement(kind: str = "lost", code: str = "WORKER_OOM", grade: Grade = Grade.CONFIRMED) -> Judgement:
    return Judgement(
        kind=kind,
        grade=grade,
        code=code,
        message="gone",
        refuted_by="a callback",
        spoken_at=NOW_MS,
        detected_after_ms=61_500,
        launch_try=1,
    )


def lost(execution: Execution, verdict: Judgement | None = None) -> Execution:
    verdict = verdict or judgement()
    return ended(
        execution,
        execution.latest.number,
        Status.FAILED,
        now_ms=NOW_MS,
        code=verdict.code,
        message="gone",
        verdict=verdict,
    )


def relaunched(execution: Execution, verdict: Judgement | None = None, *, permanent: bool = False) -> Execution:
    return launch_failed(
        execution, 1, 1, code="X", message="no", permanent=permanent, now_ms=NOW_MS, policy=POLICY, verdict=verdict
    )


def late(execution: Execution, *, succeeded: bool = True, **fields: Any) -> Execution:
    report = outcome(succeeded=succeeded, attempt=1, **fields)
    following = record_outcome(execution, report, received_ms=NOW_MS, now_ms=NOW_MS).execution
    assert following is not None
    return following


def samples() -> Counter[str]:
    """All samples of ours by name and labels, without those that say when they were made."""
    found = Counter[str]()
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name.startswith("alakai_") and not sample.name.endswith(("_created", "_bucket")):
                found[",".join((sample.name, *sample.labels.values()))] = sample.value
    return found


def counted(before: Execution | None, after: Execution) -> dict[str, float]:
    past = samples()
    count_commit(before, after)
    return {name: value - past[name] for name, value in samples().items() if value != past[name]}


DETECTED = {"alakai_loss_detection_seconds_count": 1, "alakai_loss_detection_seconds_sum": 61.5}


@pytest.mark.parametrize(
    ("before", "step", "expected"),
    [
        pytest.param(
            running(),
            lost,
            {
                "alakai_lost_workers_total,confirmed,WORKER_OOM,local": 1,
                "alakai_attempts_total,failed,WORKER_OOM,local": 1,
                **DETECTED,
            },
            id="a lost worker",
        ),
        pytest.param(
            running(),
            lambda found: lost(found, judgement(code="POD_EVICTED", grade=Grade.PROBABLE)),
            {
                "alakai_lost_workers_total,probable,OTHER,local": 1,
                "alakai_attempts_total,failed,OTHER,local": 1,
                **DETECTED,
            },
            id="a code of somebody else's launcher is not a label",
        ),
        pytest.param(
            running(),
            lambda found: relaunched(found, judgement("preempted", "WORKER_PREEMPTED")),
            {
                "alakai_lost_workers_total,confirmed,WORKER_PREEMPTED,local": 1,
                "alakai_launch_tries_total,local,preempted": 1,
                **DETECTED,
            },
            id="one that was taken away",
        ),
        pytest.param(
            running(),
            lambda found: relaunched(found, judgement("never_started", "IMAGE_ERROR"), permanent=True),
            {
                "alakai_lost_workers_total,confirmed,IMAGE_ERROR,local": 1,
                "alakai_launch_tries_total,local,never_started": 1,
                "alakai_attempts_total,failed,OTHER,local": 1,
                **DETECTED,
            },
            id="one that never started",
        ),
        pytest.param(lost(running()), late, {"alakai_false_losses_total,confirmed": 1}, id="a false loss"),
        pytest.param(
            claimed_again(lost(running())), late, {"alakai_false_losses_total,confirmed": 1}, id="after the next began"
        ),
        pytest.param(late(lost(running())), lambda found: late(found, succeeded=False), {}, id="its second report"),
        pytest.param(
            relaunched(running(), judgement("never_started", "WORKER_NEVER_STARTED")),
            lambda found: late(found, launchTry=1),
            {"alakai_false_losses_total,confirmed": 1},
            id="a launch that was said to have never started",
        ),
        pytest.param(
            lost(running()), lambda found: claimed_again(found), {}, id="the attempt after a lost one counts nothing"
        ),
        pytest.param(
            relaunched(running(), judgement("preempted")), lambda found: found, {}, id="a verdict that was there before"
        ),
        pytest.param(
            running(),
            lambda found: reported(found, succeeded=True),
            {"alakai_attempts_total,succeeded,none,local": 1},
            id="a success",
        ),
        pytest.param(running(), stop_reported, {}, id="a worker that felt a signal"),
        pytest.param(running(), lambda found: suspect(found, 1, suspicion=Suspicion(since=NOW_MS)), {}, id="suspected"),
        pytest.param(
            intended(),
            lambda found: launched(found, 1, 1, worker_id="w", now_ms=NOW_MS),
            {"alakai_launch_tries_total,local,launched": 1},
            id="launched",
        ),
        pytest.param(
            reported(intended(), succeeded=True),
            lambda found: launched(found, 1, 1, worker_id="w", now_ms=NOW_MS),
            {"alakai_launch_tries_total,local,launched": 1},
            id="launched, answered after its outcome",
        ),
        pytest.param(
            intended(),
            lambda found: reported(found),
            {"alakai_attempts_total,failed,OTHER,local": 1},
            id="an outcome before the launch is answered",
        ),
        pytest.param(intended(), relaunched, {"alakai_launch_tries_total,local,refused": 1}, id="refused"),
        pytest.param(
            intended(),
            lambda found: relaunched(found, permanent=True),
            {"alakai_launch_tries_total,local,refused": 1, "alakai_attempts_total,failed,OTHER,local": 1},
            id="refused for good",
        ),
        pytest.param(pending(), lambda _: intended(), {}, id="an intent"),
        pytest.param(by_hand(), lambda found: lost(found), {**DETECTED}, id="a record written by hand"),
        pytest.param(
            failed(), scheduled, {"alakai_automatic_retries_total,scheduled": 1}, id="an automatic retry is scheduled"
        ),
        pytest.param(
            scheduled(failed()),
            lambda found: scheduled(found, outcome="dropped"),
            {"alakai_automatic_retries_total,dropped": 1},
            id="it is dropped",
        ),
        pytest.param(
            scheduled(failed()),
            lambda found: scheduled(found, outcome="of a later version"),
            {"alakai_automatic_retries_total,other": 1},
            id="an outcome that we do not know is not a label",
        ),
    ],
)
def test_what_a_commit_counts(before: Execution, step: Step, expected: dict[str, float]) -> None:
    if before.latest.launcher is None:
        expected = {
            "alakai_lost_workers_total,confirmed,WORKER_OOM,other": 1,
            "alakai_attempts_total,failed,WORKER_OOM,other": 1,
            **expected,
        }
    after = step(before)
    assert counted(before, after) == expected
    assert counted(after, after) == {}


def test_what_is_read_for_the_first_time_was_counted_by_others_or_by_nobody() -> None:
    for execution in (pending(), succeeded(), lost(running()), late(lost(running())), failed(attempts=2)):
        assert counted(None, execution) == {}


def test_every_label_has_few_values_whatever_is_written_into_records_and_requests() -> None:
    """A series for each task, code or path would bring Prometheus down."""
    for number in range(50):
        hostile = running().with_latest(launcher=f"launcher-{number}", task_type=f"type-{number}")
        count_commit(hostile, lost(hostile, judgement(code=f"CODE_{number}")))
        count_commit(hostile, reported(hostile, error={"message": "x", "code": f"code-{number}"}))
        standing = Standing({f"type-{number}": 1}, {f"type-{number}": 1})
        breaker = Breaker("local", f"type-{number}", "X", NOW_MS, NOW_MS)
        tell_admission(standing, Slots(10, {"digest": 1}), is_held=False, breakers=[breaker])
    values: dict[str, set[str]] = {}
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name.startswith("alakai_"):
                for label, value in sample.labels.items():
                    values.setdefault(f"{metric.name}.{label}", set()).add(value)
    # Routes are told by their template, of which there are two dozen.
    crowded = {name: found for name, found in values.items() if len(found) > 30}
    assert crowded == {}
    assert not [name for name, found in values.items() if any("type-" in v or "launcher-" in v for v in found)]
