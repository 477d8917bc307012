"""What is told as Kubernetes Events."""

from __future__ import annotations

import pytest

from executions.conditions import Why
from executions.lifecycle import ended, intend_launch, record_outcome
from executions.notices import Notice, event_from_notice, notices_from
from executions.policy import Policy
from executions.record import Execution, Status
from executions.resource import observed_from_body
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.unit.domain.states import cancelled, claimed_again, failed, outcome, scheduled, succeeded
from tests.unit.test_conditions import judged, relaunching


def reasons(execution: Execution, *, since: int = 1, policy: Policy = POLICY) -> list[str]:
    return [notice.why.reason for notice in notices_from(execution, policy, since_attempt=since)]


def relaunched() -> Execution:
    return intend_launch(relaunching(running()), 1, token="u" * 64, request={}, now_ms=NOW_MS, policy=POLICY)


@pytest.mark.parametrize(
    ("execution", "told"),
    [
        (pending(), []),
        (intended(), []),
        (running(), []),
        (succeeded(), []),
        (failed(), ["WorkerFailed"]),
        (ended(running(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="gone"), ["WorkerLost"]),
        (cancelled(), ["Cancelled"]),
        (scheduled(failed()), ["WorkerFailed", "RetryScheduled"]),
        (relaunching(running()), ["WorkerRelaunched"]),
        (relaunched(), ["WorkerRelaunched"]),
        (failed(attempts=2), ["WorkerFailed", "WorkerFailed", "RetryBudgetExhausted"]),
    ],
)
def test_only_what_is_out_of_the_ordinary_is_told(execution: Execution, told: list[str]) -> None:
    assert reasons(execution) == told


def test_the_repeat_of_a_launch_names_the_verdict_on_it() -> None:
    for execution in (relaunching(running()), relaunched()):
        (notice,) = notices_from(execution, POLICY, since_attempt=1)
        assert notice.why.message == (
            "launch 1 of attempt 1 is repeated: "
            "the worker never started (confirmed; a claim would refute it): no network"
        )
    (refused,) = notices_from(relaunching(intended(), is_judged=False), POLICY, since_attempt=1)
    assert refused.why.message == "launch 1 of attempt 1 is repeated: it never came up"


def test_a_verdict_that_was_wrong_is_told() -> None:
    lost = ended(
        running(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="gone", verdict=judged("WORKER_LOST")
    )
    late = record_outcome(lost, outcome(succeeded=True), received_ms=NOW_MS, now_ms=NOW_MS).execution
    assert late is not None
    notices = notices_from(late, POLICY, since_attempt=1)
    assert [notice.why.reason for notice in notices] == ["WorkerLost", "VerdictRefuted"]
    assert notices[1].why.message == (
        "the worker of attempt 1, judged as WORKER_LOST, reported success after all; nothing changes"
    )


def test_what_was_told_of_earlier_attempts_is_not_told_again() -> None:
    assert reasons(claimed_again(failed()), since=2) == []
    assert reasons(failed(attempts=2), since=2) == ["WorkerFailed", "RetryBudgetExhausted"]


def test_an_event_has_a_name_of_its_own_for_each_thing_told() -> None:
    seen = observed_from_body({"metadata": {"name": "task-1", "uid": "u", "resourceVersion": "1"}})
    again = observed_from_body({"metadata": {"name": "task-1", "uid": "v", "resourceVersion": "1"}})
    one, other = Notice("1/ended", Why("WorkerLost", "token=hunter2")), Notice("2/ended", Why("WorkerLost", "gone"))
    names = {
        event_from_notice(notice, observed, namespace="here", now_ms=now_ms)["metadata"]["name"]
        for notice, observed, now_ms in ((one, seen, 1), (one, seen, 2), (other, seen, 1), (one, again, 1))
    }
    assert len(names) == 3
    event = event_from_notice(one, seen, namespace="here", now_ms=NOW_MS)
    assert event["involvedObject"]["uid"] == "u"
    assert event["firstTimestamp"] == "2023-11-14T22:13:20Z"
    assert "hunter2" not in event["message"]
