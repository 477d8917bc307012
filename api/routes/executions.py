"""What people do to an execution from the dashboard: retry, cancel, mark done, assign.

The rules are ``executions.retry`` and ``executions.control``, the same as for kubectl. Here: who asks, and how the
answer is worded in HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import errors
from api.body import JsonBody, OptionalJsonBody, validated
from api.dependencies import Context, ContextOf, TaskId
from api.errors import gateway_errors, json_response
from api.identity import Person
from api.openapi import DASHBOARD_REFUSALS, Responses, answer, error, on_execution, request_body
from api.schemas import AssigneeBody, AttemptAnswer, QueuedAnswer, ReasonBody
from api.slices import Work
from executions.answer import Answer, Reply
from executions.errors import QueueUnavailable

PAYLOAD_LOST = "cannot retry: task payload is lost"
BUDGET_EXHAUSTED = "retry budget exhausted"

Told = tuple[int, dict[str, Any]]
"""Status and body of an answer about one task."""

router = APIRouter(prefix="/dashboard/executions/{taskId}", tags=["executions"])

_ATTEMPT = {"taskId": "impl-e2e", "attempt": 1, "status": "running"}
_RETRY_ANSWERS: Responses = {
    **DASHBOARD_REFUSALS,
    202: answer(
        "The latest attempt failed and the next one is queued; a double click gets the same answer",
        QueuedAnswer,
        queued={"taskId": "impl-e2e", "attempt": 2, "status": "queued"},
    ),
    409: error(
        "The latest attempt cannot be retried",
        not_failed="cannot retry execution in status 'succeeded'",
        budget={"error": BUDGET_EXHAUSTED, "maxRetries": 1},
        payload_lost=PAYLOAD_LOST,
    ),
    422: error("A parameter is not usable", dry_run="the parameter 'dryRun' is invalid: bool_parsing"),
    502: error("Redis could not be read, or the enqueue failed", store=errors.STORE_AWAY, queue=errors.ENQUEUE_FAILED),
}
_CONTROL_ANSWERS: Responses = {
    **DASHBOARD_REFUSALS,
    422: error("A parameter is not usable", dry_run="the parameter 'dryRun' is invalid: bool_parsing"),
    200: answer("Nothing was left to do", AttemptAnswer, unchanged=_ATTEMPT),
    202: answer("Accepted", AttemptAnswer, accepted=_ATTEMPT),
}


DryRun = Annotated[bool, Query(alias="dryRun", description="Answer what would happen, and do nothing")]


@router.post(
    "/retry",
    status_code=202,
    responses=_RETRY_ANSWERS,
    openapi_extra=on_execution(request_body({"type": "object"}, required=False, nothing={})),
)
async def retry(
    person: Person,
    task_id: TaskId,
    _: OptionalJsonBody,
    context: ContextOf,
    dry_run: DryRun = False,
) -> Response:
    """Run the failed task again: its stored message is enqueued with the next attempt number."""
    return json_response(*await retried(context, task_id, person.email, dry_run=dry_run))


@router.post(
    "/cancel",
    status_code=202,
    responses=_CONTROL_ANSWERS,
    openapi_extra=on_execution(request_body(ReasonBody, cancel={"reason": "wrong branch"})),
)
async def cancel(
    person: Person, task_id: TaskId, body: JsonBody, context: ContextOf, dry_run: DryRun = False
) -> Response:
    """Stop the live worker and drop a retry that has not begun."""
    reason = validated(ReasonBody, body).reason
    return json_response(*await cancelled(context, task_id, person.email, reason=reason, dry_run=dry_run))


@router.post(
    "/done",
    status_code=202,
    responses=_CONTROL_ANSWERS,
    openapi_extra=on_execution(request_body(ReasonBody, done={"reason": "solved by hand"})),
)
async def done(
    person: Person, task_id: TaskId, body: JsonBody, context: ContextOf, dry_run: DryRun = False
) -> Response:
    """Drop a scheduled retry; a live worker runs on."""
    validated(ReasonBody, body)
    command = context.commands.mark_done(task_id, dry_run=dry_run)
    return json_response(*await _controlled(context, "done", task_id, command, dry_run=dry_run))


@router.post(
    "/assign",
    status_code=202,
    responses=_CONTROL_ANSWERS,
    openapi_extra=on_execution(request_body(AssigneeBody, assign={"assignee": "jane"})),
)
async def assign(
    person: Person, task_id: TaskId, body: JsonBody, context: ContextOf, dry_run: DryRun = False
) -> Response:
    """Name who the work is for; a retry scheduled for somebody else is dropped."""
    assignee = validated(AssigneeBody, body).assignee
    command = context.commands.assign(task_id, assignee=assignee, dry_run=dry_run)
    return json_response(*await _controlled(context, "assign", task_id, command, dry_run=dry_run))


async def retried(context: Context, task_id: str, person: str, *, dry_run: bool) -> Told:
    """One retry, asked for alone or with many. Raises Refused with 502."""
    with gateway_errors():
        async with Work(context, "retry", task_id) as work:
            work.ok("authenticate")
            found = await _requested(context, work, task_id, person, dry_run)
            done = found.reply is Reply.QUEUED and not dry_run
            work.conclude("success" if done else "skipped", "dry_run" if dry_run else found.reply.value)
    return _retry_told(context, found)


async def cancelled(context: Context, task_id: str, person: str, *, reason: str, dry_run: bool = False) -> Told:
    """One cancellation, asked for alone or with many. Raises Refused with 502."""
    command = context.commands.cancel(task_id, reason=reason, requested_by=person, dry_run=dry_run)
    return await _controlled(context, "cancel", task_id, command, dry_run=dry_run)


async def _requested(context: Context, work: Work, task_id: str, person: str, dry_run: bool) -> Answer:
    try:
        with work.step("request"):
            found = await context.commands.retry(task_id, requested_by=person, dry_run=dry_run)
    except QueueUnavailable:
        work.ok("request")
        work.failed("enqueue")
        raise
    # Only the click that marked the retry sends the message; the others were told the same.
    if found.detail == "send" and not dry_run:
        work.ok("enqueue")
    else:
        work.left_out("enqueue")
    return found


async def _controlled(
    context: Context, operation: str, task_id: str, command: Awaitable[Answer], *, dry_run: bool = False
) -> Told:
    with gateway_errors():
        async with Work(context, operation, task_id) as work:
            work.ok("authenticate")
            with work.step(operation):
                found = await command
            done = found.reply is Reply.ACCEPTED and not dry_run
            work.conclude("success" if done else "skipped", "dry_run" if dry_run else found.reply.value)
    if found.reply is Reply.NOT_FOUND:
        return 404, {"error": errors.NOT_FOUND}
    return (202 if found.reply is Reply.ACCEPTED else 200), {
        "taskId": task_id,
        "attempt": found.attempt,
        "status": found.status,
    }


def _retry_told(context: Context, found: Answer) -> Told:
    match found.reply:
        case Reply.QUEUED:
            return 202, {"taskId": found.task_id, "attempt": found.attempt, "status": "queued"}
        case Reply.NOT_FOUND:
            return 404, {"error": errors.NOT_FOUND}
        case Reply.BUDGET_EXHAUSTED:
            return 409, {"error": BUDGET_EXHAUSTED, "maxRetries": context.settings.max_retries}
        case Reply.PAYLOAD_LOST:
            return 409, {"error": PAYLOAD_LOST}
        case _:
            return 409, {"error": f"cannot retry execution in status '{found.status}'"}
