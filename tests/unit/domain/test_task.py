"""The task message: strict on what we know, faithful to what we do not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from executions.errors import InvalidTask
from executions.task import MAX_MESSAGE_BYTES, task_from_body, task_from_document
from tests.support.builders import task_document

MINIMAL = {"taskId": "t", "taskType": "digest"}


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


def test_the_message_of_the_contract_is_read() -> None:
    task = task_from_body(orjson.dumps(task_document("impl-e2e", attempt=2)))
    assert (task.task_id, task.task_type, task.attempt) == ("impl-e2e", "implementation", 2)
    assert (task.trace_id, task.project, task.source) == (
        "trace-impl-e2e",
        "my-org/my-repo",
        "coding.implementation",
    )
    assert task.callbacks == {"github": {"repo": "my-org/my-repo", "issueNumber": 1}}


def test_a_message_needs_only_id_and_type() -> None:
    task = task_from_document(MINIMAL)
    assert (task.trace_id, task.execution_id, task.task_name, task.source) == ("t", "t", "digest", "digest")
    assert (task.project, task.attempt, task.payload) == (None, None, {})
    assert task.snapshot() == MINIMAL


def test_metadata_names_the_execution_and_its_actor() -> None:
    actor = {"provider": "slack", "id": "U1", "display": "Jane"}
    task = task_from_document(
        {**MINIMAL, "metadata": {"executionId": "row-1", "taskName": "Weekly", "actor": actor, "flow": "f"}}
    )
    assert (task.execution_id, task.task_name, task.metadata.flow) == ("row-1", "Weekly", "f")
    assert task.metadata.actor is not None
    assert (task.metadata.actor.provider, task.metadata.actor.id, task.metadata.actor.display) == tuple(actor.values())


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param({"unknown": {"deep": [1, None, {"x": []}]}}, id="an unknown field"),
        pytest.param({"payload": {"a": None, "b": [], "c": {}, "d": 2**53 + 1}}, id="nulls, empty values"),
        pytest.param({"metadata": {"createdAt": 1.5, "mine": "x", "actor": {"id": "U1", "team": 7}}}, id="in metadata"),
        pytest.param({"metadata": {"createdAt": "2023-11-14T22:13:20Z", "trace_id": "upstream"}}, id="a time as text"),
        pytest.param({"callbacks": {"slack": {"channel": "C1"}}}, id="callbacks"),
        pytest.param({"attempt": 3}, id="the attempt"),
        pytest.param({"task_id": "../x", "task_type": 7}, id="names of our Python"),
        pytest.param({"snapshot": 1, "project": 2, "trace_id": 3, "source": 4}, id="names of our own properties"),
    ],
)
def test_the_snapshot_is_the_message_as_received(extra: dict[str, Any]) -> None:
    document = {**MINIMAL, **extra}
    assert task_from_document(document).snapshot() == document
    assert task_from_document(document).trace_id == (extra.get("metadata", {}).get("trace_id") or "t")


@pytest.mark.parametrize(
    ("payload", "project"),
    [
        pytest.param({"repo": "my-org/my.repo_1"}, "my-org/my.repo_1", id="owner/repo"),
        pytest.param({"repo": "no-slash"}, None, id="no owner"),
        pytest.param({"repo": "a/b/c"}, None, id="too many parts"),
        pytest.param({"repo": "a/b\n"}, None, id="a line feed"),
        pytest.param({"repo": 7}, None, id="a number"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_the_project(payload: dict[str, Any], project: str | None) -> None:
    assert task_from_document({**MINIMAL, "payload": payload}).project == project


@pytest.mark.parametrize("source", ["", None, 7, ["x"]])
def test_a_source_that_is_no_text_falls_back_to_the_task_type(source: object) -> None:
    assert task_from_document({**MINIMAL, "payload": {"source": source}}).source == "digest"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "not JSON", id="an empty body"),
        pytest.param(b"{", "not JSON", id="half an object"),
        pytest.param(b'{"taskId":NaN}', "not JSON", id="a number that JSON does not have"),
        pytest.param(b"\xff\xfe", "not JSON", id="bytes that are no UTF-8"),
        pytest.param("\ud800", "not JSON", id="half a surrogate pair"),
        pytest.param(b'{"taskId":"\\ud800","taskType":"x"}', "not JSON", id="an escaped half surrogate pair"),
        pytest.param(b"[" * 5000 + b"]" * 5000, "not JSON", id="brackets without end"),
        pytest.param(b"[]", "must be a JSON object", id="a list"),
        pytest.param(b'"text"', "must be a JSON object", id="text"),
        pytest.param(b"null", "must be a JSON object", id="null"),
        pytest.param(b"{}", "taskId must start", id="no task id"),
        pytest.param(b'{"taskId":"../x","taskType":"t"}', "taskId must start", id="a task id that climbs"),
        pytest.param(b'{"taskId":"t"}', "'taskType' is invalid: missing", id="no task type"),
        pytest.param(b'{"taskId":"t","task_type":"x"}', "'taskType' is invalid: missing", id="a type by another name"),
        pytest.param(b" " * (MAX_MESSAGE_BYTES + 1), "larger than", id="more than the queue can carry"),
        pytest.param("é" * (MAX_MESSAGE_BYTES // 2 + 1), "larger than", id="text is counted in bytes"),
    ],
)
def test_a_body_that_is_no_task_is_refused(body: str | bytes, reason: str) -> None:
    with pytest.raises(InvalidTask, match=reason):
        task_from_body(body)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"taskType": 7}, "taskType", id="a type that is a number"),
        pytest.param({"taskType": ""}, "taskType", id="an empty type"),
        pytest.param({"taskType": "x" * 64}, "taskType", id="a long type"),
        pytest.param({"taskType": "a b"}, "taskType", id="a type with a space"),
        pytest.param({"taskType": "a\n"}, "taskType", id="a type with a line feed"),
        pytest.param({"attempt": 0}, "attempt", id="attempt 0"),
        pytest.param({"attempt": -1}, "attempt", id="a negative attempt"),
        pytest.param({"attempt": "2"}, "attempt", id="an attempt as text"),
        pytest.param({"attempt": 2.0}, "attempt", id="an attempt with a fraction"),
        pytest.param({"attempt": True}, "attempt", id="an attempt that is a truth value"),
        pytest.param({"attempt": 1001}, "attempt", id="an absurd attempt"),
        pytest.param({"payload": []}, "payload", id="a payload that is a list"),
        pytest.param({"payload": None}, "payload", id="a payload that is null"),
        pytest.param({"callbacks": "x"}, "callbacks", id="callbacks that are text"),
        pytest.param({"metadata": "x"}, "metadata", id="metadata that is text"),
        pytest.param({"metadata": {"trace_id": 7}}, "metadata.trace_id", id="a trace id that is a number"),
        pytest.param({"metadata": {"trace_id": "x" * 1025}}, "metadata.trace_id", id="a trace id without end"),
        pytest.param({"metadata": {"actor": {"id": 7}}}, "metadata.actor.id", id="an actor id that is a number"),
        pytest.param({"metadata": {"actor": "jane"}}, "metadata.actor", id="an actor that is text"),
        pytest.param({"metadata": {"assignee": []}}, "metadata.assignee", id="an assignee that is a list"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTask, match=f"'{field}' is invalid") as caught:
        task_from_document({**MINIMAL, **changes})
    assert len(str(caught.value)) < 120


def test_a_message_that_could_not_be_stored_is_refused_at_the_door() -> None:
    assert task_from_document({**MINIMAL, "payload": nested(99)}).snapshot()["payload"] == nested(99)
    with pytest.raises(InvalidTask, match="nested more than 100 levels"):
        task_from_document({**MINIMAL, "payload": nested(100)})
    with pytest.raises(InvalidTask, match="nested more than 100 levels"):
        task_from_body(b'{"taskId":"t","taskType":"x","payload":{"a":' + b"[" * 300 + b"]" * 300 + b"}}")
