"""Lifecycle events: what they say of a record, how they are read from the stream, and which of two is the newer one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from executions.archive import folder_of, object_name, receipt_for, receipt_from
from executions.errors import InvalidEvent
from executions.feed import entry_between
from executions.lifecycle import ended, record_outcome
from executions.outcome import Outcome
from executions.record import Execution, Schedule, Status
from executions.tracking import TrackingEvent, document_of, event_from_text, event_id, followed
from executions.visibility import Visibility, may_see
from tests.support.builders import NOW_MS, a_task, pending, running

METADATA = {
    "executionId": "row-1",
    "taskName": "Fix the widget bug",
    "flow": "implementation-flow",
    "actor": {"provider": "github", "id": "U123", "display": "Jane Dev"},
}


def with_metadata(execution: Execution) -> Execution:
    snapshot = a_task("task-1", metadata=METADATA).snapshot()
    return execution.with_latest(task_snapshot=snapshot)


def succeeded() -> Execution:
    outcome = Outcome(task_id="task-1", succeeded=True, pull_request_url="https://github.com/o/r/pull/7")
    decision = record_outcome(running(), outcome, received_ms=NOW_MS + 5, now_ms=NOW_MS + 5)
    assert decision.execution is not None
    return decision.execution


def failed() -> Execution:
    return ended(running(), 1, Status.FAILED, now_ms=NOW_MS + 5, code="WORKER_LOST", message="gone")


def retried_later() -> Execution:
    return failed().with_state(schedule=Schedule(attempt=2, due_at=NOW_MS + 9, reason="transient"))


@pytest.mark.parametrize(
    ("execution", "phase", "status"),
    [
        (pending(), "Pending", "in_progress"),
        (running(), "Running", "in_progress"),
        (retried_later(), "RetryScheduled", "in_progress"),
        (succeeded(), "Succeeded", "success"),
        (failed(), "Failed", "error"),
        (ended(running(), 1, Status.CANCELLED, now_ms=NOW_MS), "Cancelled", "error"),
    ],
    ids=["pending", "running", "retry scheduled", "succeeded", "failed", "cancelled"],
)
def test_an_event_says_where_an_execution_stands(execution: Execution, phase: str, status: str) -> None:
    said = followed(execution)
    assert (said["phase"], said["status"], said["attempt"]) == (phase, status, 1)


def test_an_event_says_whose_execution_it_is() -> None:
    said = followed(with_metadata(running()))
    assert said["executionId"] == "row-1"
    assert said["taskId"] == "task-1"
    assert said["taskName"] == "Fix the widget bug"
    assert said["actor"] == METADATA["actor"]
    assert said["flow"] == "implementation-flow"
    assert said["project"] == "my-org/my-repo"


def test_what_a_message_leaves_out_has_its_defaults() -> None:
    said = followed(running())
    assert (said["executionId"], said["taskName"], said["flow"]) == ("task-1", "implementation", "implementation")
    assert (said["actor"], said["prLinks"]) == (None, [])


def test_a_record_of_others_may_hold_anything() -> None:
    odd = running().with_latest(task_snapshot={"payload": ["no"], "metadata": {"actor": "x", "taskName": 7}})
    assert followed(odd)["project"] is None
    assert followed(odd)["taskName"] == "implementation"
    assert followed(running().with_latest(task_snapshot=None))["executionId"] == "task-1"


def test_pull_requests_and_the_error_code_are_told() -> None:
    assert followed(succeeded())["prLinks"] == ["https://github.com/o/r/pull/7"]
    assert followed(failed())["errorCode"] == "WORKER_LOST"
    assert "errorCode" not in followed(succeeded())


@pytest.mark.parametrize(
    ("before", "after", "is_a_step"),
    [
        pytest.param(None, pending(), True, id="a claim"),
        pytest.param(running(), failed(), True, id="a failure"),
        pytest.param(failed(), retried_later(), True, id="a schedule"),
        pytest.param(retried_later(), failed(), True, id="a dropped schedule"),
        pytest.param(failed(), failed().with_state(assignee="jane"), False, id="not an assignee"),
    ],
)
def test_every_step_has_an_event_and_nothing_else(before: Execution | None, after: Execution, is_a_step: bool) -> None:
    entry = entry_between(before, after, NOW_MS)
    assert entry is not None
    assert (entry.event is not None) is is_a_step


def test_no_event_carries_the_payload() -> None:
    secret = running().with_latest(task_snapshot=a_task("task-1", payload={"prompt": "hunter2"}).snapshot())
    assert b"hunter2" not in orjson.dumps(followed(secret))


# The stream


def an_event(**fields: Any) -> dict[str, Any]:
    return {
        "eventId": "incarnation.1700000000000.3",
        "executionId": "row-1",
        "occurredAt": "2026-03-15T10:00:00.123Z",
        "flow": "implementation",
        "taskName": "Fix",
        "status": "success",
        "project": "my-org/my-repo",
        "actor": {"provider": "slack", "id": "U1"},
        "prLinks": [],
        "visibility": {"responsibleUsers": []},
        **fields,
    }


def read(**fields: Any) -> TrackingEvent:
    return event_from_text(orjson.dumps(an_event(**fields)))


def test_what_is_published_is_read_back() -> None:
    document = document_of(
        followed(with_metadata(running())),
        event_id=event_id("task-1", "abc", 4, NOW_MS),
        occurred_ms=NOW_MS,
        responsible_users=["jane@example.com"],
    )
    event = event_from_text(orjson.dumps(document))
    assert event.order == (NOW_MS, 4, f"task-1.abc.{NOW_MS}.4")
    assert event.project == "my-org/my-repo"
    assert event.fields["actor"] == '{"provider":"github","id":"U123","display":"Jane Dev"}'
    assert event.fields["visibility"] == '{"responsibleUsers":["jane@example.com"]}'
    assert event.fields["occurredAt"] == "2023-11-14T22:13:20.000Z"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (orjson.dumps(an_event(eventId="")), "the field eventId is invalid: string_too_short"),
        (orjson.dumps(an_event(executionId=7)), "the field executionId is invalid: string_type"),
        (orjson.dumps(an_event(status="done")), "the field status is invalid: string_pattern_mismatch"),
        (orjson.dumps(an_event(occurredAt="yesterday")), "the field occurredAt is no time"),
        (orjson.dumps(an_event(**{f"f{n}": 1 for n in range(500)})), "more than 500 fields"),
        (orjson.dumps(an_event(more="x" * 300_000)), "larger than 262144 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_event_is_refused_with_the_reason(text: bytes, reason: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        event_from_text(text)
    assert str(refused.value) == reason


def test_events_of_others_are_read_too() -> None:
    event = read(eventId="0b6f3c1e", occurredAt="2026-03-15T11:00:00.123+01:00", project=None, more=[1])
    assert event.order == (1773568800123, 0, "0b6f3c1e")
    assert event.project is None
    assert "project" not in event.fields
    assert event.fields["more"] == "[1]"


def test_a_project_that_cannot_be_one_counts_as_none() -> None:
    assert read(project="../../etc/passwd").project is None


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        pytest.param({"occurredAt": "2026-03-15T10:00:01Z"}, {"occurredAt": "2026-03-15T10:00:00Z"}, id="by time"),
        pytest.param({"eventId": "x.1.10"}, {"eventId": "x.1.9"}, id="by sequence"),
        pytest.param({"eventId": "x.1.1"}, {"eventId": "zzz"}, id="without a sequence it is the first"),
        pytest.param({"eventId": "b.1.1"}, {"eventId": "a.1.1"}, id="at last by id, so that all agree"),
        pytest.param({"eventId": "x.1.2"}, {"eventId": "x.1.9999999999999999"}, id="a sequence beyond measure is none"),
    ],
)
def test_the_newer_event(newer: dict[str, str], older: dict[str, str]) -> None:
    assert read(**newer).order > read(**older).order


# The archive's names


def test_an_object_is_of_one_project_and_day() -> None:
    folder = folder_of(read())
    assert folder == "my-org/my-repo/2026-03-15"
    name = object_name(folder, now_ms=1700000000000, suffix="ab12cd")
    assert name == "my-org/my-repo/2026-03-15/events-1700000000000-ab12cd.jsonl"
    assert folder_of(read(project=None)) == "no-project/2026-03-15"


def test_the_day_is_that_of_utc() -> None:
    assert folder_of(read(occurredAt="2026-03-15T00:30:00+02:00")).endswith("/2026-03-14")


def test_a_receipt_is_kept_as_text() -> None:
    receipt = receipt_for("a/b/c", b"line\n", events=1, now_ms=5)
    assert receipt_from(receipt.encoded().decode()) == receipt
    assert (receipt.size, receipt.events) == (5, 1)


# Who sees what


@pytest.mark.parametrize(
    ("project", "users"),
    [
        ("my-org/my-repo", ["jane@x"]),
        ("my-org/other", ["lead@x"]),
        ("else/other", ["ops@x"]),
        (None, ["ops@x"]),
        ("open/repo", []),
    ],
)
def test_the_most_exact_entry_wins_alone(project: str | None, users: list[str]) -> None:
    visibility = Visibility({"my-org/my-repo": ["jane@x"], "my-org/*": ["lead@x"], "*": ["ops@x"], "open/repo": []})
    assert list(visibility.responsible_users(project)) == users


def test_without_a_file_nobody_is_named_and_everybody_sees() -> None:
    assert Visibility().responsible_users("my-org/my-repo") == ()
    assert may_see("anybody@x", ())
    assert may_see("Jane@X", ["jane@x"])
    assert not may_see("joe@x", ["jane@x"])
