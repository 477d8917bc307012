"""The task message: what upstream services put on the queue and users put into ``spec.task``.

Parsing is strict on the fields we know and keeps every other field, so that a retry re-enqueues what was received.
Never decides what becomes of a message: that is ``lifecycle.submit`` and ``lifecycle.dispatch``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from executions.errors import InvalidTask
from executions.names import TASK_TYPE, checked_task_id

MAX_MESSAGE_BYTES = 1_048_576
"""The largest SQS body (botocore service model, 2025); a larger message cannot come back as a retry."""

_DEPTH_LIMIT = 100
"""Levels of nesting; the writers of JSON stop at about 250, and a message that cannot be stored must not be taken."""

PROJECT = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}", re.ASCII)
_Text = Annotated[str, StringConstraints(max_length=1024)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)


class Actor(_Part):
    """Who asked for the work, for example ``{"provider": "slack", "id": "U1", "display": "Jane"}``."""

    provider: _Text | None = None
    id: _Text | None = None
    display: _Text | None = None


class Metadata(_Part):
    """What surrounds a task. ``trace_id`` is the upstream trace id and keeps its snake case on the wire."""

    created_at: int | float | str | None = None
    trace_id: _Text | None = Field(default=None, alias="trace_id")
    execution_id: _Text | None = None
    task_name: _Text | None = None
    actor: Actor | None = None
    flow: _Text | None = None
    assignee: _Text | None = None


class Task(_Part):
    """A task as received. ``attempt`` is absent for a first dispatch."""

    task_id: Annotated[str, StringConstraints(max_length=128)]
    task_type: Annotated[str, StringConstraints(pattern=f"^{TASK_TYPE.pattern}$", max_length=63)]
    payload: dict[str, Any] = Field(default_factory=dict)
    metadata: Metadata = Field(default_factory=Metadata)
    callbacks: dict[str, Any] = Field(default_factory=dict)
    attempt: Annotated[int, Field(ge=1, le=1000)] | None = None

    @property
    def trace_id(self) -> str:
        """The upstream trace id; a task without one is traced by its own id."""
        return self.metadata.trace_id or self.task_id

    @property
    def execution_id(self) -> str:
        """The dashboard's row key."""
        return self.metadata.execution_id or self.task_id

    @property
    def task_name(self) -> str:
        return self.metadata.task_name or self.task_type

    @property
    def project(self) -> str | None:
        """``owner/repo``, or None where the payload names no repository."""
        repo = self.payload.get("repo")
        return repo if isinstance(repo, str) and PROJECT.fullmatch(repo) else None

    @property
    def source(self) -> str:
        """The name of the summary event: ``payload.source``, else the task type."""
        source = self.payload.get("source")
        return source if isinstance(source, str) and source else self.task_type

    def snapshot(self) -> dict[str, Any]:
        """The message as received, unknown fields included, as a JSON object."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def task_from_body(body: str | bytes) -> Task:
    """Parse a queue message's body. Raises InvalidTask with a reason that does not echo the input."""
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    if len(raw) > MAX_MESSAGE_BYTES:
        raise InvalidTask(f"the message is larger than {MAX_MESSAGE_BYTES} bytes")
    try:
        document = orjson.loads(raw)
    except ValueError as error:
        raise InvalidTask("the message is not JSON") from error
    return task_from_document(document)


def task_from_document(document: object) -> Task:
    """Validate a decoded message. Raises InvalidTask that names the first wrong field."""
    if not isinstance(document, dict):
        raise InvalidTask("the message must be a JSON object")
    checked_task_id(document.get("taskId"))
    if _is_nested_too_deep(document):
        raise InvalidTask(f"the message is nested more than {_DEPTH_LIMIT} levels deep")
    try:
        # Wire names only: a field that merely looks like one of ours in Python must stay as it was received.
        return Task.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"][:4])
        raise InvalidTask(f"the message's field {field!r} is invalid: {first['type']}") from error


def _is_nested_too_deep(document: object) -> bool:
    layer: list[Any] = [document]
    for _ in range(_DEPTH_LIMIT):
        children = [child for item in layer for child in (item.values() if isinstance(item, dict) else item)]
        layer = [child for child in children if isinstance(child, dict | list)]
        if not layer:
            return False
    return True
