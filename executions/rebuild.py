"""From a custom resource back to the execution that it shows: what can be known of a record that Redis has lost.

A pure reverse of ``resource.status_from_execution``, as far as that tells. The payload is told by a user's own object
only; what the mirror made holds none, and an attempt without payload can end and be looked at, but not be launched.
Who reads the resources and writes the records is ``controller/rebuild.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from executions import names
from executions.conditions import Phase, Reason
from executions.errors import AlakaiError, InvalidTask
from executions.link import submitted
from executions.moment import ms_from_iso
from executions.plan import REPLAY_LIMIT_MS
from executions.policy import Policy
from executions.record import (
    Attempt,
    Evidence,
    Execution,
    Judgement,
    LateResult,
    Launch,
    Result,
    Schedule,
    State,
    Status,
)
from executions.resource import Observed, task_from_resource

_STATUSES = {
    Phase.PENDING: Status.PENDING,
    Phase.RUNNING: Status.RUNNING,
    Phase.SUCCEEDED: Status.SUCCEEDED,
    Phase.FAILED: Status.FAILED,
    Phase.CANCELLED: Status.CANCELLED,
}


class ResourceUnreadable(AlakaiError):
    """A resource from which no execution can be made; the text names what is wrong with it."""


def execution_from_resource(
    body: Mapping[str, Any], observed: Observed, *, token_prefix: str, policy: Policy, launcher: str, now_ms: int
) -> Execution | None:
    """The execution behind a resource; None for a user's object that was never submitted, which submits as ever.

    The sequence is the one shown, so that the next commit goes on from there. ``launcher`` is told for an attempt that
    the resource does not show yet. Raises ResourceUnreadable.
    """
    incarnation = observed.incarnation or observed.made_by
    if incarnation is None:
        return None
    status, spec = body.get("status") or {}, body.get("spec") or {}
    snapshot = _snapshot(body, observed)
    known = {"taskId": observed.task_id, "taskType": spec.get("taskType"), "incarnation": incarnation}
    shown = status.get("attempts") or [{"attempt": 1, "phase": "Pending", "launcher": launcher}]
    try:
        attempts = tuple(
            _attempt(item, known, snapshot, status.get("traceId"), created_ms=observed.created_ms) for item in shown
        )
        state = State(
            incarnation=incarnation,
            sequence=observed.sequence,
            schedule=_schedule(status.get("schedule")),
            assignee=observed.wishes.assignee,
        )
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ResourceUnreadable(
            f"the status of {observed.name} cannot be read ({type(error).__name__}); was it written by hand?"
        ) from error
    execution = Execution(observed.task_id, attempts, state)
    execution = submitted(execution, uid=observed.uid, wishes=observed.wishes, refusal=None, now_ms=now_ms)
    is_held = status.get("reason") == Reason.SUSPENDED
    return _with_launch(execution, token_prefix=token_prefix, policy=policy, now_ms=now_ms, is_held=is_held)


def _attempt(
    shown: Mapping[str, Any],
    known: Mapping[str, Any],
    snapshot: dict[str, Any] | None,
    trace_id: str | None,
    *,
    created_ms: int,
) -> Attempt:
    status = _STATUSES[Phase(shown["phase"])]
    code, claimed_at = shown.get("errorCode"), _ms(shown.get("claimedAt"))
    finished_at = _ms(shown.get("finishTime"))
    message = shown.get("message") if status in (Status.FAILED, Status.CANCELLED) else None
    if message is not None and code is not None:
        message = message.removeprefix(f"{code}: ")  # as conditions tell a code that is not one of ours
    late, url = shown.get("lateResult"), shown.get("pullRequestUrl")
    has_reported = status is Status.SUCCEEDED or (
        status is Status.FAILED and code is not None and code not in names.OUR_ERROR_CODES
    )
    return Attempt(
        task_id=known["taskId"],
        task_type=known["taskType"] or "unknown",
        number=shown["attempt"],
        status=status,
        task_snapshot=snapshot,
        trace_id=trace_id,
        launcher=shown.get("launcher"),
        worker_id=shown.get("workerId"),
        run=shown.get("run") or 1,
        claimed_at=created_ms if claimed_at is None and status is Status.PENDING else claimed_at,
        started_at=_ms(shown.get("startTime")),
        finished_at=finished_at,
        error_message=message,
        error_code=code,
        incarnation=known["incarnation"],
        launch_tries=shown.get("launchTry") or 0,
        automatic_retry=shown.get("automaticRetry"),
        codex_transient_fallback_mode=shown.get("fallbackMode"),
        transient_retry_not_before=_ms(shown.get("notBefore")),
        evidence=[
            Evidence(
                source=item["source"],
                observed_at=ms_from_iso(item["observedAt"]),
                detail=item["detail"],
                code=item.get("code"),
            )
            for item in shown.get("evidence") or []
        ],
        verdict=_verdict(shown.get("verdict")),
        result=Result(pull_request_url=url, received_at=finished_at) if has_reported or url else None,
        late_results=[
            LateResult(
                succeeded=late["status"] == "success",
                received_at=ms_from_iso(late["receivedAt"]),
                message=late.get("message"),
            )
        ]
        if late
        else [],
    )


def _with_launch(execution: Execution, *, token_prefix: str, policy: Policy, now_ms: int, is_held: bool) -> Execution:
    """The launch that a live attempt has or may have, so that what it started is adopted and never started twice.

    Launch tokens follow from incarnation, attempt and try. A waiting attempt goes on at the try that is shown, whose
    launch may have been sent already: sent again with the same token it starts nothing new. Where it is too long ago
    for that, or where there is no payload to send, the launch is written down as it may have been, and the reconciler
    only looks for its worker.
    """
    latest = execution.latest
    is_by_hand = latest.status is Status.RUNNING and latest.worker_id is None
    if latest.status.is_finished or is_held or is_by_hand:
        return execution
    launch_try = max(latest.launch_tries, 1)
    began_ms = latest.claimed_at if latest.claimed_at is not None else now_ms
    if latest.status is Status.PENDING and latest.task_snapshot and now_ms - began_ms < REPLAY_LIMIT_MS:
        return execution.with_latest(launch_tries=launch_try - 1)
    launch = Launch(
        launch_try=launch_try,
        token=names.launch_token(
            token_prefix, execution.task_id, execution.state.incarnation, latest.number, launch_try
        ),
        intent_at=began_ms,
        start_by=began_ms + policy.start_timeout_ms,
    )
    return execution.with_latest(launch=launch, launch_tries=launch_try)


def _snapshot(body: Mapping[str, Any], observed: Observed) -> dict[str, Any] | None:
    if observed.made_by is not None:
        return None
    try:
        return task_from_resource(body).snapshot()
    except InvalidTask:
        return None


def _verdict(shown: Mapping[str, Any] | None) -> Judgement | None:
    if not shown:
        return None
    return Judgement(
        kind=shown["kind"],
        grade=shown["grade"],
        code=shown["code"],
        message=shown["message"],
        refuted_by=shown["refutedBy"],
        spoken_at=ms_from_iso(shown["spokenAt"]),
        detected_after_ms=shown["detectedAfterMs"],
        last_seen_alive_at=_ms(shown.get("lastSeenAliveAt")),
        launch_try=shown.get("launchTry"),
    )


def _schedule(shown: Mapping[str, Any] | None) -> Schedule | None:
    if not shown:
        return None
    return Schedule(
        attempt=shown["attempt"],
        due_at=_ms(shown.get("dueAt") if shown.get("outcome") else shown["dueAt"]),
        reason=shown.get("reason") or "",
        automatic_retry=shown.get("automaticRetry") or 1,
        limit=shown.get("limit"),
        not_before=_ms(shown.get("notBefore")),
        fallback_mode=shown.get("fallbackMode"),
        assignee=shown.get("assignee"),
        outcome=shown.get("outcome"),
        settled_at=_ms(shown.get("settledAt")),
    )


def _ms(text: str | None) -> int | None:
    return None if text is None else ms_from_iso(text)
