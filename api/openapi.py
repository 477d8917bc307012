"""How routes describe themselves in OpenAPI: answers with examples, bodies that we parse ourselves. No behaviour."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from api import body, errors
from api.guard import MAX_BODY_BYTES
from api.schemas import ErrorAnswer
from executions.names import TASK_ID

Responses = dict[int | str, dict[str, Any]]


def answer(description: str, model: Any, **examples: dict[str, Any]) -> dict[str, Any]:
    """One answer with named examples."""
    shown = {name: {"value": value} for name, value in examples.items()}
    return {"model": model, "description": description, "content": {"application/json": {"examples": shown}}}


def error(description: str, **texts: str | dict[str, Any]) -> dict[str, Any]:
    """One refusal, with an example for each of its texts."""
    bodies = {name: {"error": text} if isinstance(text, str) else text for name, text in texts.items()}
    return answer(description, ErrorAnswer, **bodies)


def request_body(schema: type[BaseModel] | dict[str, Any], *, required: bool = True, **examples: Any) -> dict[str, Any]:
    """``openapi_extra`` for a body that ``body`` parses instead of the framework."""
    shown = schema if isinstance(schema, dict) else _whole(schema.model_json_schema())
    content = {"schema": shown, "examples": {name: {"value": value} for name, value in examples.items()}}
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    """With what it refers to put in its place: ``#/$defs`` would be looked for at the root of the description."""
    definitions = schema.pop("$defs", {})

    def put(part: Any) -> Any:
        if isinstance(part, list):
            return [put(item) for item in part]
        if not isinstance(part, dict):
            return part
        if (reference := part.get("$ref")) is not None:
            return put(definitions[reference.removeprefix("#/$defs/")])
        return {name: put(item) for name, item in part.items()}

    found: dict[str, Any] = put(schema)
    return found


def on_execution(body: dict[str, Any] | None = None) -> dict[str, Any]:
    """``openapi_extra`` of a route on one execution: its body, and the path parameter that ``dependencies`` checks."""
    schema = {"type": "string", "pattern": f"^{TASK_ID.pattern}$"}
    parameter = {"name": "taskId", "in": "path", "required": True, "schema": schema, "example": "impl-e2e"}
    return {"parameters": [parameter], **(body or {})}


TASK_ID_TEXT = "taskId must start with a letter or digit and have 1 to 128 of the characters A-Z a-z 0-9 . _ : -"

GUARD_REFUSALS: Responses = {
    408: error("The body came too slowly", slow="the body did not arrive in time"),
    413: error("The body is too large", large=f"the body is larger than {MAX_BODY_BYTES} bytes"),
    500: error("A fault of ours; its cause is in the log", internal=errors.INTERNAL),
}
"""Of every route."""

BODY_REFUSALS: Responses = {
    **GUARD_REFUSALS,
    400: error(
        "The body or the task id is not usable",
        empty={"error": body.EMPTY, "code": body.EMPTY_CODE},
        not_json=body.NOT_JSON,
        not_an_object=body.NOT_AN_OBJECT,
        wrong_field="the field 'taskId' is invalid: string_type",
        task_id=TASK_ID_TEXT,
    ),
    415: error("The body is not JSON", media_type=body.WRONG_TYPE),
}
"""Of every route that takes a body."""

PERSON_REFUSALS: Responses = {
    **GUARD_REFUSALS,
    401: error("Nobody is signed in", unauthorized=errors.UNAUTHORIZED),
    403: error("Whoever is signed in is not let in", forbidden=errors.FORBIDDEN),
    429: error("This person asks too often; Retry-After says when again", too_many=errors.TOO_MANY),
    503: error(
        "The identity provider's keys cannot be had", identity="the identity provider cannot be reached; try again"
    ),
}
"""Of every route that people use."""

READ_REFUSALS: Responses = {**PERSON_REFUSALS, 502: error("Redis could not be read", store=errors.STORE_AWAY)}
"""Of every route that people read from."""

DASHBOARD_REFUSALS: Responses = {
    **BODY_REFUSALS,
    **PERSON_REFUSALS,
    404: error("There is no record", unknown=errors.NOT_FOUND),
    502: error("The store or the queue did not do its part", store=errors.STORE_AWAY),
}
"""Of every route with which people do something to an execution."""


def not_found(**texts: str) -> dict[str, Any]:
    return error("There is none, or it is not for this person to see", **texts)


def event_stream(description: str, example: str) -> dict[str, Any]:
    """An answer that goes on: server-sent events, each of which the schema is of."""
    texts = {"type": "string"}
    event = {"type": "object", "properties": {"id": texts, "event": texts, "data": texts}, "required": ["data"]}
    shown = {"schema": event, "examples": {"events": {"value": example}}}
    return {"description": description, "content": {"text/event-stream": shown}}
