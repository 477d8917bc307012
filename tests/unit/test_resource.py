"""The custom resource as a function of the record."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from executions.control import suspend
from executions.errors import InvalidTask
from executions.lifecycle import ended, record_outcome
from executions.link import Wishes, tombstoned
from executions.moment import iso_from_ms
from executions.names import FINALIZER
from executions.policy import Policy
from executions.record import Evidence, Execution, LateResult, ResourceLink, RetryRequest, Status
from executions.resource import (
    ATTEMPTS_SHOWN,
    manifest_from_execution,
    observed_from_body,
    protected,
    released,
    resource_is_wanted,
    short_wait_since,
    status_digest,
    status_from_execution,
    task_from_resource,
)
from tests.support.builders import NOW_MS, POLICY, intended, pending, running, task_document
from tests.unit.domain.states import by_hand, cancelling, claimed_again, failed, outcome, scheduled, succeeded
from tests.unit.test_conditions import judged

DAY_MS = 86_400_000


def status(execution: Execution, policy: Policy = POLICY) -> dict[str, Any]:
    return status_from_execution(execution, policy, observed_generation=3, unknown_ms=NOW_MS)


def body(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "metadata": {
            "name": "task-1",
            "uid": "uid-1",
            "resourceVersion": "12",
            "generation": 2,
            "creationTimestamp": "2023-11-14T22:13:20Z",
        },
        "spec": {"taskType": "digest", "suspend": False},
        "status": {"phase": "Pending"},
    }
    for key, value in changes.items():
        found[key] = {**found[key], **value}
    return found


def test_what_the_mirror_creates_holds_no_payload() -> None:
    manifest = manifest_from_execution(pending("Task_1"), "here")
    assert manifest["spec"] == {"taskId": "Task_1", "taskType": "implementation"}
    assert manifest["metadata"]["namespace"] == "here"
    assert manifest["metadata"]["name"].startswith("task-1-")
    assert manifest["metadata"]["finalizers"] == [FINALIZER]
    assert manifest["metadata"]["annotations"] == {"alakai.dev/incarnation": "incarnation-1"}
    assert "prompt" not in str(manifest)


def test_a_held_execution_is_shown_as_held() -> None:
    assert manifest_from_execution(suspend(pending(), suspended=True), "here")["spec"]["suspend"] is True


def test_a_task_type_that_nobody_could_ask_for_is_shown_as_unknown() -> None:
    odd = by_hand(task_type="no such type!")
    assert manifest_from_execution(odd, "here")["spec"]["taskType"] == "unknown"


def test_the_status_tells_the_latest_attempt_and_all_before_it() -> None:
    execution = claimed_again(failed()).with_state(sequence=9)
    shown = status(execution, Policy(max_retries=2))
    assert (shown["phase"], shown["attempt"], shown["run"], shown["sequence"]) == ("Pending", 2, 2, 9)
    assert (shown["incarnation"], shown["observedGeneration"]) == ("incarnation-1", 3)
    assert (shown["project"], shown["launcher"], shown["traceId"]) == ("my-org/my-repo", "local", "trace-task-1")
    assert [(item["attempt"], item["phase"], item["reason"]) for item in shown["attempts"]] == [
        (1, "Failed", "WorkerFailed"),
        (2, "Pending", "WaitingForLaunch"),
    ]
    assert shown["attempts"][0]["errorCode"] == "E1"
    assert shown["finishTime"] is None
    assert "prompt" not in str(shown)


def test_lists_hold_no_nones_because_a_merge_patch_keeps_them() -> None:
    for execution in (pending(), running(), failed(), succeeded(), by_hand()):
        for item in (*status(execution)["attempts"], *status(execution)["conditions"]):
            assert None not in item.values()


def test_only_the_latest_attempts_are_shown() -> None:
    execution = failed(attempts=ATTEMPTS_SHOWN + 3)
    shown = status(execution)["attempts"]
    assert [shown[0]["attempt"], shown[-1]["attempt"], len(shown)] == [4, ATTEMPTS_SHOWN + 3, ATTEMPTS_SHOWN]


def test_texts_are_cut_to_what_the_schema_allows() -> None:
    long = "x" * 9999
    latest = running().latest
    seen = [Evidence(source=long, observed_at=NOW_MS, detail=long)] * 20
    late = [LateResult(succeeded=True, received_at=NOW_MS, message=long)]
    execution = failed().with_latest(
        error_message=long,
        error_code=long,
        worker_id=long,
        trace_id=long,
        launcher=long,
        evidence=seen,
        late_results=late,
        verdict=judged().model_copy(update={"code": long, "message": long, "refuted_by": long, "kind": long}),
        task_snapshot={**(latest.task_snapshot or {}), "payload": {"repo": f"{long}/{long}"}},
    )
    shown = status(execution)
    attempt = shown["attempts"][0]
    assert len(shown["message"]) <= 1024
    assert (len(shown["workerId"]), len(shown["launcher"]), len(shown["traceId"])) == (2048, 63, 1024)
    assert (len(attempt["errorCode"]), len(attempt["evidence"])) == (256, 16)
    assert len(attempt["evidence"][0]["source"]) == 128
    assert len(attempt["lateResult"]["message"]) <= 1024
    assert shown["project"] is None
    verdict = attempt["verdict"]
    assert (len(verdict["code"]), len(verdict["refutedBy"]), len(verdict["kind"])) == (256, 256, 63)
    assert len(verdict["message"]) <= 1024


def test_a_verdict_is_shown_with_all_that_speaks_for_and_against_it() -> None:
    seen = Evidence(
        source="ecs:DescribeTasks", observed_at=NOW_MS, detail="token=hunter2 exit code 137", code="WORKER_OOM"
    )
    lost = ended(
        running(), 1, Status.FAILED, now_ms=NOW_MS, code="X", message="gone", evidence=[seen], verdict=judged("X")
    )
    (attempt,) = status(lost)["attempts"]
    assert attempt["verdict"] == {
        "kind": "never_started",
        "grade": "confirmed",
        "code": "X",
        "message": "the worker never started (confirmed; a claim would refute it): no network",
        "refutedBy": "a claim",
        "spokenAt": iso_from_ms(NOW_MS + 60_000),
        "detectedAfterMs": 7,
        "launchTry": 1,
    }
    assert attempt["evidence"] == [
        {
            "source": "ecs:DescribeTasks",
            "observedAt": iso_from_ms(NOW_MS),
            "detail": "token=*** exit code 137",
            "code": "WORKER_OOM",
        }
    ]


def test_a_late_result_is_added_to_a_finished_attempt_and_changes_nothing_else_of_it() -> None:
    lost = ended(running(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="gone", verdict=judged())
    late = record_outcome(lost, outcome(succeeded=True), received_ms=NOW_MS + 9, now_ms=NOW_MS + 9).execution
    assert late is not None
    (before,), (after,) = status(lost)["attempts"], status(late)["attempts"]
    assert after.pop("lateResult") == {"status": "success", "receivedAt": iso_from_ms(NOW_MS + 9)}
    assert after == before


def test_a_schedule_is_told_with_its_time_and_kept_when_it_is_over() -> None:
    shown = status(scheduled(failed(), assignee="jane"))
    assert shown["nextRetryTime"] == shown["schedule"]["dueAt"] == iso_from_ms(NOW_MS + 120_000)
    assert (shown["phase"], shown["finishTime"]) == ("RetryScheduled", None)
    over = status(scheduled(failed(), outcome="dropped"))
    assert over["nextRetryTime"] is None
    assert over["schedule"]["outcome"] == "dropped"


@pytest.mark.parametrize(
    ("execution", "policy", "following"),
    [
        (pending(), POLICY, "launch"),
        (suspend(pending(), suspended=True), POLICY, "launch, once spec.suspend is false"),
        (running(), POLICY, None),
        (succeeded(), POLICY, None),
        (failed(), POLICY, "annotate alakai.dev/retry to retry"),
        (failed(attempts=2), POLICY, "nothing: no retry is left"),
        (failed().with_latest(task_snapshot=None), POLICY, "nothing: its payload is lost"),
        (scheduled(failed()), POLICY, f"attempt 2 at {iso_from_ms(NOW_MS + 120_000)}"),
        (
            failed().with_state(retry=RetryRequest(attempt=2, requested_at=1, requested_by="jane", resend_at=2)),
            POLICY,
            "attempt 2, queued",
        ),
    ],
)
def test_what_happens_next_is_said_in_words(execution: Execution, policy: Policy, following: str | None) -> None:
    assert status(execution, policy)["next"] == following


OURS = {"metadata": {"annotations": {"alakai.dev/incarnation": "incarnation-1"}}}
SHOWN = {**OURS, "status": {"phase": "Pending", "incarnation": "incarnation-1", "attempt": 1}}


@pytest.mark.parametrize(
    ("case", "execution", "shown", "since_ms"),
    [
        ("a first attempt, just made", pending(now_ms=NOW_MS + 1), OURS, NOW_MS + 1),
        ("its launch is on its way", intended(now_ms=NOW_MS + 1), OURS, NOW_MS + 1),
        ("it runs", running(), OURS, None),
        ("a later attempt", claimed_again(failed()), OURS, None),
        ("to be stopped", cancelling(intended()), OURS, None),
        ("held back", suspend(pending(), suspended=True), OURS, None),
        ("nobody knows since when", by_hand(Status.PENDING), OURS, None),
        ("a user's object, not written to yet", pending(), {}, None),
        ("made for an earlier record", pending().with_state(incarnation="another"), OURS, None),
        ("shown as waiting, and waits", pending(), SHOWN, None),
        ("shown as waiting, launch on its way", intended(now_ms=NOW_MS + 1), SHOWN, NOW_MS + 1),
        ("shown as waiting, to be stopped", cancelling(intended()), SHOWN, None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_which_waits_are_too_short_to_be_written(
    case: str, execution: Execution, shown: dict[str, Any], since_ms: int | None
) -> None:
    assert short_wait_since(execution, observed_from_body(body(**shown))) == since_ms


@pytest.mark.parametrize(
    ("case", "execution", "later_ms", "wanted"),
    [
        ("unfinished for however long", running(), 9 * DAY_MS, True),
        ("finished just now", succeeded(), 0, True),
        ("finished for long enough", succeeded(), DAY_MS, False),
        ("a retry is to come", scheduled(failed()), 9 * DAY_MS, True),
        ("deleted by a user at this attempt", tombstoned(failed()), 0, False),
        ("deleted by a user, then retried", claimed_again(tombstoned(failed())), 0, True),
        ("deleted by a user while it ends", tombstoned(running()), 0, False),
        ("written by hand without a time", by_hand(Status.FAILED), 0, False),
        (
            "shown for the first time only now",
            by_hand(Status.FAILED).with_state(resource=ResourceLink(kept_from=NOW_MS)),
            0,
            True,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_which_executions_are_shown(case: str, execution: Execution, later_ms: int, wanted: bool) -> None:
    assert resource_is_wanted(execution, now_ms=NOW_MS + later_ms, policy=POLICY) is wanted


def test_an_object_is_seen_with_all_that_matters() -> None:
    seen = observed_from_body(
        body(
            metadata={
                "annotations": {"alakai.dev/incarnation": "i", "alakai.dev/retry": "1"},
                "finalizers": [FINALIZER],
                "deletionTimestamp": "2023-11-14T22:13:20Z",
            },
            spec={"assignee": "jane", "suspend": True},
            status={"phase": "Running", "incarnation": "i", "sequence": 4, "attempt": 1, "observedGeneration": 2},
        )
    )
    assert (seen.name, seen.uid, seen.task_id) == ("task-1", "uid-1", "task-1")
    assert (seen.resource_version, seen.generation, seen.created_ms) == (12, 2, NOW_MS)
    assert (seen.made_by, seen.incarnation, seen.sequence, seen.attempt, seen.phase) == ("i", "i", 4, 1, "Running")
    assert (seen.is_deleting, seen.is_protected, seen.is_submitted, seen.has_its_name) == (True, True, True, True)
    assert seen.wishes == Wishes(retry="1", suspend=True, assignee="jane")


def test_a_users_object_is_not_submitted_until_its_status_says_so() -> None:
    assert not observed_from_body(body()).is_submitted
    assert observed_from_body(body(status={"incarnation": "i"})).is_submitted


@pytest.mark.parametrize(
    ("task_id", "fits"), [(None, True), ("task-1", True), ("other", False), ("Task-1", False), ("a b", False)]
)
def test_an_object_has_its_tasks_name_or_not(task_id: str | None, fits: bool) -> None:
    assert observed_from_body(body(spec={"taskId": task_id} if task_id else {})).has_its_name is fits


def test_an_object_seen_takes_less_than_half_a_kilobyte_beside_its_names() -> None:
    seen = observed_from_body(body(metadata={"finalizers": [FINALIZER]}))
    own = sys.getsizeof(seen) + sum(
        sys.getsizeof(value) for value in (seen.uid, seen.resource_version, seen.created_ms, seen.status_digest)
    )
    assert own < 512
    assert seen.task_id is seen.name or seen.task_id == seen.name


def test_the_digest_of_a_status_ignores_its_sequence_and_what_is_not_said() -> None:
    one, other = status(running()), status(running().with_state(sequence=99))
    assert status_digest(one) == status_digest(other)
    stored = {key: value for key, value in one.items() if value is not None}
    assert status_digest(stored) == status_digest(one)
    assert status_digest(stored | {"attempt": 7}) != status_digest(one)
    assert status_digest(stored | {"observedGeneration": 7}) != status_digest(one)


def test_finalizers_change_only_on_the_object_seen_and_leave_those_of_others() -> None:
    seen = observed_from_body(body(metadata={"finalizers": ["theirs"]}))
    add, take = protected(seen), released(observed_from_body(body(metadata={"finalizers": ["theirs", FINALIZER]})))
    assert [item["path"] for item in add[:2]] == ["/metadata/uid", "/metadata/resourceVersion"]
    assert add[2]["value"] == ["theirs", FINALIZER]
    assert take[2]["value"] == ["theirs"]


def test_a_users_object_gives_a_task() -> None:
    task = task_from_resource(body(spec={"taskId": "task-1", "taskType": "implementation", "task": task_document()}))
    assert task.snapshot() == task_document()


def test_without_a_task_the_payload_is_empty() -> None:
    task = task_from_resource(body())
    assert task.snapshot() == {"taskId": "task-1", "taskType": "digest", "payload": {}}


def test_the_assignee_of_the_object_is_that_of_the_task() -> None:
    document = task_document(metadata={"trace_id": "t", "assignee": "john"})
    spec = {"taskType": "implementation", "task": document, "assignee": "jane"}
    metadata = task_from_resource(body(spec=spec)).metadata
    assert (metadata.assignee, metadata.trace_id) == ("jane", "t")


@pytest.mark.parametrize(
    "spec",
    [
        {"task": task_document("other")},
        {"taskType": "digest", "task": task_document()},
        {"taskType": "implementation", "task": task_document(payload="text")},
        {"taskType": "implementation", "task": task_document(metadata={"assignee": 3})},
        {"taskType": "implementation", "task": ["not", "an", "object"]},
        {"taskType": ""},
    ],
)
def test_an_object_that_gives_no_task_is_refused_without_its_content(spec: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask) as caught:
        task_from_resource(body(spec=spec))
    assert "prompt" not in str(caught.value)
