"""The durable shape: what is stored, what is read back, and whose record it is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from executions.control import suspend
from executions.lifecycle import claim_launch, suspect
from executions.record import (
    Execution,
    RecordUnreadable,
    Rung,
    State,
    Status,
    Suspicion,
    adopted,
    encoded,
    execution_from_stored,
)
from tests.support.builders import NOW_MS, intended, pending, running, task_document
from tests.unit.domain.states import cancelled, cancelling, claimed_again, failed, scheduled, succeeded
from tests.unit.domain.test_retry import clicked


def stored(execution: Execution) -> tuple[dict[str, bytes], bytes]:
    return {str(item.number): encoded(item) for item in execution.attempts}, encoded(execution.state)


def read(fields: dict[str, bytes], state: bytes | None = None, *, is_ours: bool = False) -> Execution:
    return execution_from_stored("task-1", fields, state, is_ours=is_ours, incarnation="foreign")


def foreign(**document: Any) -> Execution:
    return read({"1": orjson.dumps({"status": "failed", **document})})


def claimed() -> Execution:
    execution = claim_launch(running(), "task-1", attempt=1, launch_try=1, claim_id="c", now_ms=NOW_MS).execution
    assert execution is not None
    return execution


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param(pending(), id="waiting"),
        pytest.param(intended(), id="being launched"),
        pytest.param(running(), id="running"),
        pytest.param(claimed(), id="running and claimed"),
        pytest.param(suspect(running(), 1, suspicion=Suspicion(since=NOW_MS, looks=3)), id="suspected"),
        pytest.param(succeeded(), id="succeeded"),
        pytest.param(failed(attempts=3), id="failed thrice"),
        pytest.param(cancelled(), id="cancelled"),
        pytest.param(cancelling(running()), id="being stopped"),
        pytest.param(clicked(failed()), id="with a marked retry"),
        pytest.param(claimed_again(failed()), id="claimed again"),
        pytest.param(scheduled(failed(), assignee="jane"), id="with a schedule"),
        pytest.param(suspend(pending(), suspended=True).with_state(assignee="jane"), id="held and assigned"),
    ],
)
def test_what_is_stored_is_read_back(execution: Execution) -> None:
    fields, state = stored(execution)
    assert read(fields, state, is_ours=True) == execution


def test_the_document_has_the_names_of_the_contract() -> None:
    (attempt,) = stored(failed())[0].values()
    document = orjson.loads(attempt)
    assert document["taskSnapshot"] == task_document()
    expected = {
        "taskId": "task-1",
        "taskType": "implementation",
        "attempt": 1,
        "status": "failed",
        "traceId": "trace-task-1",
        "launcher": "local",
        "taskArn": "worker-of-task-1",
        "run": 1,
        "startedAt": "2023-11-14T22:13:20.000Z",
        "finishedAt": "2023-11-14T22:13:20.000Z",
        "errorMessage": "boom",
        "error_code": "E1",
    }
    assert {name: document.get(name) for name in expected} == expected


def test_the_snapshot_keeps_nulls_and_empty_values() -> None:
    snapshot: dict[str, Any] = {"taskId": "task-1", "payload": {"a": None, "b": [], "c": {}, "d": 2**53 + 1}, "x": None}
    execution = foreign(taskSnapshot=snapshot)
    assert orjson.loads(encoded(execution.latest))["taskSnapshot"] == snapshot


def test_a_field_that_we_do_not_know_survives() -> None:
    document = {"status": "failed", "mine": {"deep": [1, None]}, "launch": None}
    again = orjson.loads(encoded(read({"1": orjson.dumps(document)}).latest))
    assert again["mine"] == {"deep": [1, None]}
    launch = {"try": 1, "token": "t", "intentAt": 1, "startBy": 2, "newer": "field"}
    assert orjson.loads(encoded(foreign(launch=launch).latest))["launch"]["newer"] == "field"
    state = encoded(State(incarnation="i")).replace(b"{", b'{"newer":1,', 1)
    assert b'"newer":1' in encoded(read({"1": b'{"status":"failed"}'}, state, is_ours=True).state)


def test_a_null_that_we_do_not_know_survives_at_every_level() -> None:
    launch = {"try": 1, "token": "t", "intentAt": NOW_MS, "startBy": NOW_MS, "newer": None}
    seen = {"source": "s", "observedAt": NOW_MS, "detail": "d", "newer": None}
    result = {"agent": {"provider": "codex", "newer": None, "newest": 1}, "newer": None}
    document = {"newer": None, "launch": launch, "evidence": [{**seen, "newer": 1}, seen], "result": result}
    again = orjson.loads(encoded(foreign(**document).latest))
    assert (again["newer"], again["launch"]["newer"], again["result"]["newer"]) == (None, None, None)
    assert [item["newer"] for item in again["evidence"]] == [1, None]
    assert again["result"]["agent"] == {"provider": "codex", "newer": None, "newest": 1}
    assert "rung" not in again["launch"], "a null of ours is left out as ever"


def test_a_word_that_we_do_not_know_survives_and_one_that_we_know_is_known() -> None:
    launch = {"try": 1, "token": "t", "intentAt": NOW_MS, "startBy": NOW_MS}
    guessed, sent = (foreign(launch={**launch, "rung": rung}).latest for rung in ("guessed", "sent"))
    assert orjson.loads(encoded(guessed))["launch"]["rung"] == "guessed"
    assert sent.launch is not None
    assert sent.launch.rung is Rung.SENT


@pytest.mark.parametrize(
    ("document", "field", "value"),
    [
        pytest.param({}, "task_type", "unknown", id="the least that a record can be"),
        pytest.param({"taskId": "another"}, "task_id", "task-1", id="the key says which task it is"),
        pytest.param({"attempt": 9}, "number", 1, id="the field says which attempt it is"),
        pytest.param({"startedAt": 1_700_000_000}, "started_at", NOW_MS, id="seconds"),
        pytest.param({"startedAt": NOW_MS}, "started_at", NOW_MS, id="milliseconds"),
        pytest.param({"startedAt": "2023-11-14T22:13:20Z"}, "started_at", NOW_MS, id="text"),
        pytest.param({"startedAt": None, "taskArn": None}, "worker_id", None, id="nulls"),
        pytest.param({"error_code": "E1"}, "error_code", "E1", id="the code in its own spelling"),
    ],
)
def test_a_record_written_by_hand(document: dict[str, Any], field: str, value: object) -> None:
    execution = foreign(**document)
    assert getattr(execution.latest, field) == value
    assert (execution.state, execution.latest.incarnation) == (State(incarnation="foreign"), None)


def test_attempts_are_ordered_by_number_and_not_by_text() -> None:
    execution = read(dict.fromkeys(("10", "9", "2"), b'{"status":"failed"}'))
    assert [item.number for item in execution.attempts] == [2, 9, 10]
    assert execution.latest.number == 10
    assert execution.attempt(9) == execution.attempts[1]
    assert execution.attempt(1) is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"1": b""}, id="nothing"),
        pytest.param({"1": b"{"}, id="half an object"),
        pytest.param({"1": b"3"}, id="a number"),
        pytest.param({"1": b"[]"}, id="a list"),
        pytest.param({"1": b"\xff"}, id="bytes"),
        pytest.param({"1": b"{}"}, id="no status"),
        pytest.param({"1": b'{"status":"dancing"}'}, id="a status that we do not know"),
        pytest.param({"1": b'{"status":"failed","startedAt":"soon"}'}, id="a time that is none"),
        pytest.param({"1": b'{"status":"failed","startedAt":1e30}'}, id="a time that could not be written again"),
        pytest.param({"1": b'{"status":"failed","run":"many"}'}, id="a number that is none"),
        pytest.param({"1": b'{"status":"failed","taskSnapshot":"text"}'}, id="a snapshot that is text"),
        pytest.param({"1": b'{"status":"failed","launch":{"try":0}}'}, id="half a launch"),
        pytest.param({"x": b'{"status":"failed"}'}, id="a field that is no number"),
        pytest.param({"0": b'{"status":"failed"}'}, id="attempt 0"),
        pytest.param({"-1": b'{"status":"failed"}'}, id="a negative attempt"),
        pytest.param({"1": b'{"status":"failed"}', "2": b"{"}, id="one good attempt and a bad one"),
    ],
)
def test_what_cannot_be_read_is_reported_without_its_content(fields: dict[str, bytes]) -> None:
    with pytest.raises(RecordUnreadable, match="the record of task task-1 cannot be read") as caught:
        read(fields)
    assert "dancing" not in str(caught.value)


def test_a_state_that_cannot_be_read_is_reported_too() -> None:
    with pytest.raises(RecordUnreadable):
        read({"1": b'{"status":"failed"}'}, b"{}", is_ours=True)


def test_adopting_stamps_every_attempt_and_changes_nothing_else() -> None:
    execution = read({"1": b'{"status":"failed"}', "2": b'{"status":"running","incarnation":"old"}'})
    after = adopted(execution)
    assert [item.incarnation for item in after.attempts] == ["foreign", "foreign"]
    assert [item.status for item in after.attempts] == [Status.FAILED, Status.RUNNING]
    assert adopted(after) is after


def test_a_record_made_anew_knows_only_what_was_done_with_its_resource() -> None:
    before = clicked(failed()).with_state(assignee="jane", sequence=9)
    before = before.with_state(resource=before.state.resource.model_copy(update={"uid": "u", "absent_attempt": 1}))
    _, state = stored(before)
    after = read({"1": b'{"status":"failed"}'}, state)
    assert (after.state.incarnation, after.state.sequence) == ("foreign", 0)
    assert (after.state.retry, after.state.assignee) == (None, None)
    assert (after.state.resource.uid, after.state.resource.absent_attempt) == ("u", 0)


def test_an_edited_record_is_a_new_incarnation_that_keeps_what_it_was_for() -> None:
    before = failed().with_state(assignee="jane", suspended=True, sequence=9)
    fields, state = stored(before)
    after = read({"1": fields["1"].replace(b'"failed"', b'"succeeded"')}, state)
    assert (after.state.incarnation, after.state.sequence) == ("foreign", 0)
    assert (after.state.assignee, after.state.suspended) == ("jane", True)
    assert after.latest.status is Status.SUCCEEDED


@pytest.mark.parametrize(
    ("execution", "is_live", "is_finished"),
    [
        pytest.param(pending(), False, False, id="waiting"),
        pytest.param(intended(), True, False, id="being launched"),
        pytest.param(running(), True, False, id="running"),
        pytest.param(succeeded(), False, True, id="succeeded"),
        pytest.param(failed(), False, True, id="failed"),
        pytest.param(cancelled(), False, True, id="cancelled"),
    ],
)
def test_when_a_worker_may_exist(execution: Execution, is_live: bool, is_finished: bool) -> None:
    assert execution.latest.is_live is is_live
    assert execution.latest.status.is_finished is is_finished
