"""The durable shape of an execution: one JSON document per attempt, one per execution.

The attempts are the public record (``HGETALL <prefix>:<taskId>``); ``State`` is what we remember beside it. Both keep
fields they do not know, so that an older process never strips what a newer one wrote.
How they change is in ``submission``, ``lifecycle``, ``retry`` and ``control``; how they are stored is
``adapters/redis_store.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from executions.errors import AlakaiError
from executions.moment import FOREIGN, Moment

_ATTEMPT_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class RecordUnreadable(AlakaiError):
    """A stored document that we cannot read; it is left untouched. The text names task and field, not the content."""


class Status(StrEnum):
    """An attempt's status as the record shows it. The last three are terminal and never change."""

    PENDING = "pending"
    """Claimed; its worker is not known to be launched yet."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


class Rung(StrEnum):
    """Which rung of the ladder decided that a launch has a worker: from the plain answer down to a bare look."""

    SENT = "sent"
    """The launcher's answer to a sending, the first one or a replay."""
    CONFLICT = "conflict"
    """The launcher named the worker that the token had started with another request."""
    VERIFIED = "verified"
    """The launcher refused, and a look showed that the worker started all the same."""
    LISTED = "listed"
    """Found among the launcher's workers without sending anything."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)


_Word = TypeVar("_Word", bound=StrEnum)
Known = Annotated[_Word | str, Field(union_mode="left_to_right")]
"""A word of an enum, or one that only a later version knows: it is kept, so that the record can still be worked on."""


class Launch(_Stored):
    """The durable intent of one launch, written before any call leaves. Replays use the very same token and request."""

    launch_try: int = Field(alias="try", ge=1)
    token: str
    request: dict[str, Any] = Field(default_factory=dict)
    intent_at: Moment
    start_by: Moment
    """When a worker that has not started by then counts as never started."""
    claim_id: str | None = None
    """The worker instance that won ``POST /task-claim``; only it may work."""
    claimed_at: Moment | None = None
    callback_key: str | None = None
    """Id of the key that the worker's callback token is made with; None where it gets none."""
    callback_expires_at: Moment | None = None
    rung: Known[Rung] | None = None
    """What told us of the worker; None while nothing has."""


class Grade(StrEnum):
    """How sure a verdict on a worker is."""

    CONFIRMED = "confirmed"
    """The platform, or the worker itself, says that it stopped and why."""
    PROBABLE = "probable"
    """It stopped and nobody says why, or it is missing after it was seen alive."""
    PRESUMED = "presumed"
    """It was only ever missing."""


class Evidence(_Stored):
    """One observation that speaks for or against a worker: where from, when, what was seen."""

    source: str
    observed_at: Moment
    detail: str
    code: str | None = None
    """What the source itself found, for example ``WORKER_OOM``."""
    version: int | None = None
    """Orders the states of one worker where the source counts them (ECS ``Task.version``)."""


class ReportedAgent(_Stored):
    """The coding agent behind a worker, by the worker's word."""

    provider: str | None = None
    model: str | None = None


class Result(_Stored):
    """What a worker reported with its outcome."""

    pull_request_url: str | None = None
    error_family: str | None = None
    retry_not_before: str | int | float | None = None
    agent: ReportedAgent | None = None
    received_at: Moment | None = None


class StopReport(_Stored):
    """A worker's word that it was told to stop, by whom it cannot know: kept until a look at it tells."""

    at: Moment
    message: str
    result: Result


class Suspicion(_Stored):
    """A worker that looked gone, or said that it was told to stop, and has not yet been judged."""

    since: Moment
    looks: int = 1
    """In a row that did not find it."""
    evidence: list[Evidence] = Field(default_factory=list)
    has_stopped: bool = False
    """It was seen stopped; otherwise it was only missing."""
    never_started: bool = False
    code: str | None = None
    """What the launcher found of a stopped worker; it stays when a later look finds nothing any more."""
    version: int | None = None
    happened_at: Moment | None = None
    """When it stopped, by the launcher's word."""
    last_seen_alive_at: Moment | None = None
    report: StopReport | None = None


class StopOrder(_Stored):
    """We asked the worker to stop because of a deadline. Written before the first request to stop is sent."""

    code: str
    """What the attempt ends as unless the worker reports success: ``ATTEMPT_TIMEOUT``, ``START_TIMEOUT``."""
    asked_at: Moment


class Judgement(_Stored):
    """The verdict on the worker of one launch, as it was spoken. How it is found is ``evidence.judge``."""

    kind: str
    """``lost``, ``never_started`` or ``preempted``; after the last two the attempt may have been launched again."""
    grade: Known[Grade]
    code: str
    message: str
    refuted_by: str
    """What would show that the verdict is wrong, in words."""
    spoken_at: Moment
    detected_after_ms: int = Field(ge=0)
    """From when it happened, or from when the worker was last seen alive, to the verdict."""
    last_seen_alive_at: Moment | None = None
    launch_try: int | None = None


class LateResult(_Stored):
    """An outcome that arrived when its attempt was already decided; kept as evidence, changes nothing."""

    succeeded: bool
    received_at: Moment
    message: str | None = None
    pull_request_url: str | None = None


NO_LAUNCHER = "NoLauncher"
"""The reason of an attempt that nobody here can launch: it must not keep others waiting."""


class Waiting(_Stored):
    """What keeps a claimed attempt from being launched, as it was found first."""

    reason: str
    """A word of ``conditions.Reason``."""
    message: str
    since: Moment


class Attempt(_Stored):
    """One attempt, the value of one field of the record's hash."""

    task_id: str
    task_type: str = "unknown"
    number: int = Field(alias="attempt", ge=1)
    status: Status
    task_snapshot: dict[str, Any] | None = None
    trace_id: str | None = None
    launcher: str | None = None
    worker_id: str | None = Field(default=None, alias="taskArn")
    run: int = 1
    claimed_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    error_message: str | None = None
    error_code: str | None = Field(default=None, alias="error_code")
    incarnation: str | None = None
    launch: Launch | None = None
    launch_tries: int = 0
    launch_not_before: Moment | None = None
    waiting: Waiting | None = None
    """None while nothing is known to hinder its launch."""
    automatic_retry: int | None = None
    """The how many-th automatic retry it is; None for an attempt that somebody asked for."""
    codex_transient_fallback_mode: str | None = None
    transient_retry_not_before: Moment | None = None
    suspicion: Suspicion | None = None
    stop: StopOrder | None = None
    verdict: Judgement | None = None
    """On the latest worker that was judged."""
    evidence: list[Evidence] = Field(default_factory=list)
    result: Result | None = None
    late_results: list[LateResult] = Field(default_factory=list)

    @property
    def is_live(self) -> bool:
        """Whether a worker may exist: running, or pending with a durable launch intent."""
        return self.status is Status.RUNNING or (self.status is Status.PENDING and self.launch is not None)

    @property
    def is_stopping(self) -> bool:
        """Whether its live worker was told to stop: by us, or by somebody whom the next look will name."""
        has_said_so = self.suspicion is not None and self.suspicion.report is not None
        return self.is_live and (self.stop is not None or has_said_so)


class RetryRequest(_Stored):
    """A retry that somebody asked for and nobody has claimed yet, or that was claimed moments ago."""

    attempt: int
    requested_at: Moment
    requested_by: str
    claimed: bool = False
    """The attempt began; remembered because a hand may remove the attempt again, which asks for nothing."""
    joined: bool = False
    """Another click was told 202 on this request, so it must not be withdrawn any more."""
    resend_at: Moment
    """When the message is enqueued again if the attempt is still unclaimed."""


class Cancellation(_Stored):
    """A wish to stop the attempt; the attempt is cancelled once its worker is gone."""

    attempt: int
    reason: str
    requested_by: str
    requested_at: Moment


class Refusal(_Stored):
    """Why the last thing that somebody asked for through the custom resource was not done."""

    reason: str
    message: str
    at: Moment


class ResourceLink(_Stored):
    """What we know of the custom resource: which object it is and which of its fields were already acted on.

    How it changes is in ``link``.
    """

    uid: str | None = None
    retry: str | None = None
    cancel: str | None = None
    done: str | None = None
    suspend: bool | None = None
    assignee: str | None = None
    refusal: Refusal | None = None
    """Of the last request, None when that one was accepted."""
    absent_attempt: int = 0
    """A user deleted the resource at this attempt: it stays away until a later attempt is claimed."""
    kept_from: Moment | None = None
    """A finished resource is kept for its time from here on, where this is later than the finish."""


class ScheduleOutcome(StrEnum):
    """What became of an automatic retry."""

    PROMOTED = "promoted"
    """It was due, and its attempt began."""
    DROPPED = "dropped"
    """Its attempt will not begin by itself; the reason says why."""
    SUPERSEDED = "superseded"
    """Something else began that attempt earlier: a manual retry."""
    EXHAUSTED = "exhausted"
    """There was none left."""


class Schedule(_Stored):
    """An automatic retry: when it is due, or what became of it. How it is made is in ``automatic_retry``."""

    attempt: int
    due_at: Moment | None = None
    """None where no retry was left."""
    reason: str
    """Why it was made, and once it is dropped why that was."""
    automatic_retry: int = 1
    """The how many-th automatic retry of this execution it is."""
    limit: int | None = None
    """How many there may be."""
    not_before: Moment | None = None
    """The time that the upstream error asked to wait for."""
    fallback_mode: str | None = None
    """How a Codex worker is to begin it."""
    assignee: str | None = None
    outcome: str | None = None
    """A ScheduleOutcome; None while it waits."""
    settled_at: Moment | None = None
    """Since when it has its outcome."""

    def settled(self, outcome: ScheduleOutcome, *, now_ms: int, reason: str | None = None) -> Schedule:
        return self.model_copy(update={"outcome": outcome, "settled_at": now_ms, "reason": reason or self.reason})


class State(_Stored):
    """What we remember of an execution beside its attempts."""

    incarnation: str
    sequence: int = 0
    """Rises by one with every committed change within an incarnation."""
    told_event: str | None = None
    """Id of the latest lifecycle event; None while there was none."""
    retry: RetryRequest | None = None
    cancellation: Cancellation | None = None
    schedule: Schedule | None = None
    assignee: str | None = None
    suspended: bool = False
    resource: ResourceLink = Field(default_factory=ResourceLink)


@dataclass(frozen=True, slots=True)
class Execution:
    """One task: its attempts in order, oldest first (never empty), and its state."""

    task_id: str
    attempts: tuple[Attempt, ...]
    state: State

    @property
    def latest(self) -> Attempt:
        """The attempt with the largest number; records may begin above 1."""
        return self.attempts[-1]

    @property
    def waiting_retry(self) -> RetryRequest | None:
        """The retry that was asked for and that nobody has claimed yet."""
        mark = self.state.retry
        return mark if mark is not None and not mark.claimed and self.latest.number < mark.attempt else None

    @property
    def waiting_schedule(self) -> Schedule | None:
        """The automatic retry that is still to come."""
        schedule = self.state.schedule
        if schedule is None or schedule.outcome is not None or schedule.attempt != self.latest.number + 1:
            return None
        return schedule if self.latest.status is Status.FAILED else None

    def attempt(self, number: int) -> Attempt | None:
        return next((item for item in self.attempts if item.number == number), None)

    def with_attempt(self, attempt: Attempt) -> Execution:
        """Replace the attempt of the same number, or append a new one."""
        others = [item for item in self.attempts if item.number != attempt.number]
        return replace(self, attempts=tuple(sorted([*others, attempt], key=lambda item: item.number)))

    def with_latest(self, **changes: Any) -> Execution:
        return self.with_attempt(self.latest.model_copy(update=changes))

    def with_state(self, **changes: Any) -> Execution:
        return replace(self, state=self.state.model_copy(update=changes))


def encoded(document: BaseModel) -> bytes:
    """The JSON that is stored: wire names, no nulls for what was never set by anybody."""
    dumped = document.model_dump(mode="json", by_alias=True, exclude_none=True)
    _restore_unknown_nulls(document, dumped)
    return orjson.dumps(dumped)


def _restore_unknown_nulls(document: BaseModel, dumped: dict[str, Any]) -> None:
    """What a null of a later version means is not ours to know; that ours are left out must not take it away."""
    for name, value in (document.model_extra or {}).items():
        if value is None:
            dumped[name] = None
    fields = type(document).model_fields
    for name, value in vars(document).items():
        if isinstance(value, _Stored):
            _restore_unknown_nulls(value, dumped[fields[name].alias or name])
        elif isinstance(value, list):
            for item, dumped_item in zip(value, dumped[fields[name].alias or name], strict=True):
                if isinstance(item, _Stored):
                    _restore_unknown_nulls(item, dumped_item)


def execution_from_stored(
    task_id: str, fields: Mapping[str, bytes], state: bytes | None, *, is_ours: bool, incarnation: str
) -> Execution:
    """Decode a record. ``is_ours`` says whether its content is what we committed last.

    A record that others wrote or edited is a new ``incarnation``, because nothing we knew of it need be true any more:
    attempts may be gone and finished ones changed. What is remembered of the custom resource is kept, so that nothing
    asked for there is done twice; of an edited record the rest is kept too. Raises RecordUnreadable.
    """
    try:
        attempts = sorted(
            (_attempt_from_stored(task_id, number, value) for number, value in fields.items()),
            key=lambda item: item.number,
        )
        remembered = State.model_validate_json(state) if state else None
        if not is_ours:
            for item in attempts:
                encoded(item)  # what could not be written again (too deep) must not be taken over
    except (TypeError, ValueError) as error:
        raise RecordUnreadable(
            f"the record of task {task_id} cannot be read ({type(error).__name__}); repair it with redis-cli"
        ) from error
    if remembered is None:
        remembered = State(incarnation=incarnation)
    elif not is_ours:
        is_edited = any(item.incarnation == remembered.incarnation for item in attempts)
        link = remembered.resource.model_copy(update={"absent_attempt": 0})
        kept = remembered if is_edited else State(incarnation=incarnation)
        remembered = kept.model_copy(update={"incarnation": incarnation, "sequence": 0, "resource": link})
    return Execution(task_id, tuple(attempts), remembered)


def adopted(execution: Execution) -> Execution:
    """Stamp every attempt with the execution's incarnation, so that a record made anew can be told from this one."""
    incarnation = execution.state.incarnation
    if all(item.incarnation == incarnation for item in execution.attempts):
        return execution
    stamped = tuple(item.model_copy(update={"incarnation": incarnation}) for item in execution.attempts)
    return replace(execution, attempts=stamped)


def _attempt_from_stored(task_id: str, number: str, value: bytes) -> Attempt:
    document = orjson.loads(value)
    if not isinstance(document, dict):
        raise ValueError("not an object")
    if not _ATTEMPT_NUMBER.fullmatch(number):
        raise ValueError("not an attempt number")
    # The key and the field name are the identity; what a foreign writer put inside must not contradict it.
    identified = {**document, "taskId": task_id, "attempt": int(number)}
    return Attempt.model_validate(identified, context=FOREIGN, by_alias=True, by_name=False)
