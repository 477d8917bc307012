"""Request and answer bodies: what is validated, and what OpenAPI shows, with an example of every answer.

Answers are written by the routes as plain objects; a test holds them against these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from executions.rows import STATES, Filters

_TASK_ID = Field(description="The task's id", examples=["impl-e2e"])
_NO_CONTROL = r"^[^\x00-\x1f\x7f]+$"
State = Annotated[str, StringConstraints(pattern=f"^({'|'.join(STATES)})$")]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_NO_CONTROL)]


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


class Selector(_Request):
    """Which tasks: those that all given criteria hold for; at least one must be given."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")  # A misspelled one would select more.

    project: _Word | None = None
    status: State | None = None
    actor: _Word | None = None
    text: _Word | None = None
    taskIds: Annotated[list[Annotated[str, StringConstraints(max_length=128)]], Field(max_length=200)] | None = None

    @property
    def filters(self) -> Filters:
        return Filters(self.project, self.status, self.actor, self.text)


class SelectionBody(_Request):
    """What to do something with, so many at most in one request."""

    selector: Selector
    dryRun: bool = False
    limit: Annotated[int, Field(ge=1, le=200)] = 100
    cursor: Annotated[str, StringConstraints(max_length=2048)] | None = None
    """``nextCursor`` of the answer before."""


class CancelSelectionBody(SelectionBody):
    """The same with the reason that each of them is ended for."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_NO_CONTROL)]


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


class ActorShown(_Answer):
    """Who asked for the work, as the message says."""

    provider: str | None
    id: str | None
    display: str | None


class TaskRow(_Answer):
    """The newest event of an execution."""

    executionId: str
    status: str
    occurredAt: str
    eventId: str
    flow: str | None
    taskName: str | None
    project: str | None
    taskId: str | None
    taskType: str | None
    phase: str | None
    traceId: str | None
    errorCode: str | None
    attempt: int | None
    actor: ActorShown | None
    prLinks: list[str]


class TasksAnswer(_Answer):
    """Rows from the newest on. A page may be short and still have a ``nextCursor``; the last one has null."""

    tasks: list[TaskRow]
    nextCursor: str | None


class ObstacleShown(_Answer):
    """What stands in the way of a launch right now."""

    what: str
    text: str


class LateResultShown(_Answer):
    status: Literal["success", "failure"]
    receivedAt: str
    message: str | None
    pullRequestUrl: str | None


class AttemptShown(BaseModel):
    """One attempt; what is not known of it is left out."""

    model_config = ConfigDict(frozen=True, extra="allow")

    attempt: int
    status: str
    phase: str
    reason: str
    message: str
    errorMessage: str | None
    lateResults: list[LateResultShown]


class ExecutionAnswer(_Answer):
    """One execution with its attempts, why it stands where it does, and what happens next."""

    taskId: str = _TASK_ID
    executionId: str
    resourceName: str
    taskType: str
    taskName: str
    flow: str
    project: str | None
    actor: ActorShown | None
    prLinks: list[str]
    status: str
    phase: str
    reason: str
    message: str
    next: str | None
    attempt: int
    run: int | None
    launcher: str | None
    workerId: str | None
    traceId: str | None
    startTime: str | None
    finishTime: str | None
    nextRetryTime: str | None
    schedule: dict[str, Any] | None
    obstacles: list[ObstacleShown]
    assignee: str | None
    retriesLeft: int
    canRetry: bool
    retryRefusal: str | None
    canCancel: bool
    attempts: list[AttemptShown]


class HoldShown(_Answer):
    """Nothing is taken in and nothing is launched."""

    by: str
    reason: str
    since: str


class BreakerShown(_Answer):
    """Launches of one launcher and task type are held back, because they fail again and again."""

    launcher: str
    taskType: str
    code: str
    openedAt: str
    probeAt: str


class SlotsShown(_Answer):
    """Live attempts of all people, and those that wait for a slot. ``limit`` null: none."""

    limit: int | None
    live: int
    waiting: int


class TypeSlotsShown(SlotsShown):
    taskType: str


class OverviewAnswer(_Answer):
    """What holds for the whole installation right now."""

    now: str
    hold: HoldShown | None
    breakers: list[BreakerShown]
    slots: SlotsShown
    types: list[TypeSlotsShown]
    maxRetries: int


class TaskResult(_Answer):
    """What the single route would have answered for this task."""

    taskId: str
    status: int
    body: dict[str, Any]


class SelectionAnswer(_Answer):
    """An answer for each task, in the order they were found in."""

    dryRun: bool
    results: list[TaskResult]
    left: list[str]
    """Tasks that were selected and not come to in time: nothing was done with them."""
    nextCursor: str | None
