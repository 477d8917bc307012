"""The dashboard's rows: what one shows of an event that anybody may have written, what is asked for, cursors."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from executions.errors import InvalidCursor
from executions.rows import (
    STATES,
    Filters,
    Place,
    cursor_from_place,
    place_from_cursor,
    row_from_event,
    row_from_execution,
    row_from_fields,
)
from executions.tracking import event_from_document
from executions.visibility import Visibility
from tests.support.builders import running
from tests.support.memory_tracking import tracked

JANE = {"provider": "github", "id": "U123", "display": "Jane Dev"}


def shown(**fields: Any) -> dict[str, Any]:
    """The row of an event, which its hash must make too."""
    event = event_from_document(tracked("impl-1", **fields))
    row = row_from_event(event)
    assert row_from_fields(event.fields) == row
    return dict(row.shown)


def test_a_row_shows_what_the_event_says() -> None:
    row = shown(actor=JANE, prLinks=["https://x/pull/1"], attempt=2, errorCode="WORKER_LOST", flow="f", traceId="t")
    assert (row["executionId"], row["status"], row["phase"]) == ("impl-1", "in_progress", "Running")
    assert (row["actor"], row["prLinks"], row["attempt"]) == (JANE, ["https://x/pull/1"], 2)
    assert (row["errorCode"], row["flow"], row["traceId"], row["taskType"]) == ("WORKER_LOST", "f", "t", None)


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        ({"actor": "jane"}, "actor", None),
        ({"actor": ["jane"]}, "actor", None),
        ({"actor": {"id": 7, "display": "J", "secret": "x"}}, "actor", {"provider": None, "id": None, "display": "J"}),
        ({"attempt": True}, "attempt", None),
        ({"attempt": "two"}, "attempt", None),
        ({"prLinks": "x"}, "prLinks", []),
        ({"prLinks": ["a", 1, None]}, "prLinks", ["a"]),
        ({"payload": {"secret": 1}}, "payload", None),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_left_out(fields: dict[str, Any], name: str, expected: object) -> None:
    assert shown(**fields).get(name) == expected


@pytest.mark.parametrize(
    "fields", [{}, {"executionId": "a"}, {"executionId": "a", "eventId": "b", "occurredAt": "never", "status": "error"}]
)
def test_a_hash_that_holds_no_event_makes_no_row(fields: dict[str, str]) -> None:
    assert row_from_fields(fields) is None


def test_the_row_of_a_record_is_that_of_its_newest_event() -> None:
    row = row_from_execution(running("task-1")).shown
    assert (row["executionId"], row["project"], row["phase"]) == ("task-1", "my-org/my-repo", "Running")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), True),
        (Filters(project="my-org/my-repo"), True),
        (Filters(project="my-org/MY-REPO"), False),
        (Filters(project="my-org"), False),
        (Filters(status="in_progress"), True),
        (Filters(status="Running"), True),
        (Filters(status="Failed"), False),
        (Filters(actor="u123"), True),
        (Filters(actor="JANE DEV"), True),
        (Filters(actor="jane"), False),
        (Filters(actor="github"), False),
        (Filters(text="fIx"), True),
        (Filters(text="MPL-1"), True),
        (Filters(text="y-rep"), True),
        (Filters(text="running"), False),
        (Filters(project="my-org/my-repo", status="error"), False),
        (Filters("my-org/my-repo", "in_progress", "U123", "fix"), True),
    ],
)
def test_all_that_is_asked_for_must_hold(filters: Filters, expected: bool) -> None:
    assert filters.match(row_from_event(event_from_document(tracked("impl-1", actor=JANE)))) is expected


def test_an_actor_is_not_found_where_nobody_is_named() -> None:
    row = row_from_event(event_from_document(tracked("impl-1", taskName=None, project=None)))
    assert not Filters(actor="jane").match(row)
    assert not Filters(text="none").match(row)


def test_states_are_what_a_status_or_a_phase_may_be() -> None:
    assert set(STATES) == {
        *("in_progress", "success", "error"),
        *("Pending", "Running", "RetryScheduled", "Succeeded", "Failed", "Cancelled"),
    }


@pytest.mark.parametrize(
    "place", [Place(0, "a"), Place(-5, "a:b"), Place(1_700_000_000_123, "row/with #?& ü\x00"), Place(1, "")]
)
def test_a_cursor_is_read_as_it_was_made(place: Place) -> None:
    cursor = cursor_from_place(place)
    assert place_from_cursor(cursor) == place
    assert cursor.strip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""


@pytest.mark.parametrize(
    "text",
    [b"", b"a", b":a", b"1", b"--1:a", b"1.5:a", b"\xff:a", b"9999999999999999999:a", "٣:a".encode(), b" 1:a"],
)
def test_a_cursor_of_somebody_elses_making_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidCursor):
        place_from_cursor(base64.urlsafe_b64encode(text).rstrip(b"=").decode())


@pytest.mark.parametrize("cursor", ["", "*", "a", "MTph\n", "ü", "A" * 3000, "MTph=", "MT+h"])
def test_what_is_no_cursor_at_all_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        place_from_cursor(cursor)


NAMED = Visibility({"my-org/*": ["Lead@example.com"], "open/repo": []})


@pytest.mark.parametrize(
    ("case", "project", "told", "is_seen"),
    [
        ("named, in any case", "x/y", {"responsibleUsers": ["A@example.com", "LEAD@example.com"]}, True),
        ("somebody else is named", "x/y", {"responsibleUsers": ["a@example.com"]}, False),
        ("nobody is named", "my-org/secret", {"responsibleUsers": []}, True),
        ("nothing is told, and the file names them", "my-org/repo", None, True),
        ("nothing is told, and the file names nobody", "open/repo", None, True),
        ("nothing is told of a project without an entry", "x/y", None, True),
        ("an empty word", "x/y", {}, True),
        ("people that are no list", "x/y", {"responsibleUsers": "lead@example.com"}, False),
        ("people that are no texts", "x/y", {"responsibleUsers": ["lead@example.com", 7]}, False),
        ("people that are null", "x/y", {"responsibleUsers": None}, False),
        ("an object of something else", "x/y", {"users": ["lead@example.com"]}, False),
        ("a list", "x/y", ["lead@example.com"], False),
        ("an empty list", "x/y", [], False),
        ("a text", "x/y", "lead@example.com", False),
    ],
)
def test_who_sees_an_event_by_what_it_tells(case: str, project: str, told: object, is_seen: bool) -> None:
    assert NAMED.sees("lead@Example.com", project, told) is is_seen


def test_where_an_event_tells_nothing_the_file_also_hides() -> None:
    assert not NAMED.sees("other@example.com", "my-org/repo", None)
    assert not NAMED.sees("other@example.com", "my-org/repo", {})
    assert NAMED.sees("other@example.com", None, None)
