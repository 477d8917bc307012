"""A worker's outcome, normalised from both shapes that workers post to ``/task-complete``.

Never decides whether an outcome counts: that is ``lifecycle.record_outcome``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from executions.errors import InvalidOutcome, InvalidTask
from executions.names import checked_task_id

MESSAGE_LIMIT = 4096
"""Characters of an error message that are kept; the rest is cut."""

_Short = Annotated[str, StringConstraints(max_length=256)]
_Url = Annotated[str, StringConstraints(max_length=2048)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Agent(_Part):
    """The coding agent behind a worker, for example ``{"provider": "codex", "model": "…"}``."""

    provider: _Short | None = None
    model: _Short | None = None


class _Extras(_Part):
    """What either shape may carry beside its outcome."""

    task_id: str
    attempt: Annotated[int, Field(ge=1, le=1000)] | None = None
    launch_try: Annotated[int, Field(ge=1, le=1000)] | None = None
    error_family: _Short | None = None
    retry_not_before: _Short | int | float | None = None
    agent: Agent | None = None
    token: Annotated[str, StringConstraints(max_length=1024)] | None = None


class _NestedResult(_Part):
    status: Literal["success", "error"]
    error_message: str | None = None
    error_code: _Short | None = None
    error_family: _Short | None = None
    retry_not_before: _Short | int | float | None = None
    pull_request_url: _Url | None = None


class _Nested(_Extras):
    result: _NestedResult


class _Error(_Part):
    message: str | None = None
    code: _Short | None = None


class _Canonical(_Extras):
    task_type: _Short | None = None
    status: Literal["success", "failure"]
    error: _Error | None = None
    pull_request_url: _Url | None = None


class Outcome(_Part):
    """What a worker reports of one attempt; ``attempt`` is None where the worker does not say which."""

    task_id: str
    succeeded: bool
    attempt: int | None = None
    launch_try: int | None = None
    error_message: str | None = None
    error_code: str | None = None
    error_family: str | None = None
    retry_not_before: str | int | float | None = None
    pull_request_url: str | None = None
    agent: Agent | None = None
    token: str | None = Field(default=None, repr=False)


def outcome_from_document(document: object) -> Outcome:
    """Normalise a decoded callback body. Raises InvalidOutcome that names the first wrong field, never its value."""
    if not isinstance(document, dict):
        raise InvalidOutcome("the body must be a JSON object")
    try:
        checked_task_id(document.get("taskId"))
        return _from_nested(document) if "result" in document else _from_canonical(document)
    except InvalidTask as error:
        raise InvalidOutcome(str(error)) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"][:4])
        raise InvalidOutcome(f"the field {field!r} is invalid: {first['type']}") from error


def _from_nested(document: dict[str, Any]) -> Outcome:
    body = _Nested.model_validate(document, by_alias=True, by_name=False)
    result = body.result
    return _outcome(
        body,
        succeeded=result.status == "success",
        message=result.error_message,
        code=result.error_code,
        family=result.error_family or body.error_family,
        not_before=body.retry_not_before if result.retry_not_before is None else result.retry_not_before,
        pull_request_url=result.pull_request_url,
    )


def _from_canonical(document: dict[str, Any]) -> Outcome:
    body = _Canonical.model_validate(document, by_alias=True, by_name=False)
    error = body.error or _Error()
    return _outcome(
        body,
        succeeded=body.status == "success",
        message=error.message,
        code=error.code,
        family=body.error_family,
        not_before=body.retry_not_before,
        pull_request_url=body.pull_request_url,
    )


def _outcome(
    body: _Extras,
    *,
    succeeded: bool,
    message: str | None,
    code: str | None,
    family: str | None,
    not_before: str | int | float | None,
    pull_request_url: str | None,
) -> Outcome:
    return Outcome(
        task_id=body.task_id,
        succeeded=succeeded,
        attempt=body.attempt,
        launch_try=body.launch_try,
        error_message=None if succeeded else (message or "the worker gave no reason")[:MESSAGE_LIMIT],
        error_code=None if succeeded else code,
        error_family=None if succeeded else family,
        retry_not_before=None if succeeded else not_before,
        pull_request_url=pull_request_url,
        agent=body.agent,
        token=body.token,
    )
