"""The custom resource as a pure function of the record, and what of an existing one we need to know.

``manifest_from_execution`` is what the mirror creates, ``status_from_execution`` what it writes; ``Observed`` is the
little that is kept of each object. No payload ever goes into an object that we make. Never calls the API server: that
is ``controller/mirror.py``.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from alakai_worker.redaction import sanitised

from executions import names
from executions.conditions import (
    Phase,
    Reason,
    Why,
    conditions,
    phase,
    phase_of_attempt,
    refused,
    why_attempt,
    why_execution,
)
from executions.errors import InvalidTask
from executions.link import NO_WISHES, Wishes
from executions.moment import iso_from_ms, ms_from_iso
from executions.policy import Policy
from executions.record import Attempt, Execution, Grade, Judgement, Status
from executions.task import Task, task_from_document

ATTEMPTS_SHOWN = 16
_NEXT_OF_WAITING: dict[str, str] = {
    Reason.HELD: "launch, once the hold ends (alakai resume)",
    Reason.SLOT_UNAVAILABLE: "launch, once a slot is free",
    Reason.BREAKER_OPEN: "launch, once launches work again",
    Reason.NO_LAUNCHER: "launch, once a controller has its launcher",
}
_API_VERSION = f"{names.GROUP}/{names.VERSION}"
_UNOWNED_FINALIZERS = (names.FINALIZER,)


@dataclass(frozen=True, slots=True)
class Observed:
    """An object as it was last seen. Small, because one is kept for every object there is."""

    name: str
    uid: str
    task_id: str
    resource_version: int
    generation: int
    created_ms: int
    made_by: str | None
    """The incarnation that the mirror made it for; None for a user's object."""
    incarnation: str | None
    """Of the record that its status shows; None while no status was written."""
    sequence: int
    attempt: int
    phase: str
    observed_generation: int
    finalizers: tuple[str, ...]
    is_deleting: bool
    status_digest: bytes
    wishes: Wishes

    @property
    def is_submitted(self) -> bool:
        """Whether an execution stands behind it, so that it must never submit (again)."""
        return self.made_by is not None or self.incarnation is not None

    @property
    def is_protected(self) -> bool:
        """Whether our finalizer keeps it until we have acted on its deletion."""
        return names.FINALIZER in self.finalizers

    @property
    def has_its_name(self) -> bool:
        """Whether the object's name is the one that its task's resource has."""
        try:
            return names.resource_name(names.checked_task_id(self.task_id)) == self.name
        except InvalidTask:
            return False


def observed_from_body(body: Mapping[str, Any]) -> Observed:
    """What we keep of an object. Defaulted and missing fields are both fine: hands may have written anything."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    name = str(metadata["name"])
    annotations = metadata.get("annotations") or {}
    task_id = spec.get("taskId") or name
    made_by, incarnation = annotations.get(names.INCARNATION_ANNOTATION), status.get("incarnation")
    finalizers = tuple(metadata.get("finalizers") or ())
    return Observed(
        name=name,
        uid=str(metadata.get("uid") or ""),
        task_id=name if task_id == name else str(task_id),
        resource_version=int(metadata.get("resourceVersion") or 0),
        generation=int(metadata.get("generation") or 0),
        created_ms=ms_from_iso(metadata["creationTimestamp"]) if metadata.get("creationTimestamp") else 0,
        made_by=made_by,
        incarnation=made_by if incarnation == made_by else incarnation,
        sequence=int(status.get("sequence") or 0),
        attempt=int(status.get("attempt") or 0),
        phase=sys.intern(str(status.get("phase") or "Pending")),
        observed_generation=int(status.get("observedGeneration") or 0),
        finalizers=_UNOWNED_FINALIZERS if finalizers == _UNOWNED_FINALIZERS else finalizers,
        is_deleting=metadata.get("deletionTimestamp") is not None,
        status_digest=status_digest(status),
        wishes=_wishes(annotations, spec),
    )


def _wishes(annotations: Mapping[str, str], spec: Mapping[str, Any]) -> Wishes:
    wishes = Wishes(
        retry=annotations.get(names.RETRY_ANNOTATION),
        cancel=annotations.get(names.CANCEL_ANNOTATION),
        done=annotations.get(names.DONE_ANNOTATION),
        suspend=spec.get("suspend") is True,
        assignee=spec.get("assignee") or None,
    )
    return NO_WISHES if wishes == NO_WISHES else wishes


def status_digest(status: Mapping[str, Any]) -> bytes:
    """Of all that a status says, except its sequence: equal when a write would tell nothing new."""
    said = _without_nones({key: value for key, value in status.items() if key != "sequence"})
    return hashlib.blake2b(orjson.dumps(said, option=orjson.OPT_SORT_KEYS), digest_size=8).digest()


def task_from_resource(body: Mapping[str, Any]) -> Task:
    """The task that a user's object submits. Raises InvalidTask."""
    spec = body.get("spec") or {}
    task = spec.get("task") or {}
    if not isinstance(task, dict):
        raise InvalidTask("spec.task must be a JSON object")
    task_id = spec.get("taskId") or body["metadata"]["name"]
    task_type = spec.get("taskType") or task.get("taskType")
    if task.get("taskId", task_id) != task_id or task.get("taskType", task_type) != task_type:
        raise InvalidTask("spec.task names another taskId or taskType than spec does; make them equal or leave one out")
    document = {"payload": {}, **task, "taskId": task_id, "taskType": task_type}
    assignee = spec.get("assignee")
    if assignee:
        metadata = document.get("metadata")
        document["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "assignee": assignee}
    return task_from_document(document)


def is_entombed(execution: Execution) -> bool:
    """Whether a user deleted its resource, and no later attempt brought it back."""
    return execution.state.resource.absent_attempt >= execution.latest.number


def resource_is_wanted(execution: Execution, *, now_ms: int, policy: Policy) -> bool:
    """Whether the execution is to be seen as a resource.

    Not after a user deleted it, until a later attempt is claimed; not once it is finished for longer than the TTL.
    """
    latest, link = execution.latest, execution.state.resource
    if is_entombed(execution):
        return False
    if not phase(execution).is_finished:
        return True
    return now_ms - max(latest.finished_at or 0, link.kept_from or 0) < policy.finished_ttl_ms


def manifest_from_execution(execution: Execution, namespace: str) -> dict[str, Any]:
    """What the mirror creates: born with our finalizer and with the mark that it submits nothing."""
    task_type = execution.latest.task_type
    spec: dict[str, Any] = {
        "taskId": execution.task_id,
        "taskType": task_type if names.TASK_TYPE.fullmatch(task_type) else "unknown",
    }
    if execution.state.suspended:
        spec["suspend"] = True
    return {
        "apiVersion": _API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "name": names.resource_name(execution.task_id),
            "namespace": namespace,
            "annotations": {names.INCARNATION_ANNOTATION: execution.state.incarnation},
            "finalizers": [names.FINALIZER],
        },
        "spec": spec,
    }


def status_from_execution(
    execution: Execution, policy: Policy, *, observed_generation: int, unknown_ms: int
) -> dict[str, Any]:
    """The whole status. A None removes what an earlier one said; lists replace theirs.

    ``unknown_ms`` is told where a condition's time is nowhere in the record.
    """
    latest, why = execution.latest, why_execution(execution)
    schedule = execution.state.schedule
    waiting = execution.waiting_schedule
    return {
        "phase": phase(execution).value,
        "reason": _cut(why.reason, 128),
        "message": _cut(why.message, 1024),
        "next": _next_step(execution, policy),
        "attempt": latest.number,
        "run": latest.run,
        "incarnation": execution.state.incarnation,
        "sequence": execution.state.sequence,
        "observedGeneration": observed_generation,
        "project": _project(latest),
        "launcher": _cut(latest.launcher, 63),
        "workerId": _cut(latest.worker_id, 2048),
        "traceId": _cut(latest.trace_id, 1024),
        "startTime": _time(latest.started_at),
        "finishTime": _time(latest.finished_at) if phase(execution).is_finished else None,
        "nextRetryTime": _time(waiting.due_at) if waiting else None,
        "schedule": {
            "attempt": schedule.attempt,
            "dueAt": _time(schedule.due_at),
            "outcome": _cut(schedule.outcome, 63),
            "reason": _cut(schedule.reason, 128),
            "assignee": _cut(schedule.assignee, 1024),
            "automaticRetry": schedule.automatic_retry,
            "limit": schedule.limit,
            "notBefore": _time(schedule.not_before),
            "fallbackMode": _cut(schedule.fallback_mode, 63),
            "settledAt": _time(schedule.settled_at),
        }
        if schedule
        else None,
        "attempts": [attempt_status(item) for item in execution.attempts[-ATTEMPTS_SHOWN:]],
        "conditions": conditions(execution, unknown_ms=unknown_ms),
    }


def refused_status(why: Why, *, generation: int, at_ms: int) -> dict[str, Any]:
    """The status of a user's object that submitted nothing because it was refused."""
    return {
        "phase": "Pending",
        "reason": why.reason,
        "message": _cut(why.message, 1024),
        "next": "correct it and create it again",
        "observedGeneration": generation,
        "conditions": refused(why, at_ms),
    }


def short_wait_since(execution: Execution, observed: Observed) -> int | None:
    """Since when the attempt waits for what seldom takes long, while the object shows already that it waits.

    That is a first attempt that nothing happened to yet, of which the schema's default status tells all, and a launch
    on its way. None means that the status is worth a write.
    """
    latest, state = execution.latest, execution.state
    if latest.status is not Status.PENDING or state.cancellation is not None or state.resource.refusal is not None:
        return None
    shown = (observed.incarnation, observed.attempt, observed.phase)
    if latest.launch is not None and shown == (state.incarnation, latest.number, Phase.PENDING):
        return latest.launch.intent_at
    untouched = latest.launch_tries <= 1 and not latest.evidence and not state.suspended
    is_born_so = observed.made_by == state.incarnation and observed.incarnation is None
    return latest.claimed_at if is_born_so and untouched and len(execution.attempts) == 1 else None


def with_finalizers(observed: Observed, finalizers: tuple[str, ...]) -> list[dict[str, Any]]:
    """The JSON patch that sets the finalizers of exactly the object that was seen."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": observed.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": str(observed.resource_version)},
        {"op": "add", "path": "/metadata/finalizers", "value": list(finalizers)},
    ]


def protected(observed: Observed) -> list[dict[str, Any]]:
    """The JSON patch that adds our finalizer."""
    return with_finalizers(observed, (*observed.finalizers, names.FINALIZER))


def released(observed: Observed) -> list[dict[str, Any]]:
    """The JSON patch that takes our finalizer away."""
    return with_finalizers(observed, tuple(item for item in observed.finalizers if item != names.FINALIZER))


def _next_step(execution: Execution, policy: Policy) -> str | None:
    latest, state = execution.latest, execution.state
    waiting = execution.waiting_schedule
    if waiting is not None and waiting.due_at is not None:
        return f"attempt {waiting.attempt} at {iso_from_ms(waiting.due_at)}"
    if latest.status is Status.PENDING and latest.launch is None:
        if state.suspended:
            return "launch, once spec.suspend is false"
        if latest.waiting is not None:
            return _NEXT_OF_WAITING.get(latest.waiting.reason, "launch")
        return f"launch at {iso_from_ms(latest.launch_not_before)}" if latest.launch_not_before else "launch"
    if latest.status is not Status.FAILED:
        return None
    if execution.waiting_retry is not None:
        return f"attempt {execution.waiting_retry.attempt}, queued"
    if not latest.task_snapshot:
        return "nothing: its payload is lost"
    return "annotate alakai.dev/retry to retry" if policy.may_retry(latest.number) else "nothing: no retry is left"


def attempt_status(attempt: Attempt) -> dict[str, Any]:
    """One item of the status' list; what is not known is left out."""
    why, result = why_attempt(attempt), attempt.result
    late = attempt.late_results[-1] if attempt.late_results else None
    shown = {
        "attempt": attempt.number,
        "phase": phase_of_attempt(attempt).value,
        "reason": _cut(why.reason, 128),
        "message": _cut(why.message, 1024),
        "errorCode": _cut(attempt.error_code, 256),
        "launcher": _cut(attempt.launcher, 63),
        "workerId": _cut(attempt.worker_id, 2048),
        "launchTry": attempt.launch_tries or None,
        "run": attempt.run,
        "automaticRetry": attempt.automatic_retry,
        "fallbackMode": _cut(attempt.codex_transient_fallback_mode, 63),
        "notBefore": _time(attempt.transient_retry_not_before),
        "claimedAt": _time(attempt.claimed_at),
        "startTime": _time(attempt.started_at),
        "finishTime": _time(attempt.finished_at),
        "pullRequestUrl": _cut(result.pull_request_url, 2048) if result else None,
        "verdict": _verdict(attempt.verdict),
        "evidence": [
            {
                "source": _cut(item.source, 128),
                "observedAt": _time(item.observed_at),
                "detail": sanitised(item.detail),
                "code": _cut(item.code, 256),
            }
            for item in attempt.evidence[-16:]
        ]
        or None,
        "lateResult": {
            "status": "success" if late.succeeded else "failure",
            "receivedAt": _time(late.received_at),
            "message": sanitised(late.message) if late.message else None,
        }
        if late
        else None,
    }
    # A merge patch replaces lists as they are: a None in one would be stored, and refused by the schema.
    return _without_nones(shown)


def _verdict(verdict: Judgement | None) -> dict[str, Any] | None:
    # A grade of a later version is not in the definition here, which would refuse the whole status for it.
    if verdict is None or not isinstance(verdict.grade, Grade):
        return None
    return {
        "kind": _cut(verdict.kind, 63),
        "grade": verdict.grade.value,
        "code": _cut(verdict.code, 256),
        "message": sanitised(verdict.message),
        "refutedBy": _cut(verdict.refuted_by, 256),
        "spokenAt": _time(verdict.spoken_at),
        "detectedAfterMs": verdict.detected_after_ms,
        "lastSeenAliveAt": _time(verdict.last_seen_alive_at),
        "launchTry": verdict.launch_try,
    }


def _without_nones(document: dict[str, Any]) -> dict[str, Any]:
    return {key: _said(value) for key, value in document.items() if value is not None}


def _said(value: Any) -> Any:
    if isinstance(value, list):
        return [_said(item) for item in value]
    return _without_nones(value) if isinstance(value, dict) else value


def _project(attempt: Attempt) -> str | None:
    try:
        return task_from_document(attempt.task_snapshot).project
    except InvalidTask:
        return None


def _time(value_ms: int | None) -> str | None:
    return None if value_ms is None else iso_from_ms(value_ms)


def _cut(text: str | None, limit: int) -> str | None:
    return None if text is None else text[:limit]
