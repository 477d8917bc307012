"""Request and answer bodies: what is validated, and what OpenAPI shows, with an example of every answer.

Answers are written by the routes as plain objects; a test holds them against these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_TASK_ID = Field(description="The task's id", examples=["impl-e2e"])
_NO_CONTROL = r"^[^\x00-\x1f\x7f]+$"


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReasonBody(_Request):
    """Why a person ends something."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_NO_CONTROL)]


class AssigneeBody(_Request):
    """Who the work is for; null for nobody."""

    assignee: Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_NO_CONTROL)] | None


class ClaimBody(_Request):
    """A worker instance that asks whether it may work."""

    taskId: str
    attempt: Annotated[int, Field(ge=1, le=1000)]
    launchTry: Annotated[int, Field(ge=1, le=1000)]
    claimId: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
    """Made once by each worker instance, so that its repeats are recognised."""
    token: Annotated[str, StringConstraints(max_length=1024)] | None = Field(default=None, repr=False)


class ErrorAnswer(_Answer):
    """Any refusal. ``error`` is for people, never repeats what was sent."""

    error: str
    code: str | None = None
    maxRetries: int | None = None


class AttemptAnswer(_Answer):
    """The attempt that a command was about, and its status after it."""

    taskId: str = _TASK_ID
    attempt: int
    status: str


class QueuedAnswer(_Answer):
    """The attempt that will be run."""

    taskId: str = _TASK_ID
    attempt: int
    status: Literal["queued"]


class RecordedAnswer(_Answer):
    """The outcome decided the attempt."""

    recorded: Literal[True]
    taskId: str = _TASK_ID
    attempt: int
    status: str


class NotRecordedAnswer(_Answer):
    """The outcome came too late or was for another attempt; nothing changed."""

    recorded: Literal[False]
    reason: Literal["already_finished", "superseded"]


class KeptAnswer(_Answer):
    """The outcome is durably kept and will be applied when the store is back."""

    recorded: Literal[False]
    queued: Literal[True]


class ClaimAnswer(_Answer):
    """The work that this worker instance, and no other, may do."""

    taskId: str = _TASK_ID
    taskType: str
    attempt: int
    launchTry: int
    run: int
    traceId: str
    task: dict[str, Any]
    retry: dict[str, Any]


class HealthAnswer(_Answer):
    ok: Literal[True]


class UnhealthyAnswer(_Answer):
    """The checks that failed, by name, with what is wrong."""

    ok: Literal[False]
    failed: dict[str, str]
