"""Lifecycle events: what dashboard, archive and analysts are told of an execution, one for each step that it takes.

``followed`` makes the event's content from a record, ``TrackingEvent`` is one as it stands on the stream, ours or
somebody else's. Which of two events of an execution is the newer one is decided here (``TrackingEvent.order``) and by
the same rule in ``adapters/project.lua``. Never says who may see it: that is ``visibility``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from executions.conditions import Phase, phase
from executions.errors import InvalidEvent
from executions.moment import iso_from_ms, ms_from_iso
from executions.record import Attempt, Execution
from executions.task import PROJECT
from executions.visibility import Visibility

_SEQUENCE = re.compile(r"\.(\d{1,15})$", re.ASCII)
_MAX_EVENT_BYTES = 256 * 1024
_MAX_FIELDS = 500


class TrackingStatus(StrEnum):
    """What is left of a phase on the dashboard."""

    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    ERROR = "error"


_STATUSES = {
    Phase.PENDING: TrackingStatus.IN_PROGRESS,
    Phase.RUNNING: TrackingStatus.IN_PROGRESS,
    Phase.RETRY_SCHEDULED: TrackingStatus.IN_PROGRESS,
    Phase.SUCCEEDED: TrackingStatus.SUCCESS,
    Phase.FAILED: TrackingStatus.ERROR,
    Phase.CANCELLED: TrackingStatus.ERROR,
}


def event_id(task_id: str, incarnation: str, sequence: int, occurred_ms: int) -> str:
    """The same for each publication of one change, and after the last dot its place among those of its record.

    With the time, because a Redis that failed over may have lost its last changes and counts them once more; with the
    task, because the incarnation of records that hands wrote follows from their content.
    """
    return f"{task_id}.{incarnation}.{occurred_ms}.{sequence}"


def task_and_time_of(event_id: str) -> tuple[str, int]:
    """Which task an event of ours is of, and when it occurred (ms). Raises ValueError for an event of others."""
    task_id, _, occurred_ms, _ = event_id.rsplit(".", 3)
    return task_id, int(occurred_ms)


def execution_id_of(execution: Execution) -> str:
    """The dashboard's row: what the task's metadata say, else the task's id."""
    return str(_Task.of(execution.attempts).metadata.get("executionId") or execution.task_id)


def followed(execution: Execution) -> dict[str, Any]:
    """What an event says of an execution as it stands now, without id, time and those who may see it."""
    latest, stands = execution.latest, phase(execution)
    task = _Task.of(execution.attempts)
    said: dict[str, Any] = {
        "executionId": execution_id_of(execution),
        "flow": task.metadata.get("flow") or latest.task_type,
        "taskName": task.metadata.get("taskName") or latest.task_type,
        "status": _STATUSES[stands].value,
        "project": task.project,
        "actor": task.metadata.get("actor"),
        "prLinks": _pull_requests(execution.attempts),
        "taskId": execution.task_id,
        "taskType": latest.task_type,
        "phase": stands.value,
        "attempt": latest.number,
        "traceId": latest.trace_id,
    }
    if latest.error_code is not None:
        said["errorCode"] = latest.error_code
    return said


def document_of(
    content: Mapping[str, Any], *, event_id: str, occurred_ms: int, responsible_users: Sequence[str]
) -> dict[str, Any]:
    """The whole event, as it goes onto the stream."""
    identity = {"eventId": event_id, "occurredAt": iso_from_ms(occurred_ms)}
    return {**identity, **content, "visibility": {"responsibleUsers": list(responsible_users)}}


def told_event(execution: Execution, visibility: Visibility) -> TrackingEvent | None:
    """The event of the latest step, made anew from the record; None where no step was told."""
    told = execution.state.told_event
    if told is None:
        return None
    content, (_, occurred_ms) = followed(execution), task_and_time_of(told)
    users = visibility.responsible_users(content["project"])
    document = document_of(content, event_id=told, occurred_ms=occurred_ms, responsible_users=users)
    return event_from_text(orjson.dumps(document))


class _Event(BaseModel):
    """What every event must have; everything else is kept as it is."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", alias_generator=to_camel)

    event_id: str = Field(min_length=1, max_length=256)
    execution_id: str = Field(min_length=1, max_length=256)
    occurred_at: str = Field(max_length=64)
    status: str = Field(pattern="^(in_progress|success|error)$")
    project: str | None = Field(default=None, max_length=256)


@dataclass(frozen=True, slots=True)
class TrackingEvent:
    """One event of the stream."""

    event_id: str
    execution_id: str
    occurred_ms: int
    project: str | None
    """``owner/repo``; None where the event names none that could be one."""
    document: Mapping[str, Any]

    @property
    def order(self) -> tuple[int, int, str]:
        """The larger one is the newer one: by time, within a millisecond by the record's sequence number."""
        found = _SEQUENCE.search(self.event_id)
        return self.occurred_ms, int(found[1]) if found else 0, self.event_id

    @property
    def fields(self) -> dict[str, str]:
        """As the hash of the latest state keeps it: names of the top level, objects as JSON text, no nulls."""
        return {
            name: value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in self.document.items()
            if value is not None
        }

    @property
    def line(self) -> bytes:
        """As the archive keeps it: JSON without a line break."""
        return orjson.dumps(self.document)


def event_from_text(text: bytes) -> TrackingEvent:
    """Read one of the stream. Raises InvalidEvent."""
    if len(text) > _MAX_EVENT_BYTES:
        raise InvalidEvent(f"larger than {_MAX_EVENT_BYTES} bytes")
    try:
        document = orjson.loads(text)
    except ValueError:
        raise InvalidEvent("not JSON") from None
    if not isinstance(document, dict):
        raise InvalidEvent("not a JSON object")
    return event_from_document(document)


def event_from_document(document: Mapping[str, Any]) -> TrackingEvent:
    """The same of an object. Raises InvalidEvent."""
    if len(document) > _MAX_FIELDS:
        raise InvalidEvent(f"more than {_MAX_FIELDS} fields")
    try:
        checked = _Event.model_validate(document)
        occurred_ms = ms_from_iso(checked.occurred_at)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidEvent(f"the field {first['loc'][0]!s} is invalid: {first['type']}") from None
    except (ValueError, OverflowError):
        raise InvalidEvent("the field occurredAt is no time") from None
    project = checked.project if checked.project and PROJECT.fullmatch(checked.project) else None
    return TrackingEvent(checked.event_id, checked.execution_id, occurred_ms, project, document)


@dataclass(frozen=True, slots=True)
class _Task:
    """What the latest attempt that still has its task says of it. Others may have written it: all is checked."""

    project: str | None
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, attempts: Sequence[Attempt]) -> _Task:
        snapshots = (item.task_snapshot for item in reversed(attempts) if item.task_snapshot)
        snapshot: Mapping[str, Any] = next(snapshots, {})
        payload, metadata = _object(snapshot.get("payload")), _object(snapshot.get("metadata"))
        repo, actor = payload.get("repo"), metadata.get("actor")
        texts = {name: metadata[name] for name in ("executionId", "flow", "taskName") if _is_text(metadata.get(name))}
        return cls(
            project=repo if isinstance(repo, str) and PROJECT.fullmatch(repo) else None,
            metadata={**texts, "actor": actor if isinstance(actor, dict) else None},
        )


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256


def _pull_requests(attempts: Sequence[Attempt]) -> list[str]:
    found = (item.result.pull_request_url for item in attempts if item.result is not None)
    return list(dict.fromkeys(url for url in found if url))
