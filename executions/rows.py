"""The dashboard's rows: the latest state of each execution, as the projection keeps it and as people ask for it.

``row_from_fields`` reads a hash of the projection, ``row_from_event`` an event; both give the same row. ``Filters``
says which rows somebody asks for. Never says who may see one: that is ``visibility``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from executions.conditions import Phase
from executions.errors import InvalidCursor, InvalidEvent
from executions.record import Execution
from executions.tracking import TrackingEvent, TrackingStatus, document_of, event_from_document, followed

STATES = tuple(item.value for item in (*TrackingStatus, *Phase))
"""What ``Filters.status`` may be: what is left of a phase, or the phase itself."""
_OBJECTS = ("attempt", "actor", "prLinks", "visibility")
_OF_ACTORS = ("provider", "id", "display")
_TEXTS = ("flow", "taskName", "project", "taskId", "taskType", "phase", "traceId", "errorCode")
_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,2048}", re.ASCII)
_PLACE = re.compile(r"(-?\d{1,15}):(.*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader of the list stands: everything that is older than this follows."""

    occurred_ms: int
    execution_id: str


def cursor_from_place(place: Place) -> str:
    """Opaque to whoever gets it."""
    return base64.urlsafe_b64encode(f"{place.occurred_ms}:{place.execution_id}".encode()).rstrip(b"=").decode()


def place_from_cursor(cursor: str) -> Place:
    """The reverse. Raises InvalidCursor."""
    try:
        if not _CURSOR.fullmatch(cursor):
            raise ValueError("not of our alphabet")
        found = _PLACE.fullmatch(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode())
        if found is None:
            raise ValueError("no place")
    except ValueError:
        raise InvalidCursor("a cursor that we did not make") from None
    return Place(int(found[1]), found[2])


@dataclass(frozen=True, slots=True)
class Row:
    """One execution on the dashboard."""

    shown: Mapping[str, Any]
    visibility: object
    """What its newest event tells of who may see it, as it stands there."""
    order: tuple[int, int, str]
    """That of the event it was made of (``TrackingEvent.order``)."""


def row_from_event(event: TrackingEvent) -> Row:
    """The row that an event makes. Anybody may have written it: of a field that is not what it should be, nothing."""
    document = event.document
    attempt, links = document.get("attempt"), document.get("prLinks")
    shown = {
        "executionId": event.execution_id,
        "status": document["status"],
        "occurredAt": document["occurredAt"],
        "eventId": event.event_id,
        **{name: _text(document.get(name)) for name in _TEXTS},
        "attempt": attempt if isinstance(attempt, int) and not isinstance(attempt, bool) else None,
        "actor": actor_shown(document.get("actor")),
        "prLinks": [link for link in links if isinstance(link, str)] if isinstance(links, list) else [],
    }
    return Row(shown, document.get("visibility"), event.order)


def row_from_execution(execution: Execution) -> Row:
    """The row that its newest event will make, before it is there: for what is asked of the record itself."""
    told = document_of(followed(execution), event_id=execution.task_id, occurred_ms=0, responsible_users=())
    return row_from_event(event_from_document(told))


def row_from_fields(fields: Mapping[str, str]) -> Row | None:
    """The row that a hash of the projection makes, where objects stand as JSON text; None where it holds no event."""
    document: dict[str, Any] = dict(fields)
    for name in _OBJECTS:
        if name in document:
            document[name] = _parsed(document[name])
    try:
        return row_from_event(event_from_document(document))
    except InvalidEvent:
        return None


def actor_shown(actor: object) -> dict[str, str | None] | None:
    """Who asked for the work; None where nobody is named."""
    return {name: _text(actor.get(name)) for name in _OF_ACTORS} if isinstance(actor, dict) else None


@dataclass(frozen=True, slots=True)
class Filters:
    """What all rows asked for have in common; None: anything."""

    project: str | None = None
    status: str | None = None
    """One of STATES."""
    actor: str | None = None
    """Id or shown name, without regard to case."""
    text: str | None = None
    """Somewhere in the names and ids, without regard to case."""

    @property
    def is_empty(self) -> bool:
        return (self.project, self.status, self.actor, self.text) == (None, None, None, None)

    def match(self, row: Row) -> bool:
        shown = row.shown
        return (
            self.project in (None, shown["project"])
            and self.status in (None, shown["status"], shown["phase"])
            and (self.actor is None or self.actor.lower() in _names_of(shown["actor"]))
            and (self.text is None or any(self.text.lower() in said for said in _said(shown)))
        )


def _names_of(actor: Mapping[str, Any] | None) -> list[str]:
    return [actor[name].lower() for name in ("id", "display") if actor[name]] if actor else []


def _said(shown: Mapping[str, Any]) -> Iterator[str]:
    for name in ("taskName", "executionId", "taskId", "project"):
        if shown[name]:
            yield shown[name].lower()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return text
