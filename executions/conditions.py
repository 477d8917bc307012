"""The conditions of a custom resource, and the one reason behind them: a pure view of the record.

Times are those of the record, not of the write: each condition is followed through all attempts, and its transition
time is that of the last step that changed its answer. So a late or repeated write tells the same.
The whole status is put together in ``resource``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from alakai_worker.redaction import sanitised

from executions.moment import iso_from_ms
from executions.names import reason_from_code
from executions.record import NO_LAUNCHER, Attempt, Execution, Judgement, Schedule, ScheduleOutcome, Status


class Condition(StrEnum):
    """The questions that the resource answers; true is what a user hopes for."""

    DISPATCHED = "Dispatched"
    """A worker was launched for the latest attempt."""
    RUNNING = "Running"
    """It is at work."""
    SUCCEEDED = "Succeeded"
    """The task is done."""
    FINISHED = "Finished"
    """Nothing happens any more unless somebody asks for it."""
    ACCEPTED = "Accepted"
    """Only there, and false, while the last request through the resource is a refused one."""


class Phase(StrEnum):
    """Where the execution stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    RETRY_SCHEDULED = "RetryScheduled"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_finished(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


class Reason(StrEnum):
    """Stable reasons, beside those that name an error code (``names.reason_from_code``)."""

    WAITING = "WaitingForLaunch"
    """Claimed; its turn to be launched has not come."""
    SUSPENDED = "Suspended"
    """Held back by ``spec.suspend``."""
    SLOT_UNAVAILABLE = "SlotUnavailable"
    """As many attempts are live as may be, or those that are free are for others that have waited for longer."""
    BREAKER_OPEN = "BreakerOpen"
    """Launches of its launcher and task type fail; one at a time tries whether they work again."""
    HELD = "Held"
    """The whole installation is on hold."""
    NO_LAUNCHER = NO_LAUNCHER
    """Nobody here has the launcher that it was claimed for."""
    LAUNCHING = "Launching"
    """A launch was sent and is not answered yet."""
    WAITING_AGAIN = "WaitingForRelaunch"
    """A launch gave no worker; the next one follows after a pause."""
    LAUNCHED = "Launched"
    """The latest attempt has a worker, or had one."""
    AT_WORK = "WorkerRunning"
    """It was launched, and has not reported yet."""
    STOPPING = "WorkerStopping"
    """Told to stop, by us or by somebody whom the next look will name; judged once it is gone."""
    CANCELLING = "Cancelling"
    """To be stopped; cancelled once the worker is gone."""
    RETRY_SCHEDULED = "RetryScheduled"
    """Failed, and tried again by itself when its time has come."""
    SUCCEEDED = "WorkerSucceeded"
    """It reported success."""
    CANCELLED = "Cancelled"
    """Stopped on request."""
    NAME_MISMATCH = "NameMismatch"
    """The object's name is not its task's."""
    INVALID_TASK = "InvalidTask"
    """The object holds no task that could be run."""
    SUBMIT_REFUSED = "SubmitRefused"
    """The object is a good one, and its task may not be run (again)."""


@dataclass(frozen=True, slots=True)
class Why:
    """The reason (one stable word) and the message (for people) for where something stands."""

    reason: str
    message: str


_PHASES = {
    Status.PENDING: Phase.PENDING,
    Status.RUNNING: Phase.RUNNING,
    Status.SUCCEEDED: Phase.SUCCEEDED,
    Status.FAILED: Phase.FAILED,
    Status.CANCELLED: Phase.CANCELLED,
}


def phase_of_attempt(attempt: Attempt) -> Phase:
    return _PHASES[attempt.status]


def phase(execution: Execution) -> Phase:
    """The phase of the whole: that of the latest attempt, unless its automatic retry is to come."""
    return Phase.RETRY_SCHEDULED if execution.waiting_schedule else phase_of_attempt(execution.latest)


def why_execution(execution: Execution) -> Why:
    """Why the execution stands where it does."""
    latest, state = execution.latest, execution.state
    schedule = execution.waiting_schedule
    if schedule is not None:
        return Why(Reason.RETRY_SCHEDULED, schedule_text(schedule))
    cancellation = state.cancellation
    if cancellation is not None and cancellation.attempt == latest.number and not latest.status.is_finished:
        return Why(Reason.CANCELLING, sanitised(cancellation.reason))
    if latest.status is Status.PENDING and latest.launch is None and state.suspended:
        return Why(Reason.SUSPENDED, "spec.suspend holds the launch back")
    return why_attempt(latest)


def schedule_text(schedule: Schedule) -> str:
    """An automatic retry in words."""
    times = f"automatic retry {schedule.automatic_retry}" + (f" of {schedule.limit}" if schedule.limit else "")
    due = "now" if schedule.due_at is None else f"at {iso_from_ms(schedule.due_at)}"
    return f"attempt {schedule.attempt} is due {due} ({times})"


def why_attempt(attempt: Attempt) -> Why:
    """Why an attempt stands where it does; for a finished one the reason never changes."""
    match attempt.status:
        case Status.SUCCEEDED:
            return Why(Reason.SUCCEEDED, "the worker reported success")
        case Status.CANCELLED:
            return Why(Reason.CANCELLED, sanitised(attempt.error_message or "cancelled on request"))
        case Status.FAILED:
            return _why_failed(attempt)
        case Status.RUNNING:
            if attempt.is_stopping:
                why = attempt.stop.code if attempt.stop else "the next look tells by whom"
                return Why(Reason.STOPPING, f"worker {attempt.worker_id or 'unknown'} was told to stop: {why}")
            return Why(Reason.AT_WORK, f"worker {attempt.worker_id or 'unknown'} is at work")
    if attempt.launch is not None:
        return Why(Reason.LAUNCHING, f"launch {attempt.launch.launch_try} is on its way")
    if attempt.waiting is not None:
        return Why(attempt.waiting.reason, sanitised(attempt.waiting.message))
    if (verdict := verdict_on(attempt, attempt.launch_tries)) is not None:
        return Why(Reason.WAITING_AGAIN, sanitised(f"launch {attempt.launch_tries} is repeated: {verdict.message}"))
    if attempt.launch_tries:
        return Why(Reason.WAITING_AGAIN, f"launch {attempt.launch_tries} gave no worker; another one follows")
    return Why(Reason.WAITING, "waiting for its launch")


def verdict_on(attempt: Attempt, launch_try: int) -> Judgement | None:
    """The verdict on the worker of that launch, None when it had none or was not judged."""
    verdict = attempt.verdict
    return verdict if verdict is not None and launch_try and verdict.launch_try == launch_try else None


def _why_failed(attempt: Attempt) -> Why:
    reason = reason_from_code(attempt.error_code)
    text = attempt.error_message or "no reason was given"
    foreign = attempt.error_code if reason == "WorkerFailed" and attempt.error_code != "WORKER_FAILED" else None
    return Why(reason, sanitised(f"{foreign}: {text}" if foreign else text))


_Answers = Mapping[Condition, str]
_CLAIMED: _Answers = {
    Condition.DISPATCHED: "False",
    Condition.RUNNING: "False",
    Condition.SUCCEEDED: "Unknown",
    Condition.FINISHED: "False",
}
_LAUNCHED: _Answers = {Condition.DISPATCHED: "True", Condition.RUNNING: "True"}
_TAKEN_BACK: _Answers = {Condition.DISPATCHED: "False", Condition.RUNNING: "False"}
_STOPPED: _Answers = {Condition.RUNNING: "False"}
_SUCCEEDED: _Answers = {Condition.SUCCEEDED: "True", Condition.FINISHED: "True"}
_GIVEN_UP: _Answers = {Condition.SUCCEEDED: "False", Condition.FINISHED: "True"}


def conditions(execution: Execution, *, unknown_ms: int) -> list[dict[str, Any]]:
    """The conditions as they stand in the status.

    ``unknown_ms`` is the time told where a record that was written by hand has none.
    """
    answers: dict[Condition, tuple[str, int]] = {}
    for at_ms, step in _steps(execution, unknown_ms):
        for condition, answer in step.items():
            if condition not in answers or answers[condition][0] != answer:
                answers[condition] = (answer, at_ms)
    why = why_execution(execution)
    launched = Why(Reason.LAUNCHED, f"launched by {execution.latest.launcher or 'an unknown launcher'}")
    told = []
    for condition, (answer, at_ms) in answers.items():
        is_dispatched = condition is Condition.DISPATCHED and answer == "True"
        told.append(_condition(condition, answer, at_ms, launched if is_dispatched else why))
    refusal = execution.state.resource.refusal
    return [*told, *refused(Why(refusal.reason, refusal.message), refusal.at)] if refusal else told


def refused(why: Why, at_ms: int) -> list[dict[str, Any]]:
    """The condition of a request through the resource that was refused."""
    return [_condition(Condition.ACCEPTED, "False", at_ms, why)]


def _condition(condition: Condition, answer: str, at_ms: int, why: Why) -> dict[str, Any]:
    return {
        "type": condition.value,
        "status": answer,
        "reason": why.reason,
        "message": why.message,
        "lastTransitionTime": iso_from_ms(at_ms),
    }


def _steps(execution: Execution, unknown_ms: int) -> Iterator[tuple[int, _Answers]]:
    """What happened and the answers that it gave, oldest first, as far as the record still tells."""
    for attempt in execution.attempts:
        intent_ms = attempt.launch.intent_at if attempt.launch else None
        times = (attempt.claimed_at, intent_ms, attempt.started_at, attempt.finished_at)
        began_ms = next((at for at in times if at is not None), unknown_ms)
        yield began_ms, _CLAIMED
        if attempt.status is Status.PENDING and attempt.verdict is not None:
            # There was a worker in this attempt, proven gone; when it was launched nobody kept.
            yield attempt.verdict.spoken_at, _LAUNCHED
            yield attempt.verdict.spoken_at, _TAKEN_BACK
        if attempt.started_at is not None or attempt.status is Status.RUNNING:
            yield began_ms if attempt.started_at is None else attempt.started_at, _LAUNCHED
        if attempt.status.is_finished:
            ended_ms = began_ms if attempt.finished_at is None else attempt.finished_at
            yield ended_ms, _STOPPED
            given_up_ms = _given_up_ms(execution, attempt, ended_ms)
            if given_up_ms is not None:
                yield given_up_ms, _SUCCEEDED if attempt.status is Status.SUCCEEDED else _GIVEN_UP


def _given_up_ms(execution: Execution, attempt: Attempt, ended_ms: int) -> int | None:
    """When the end of this attempt finished the execution.

    None where it finished nothing, because a retry was on its way until the next attempt began.
    """
    schedule = execution.state.schedule
    if schedule is None or schedule.attempt != attempt.number + 1 or schedule.outcome == ScheduleOutcome.EXHAUSTED:
        return ended_ms
    if schedule.outcome in (None, ScheduleOutcome.PROMOTED, ScheduleOutcome.SUPERSEDED):
        return None
    settled_ms = ended_ms if schedule.settled_at is None else schedule.settled_at
    following = execution.attempt(schedule.attempt)
    return None if following is not None and following.claimed_at == settled_ms else settled_ms
