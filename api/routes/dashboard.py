"""What people read on the dashboard: rows, one execution in full, and the stream of what happens.

Changes nothing. Which rows there are is ``task_list``, what a stream sends is ``live``.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import errors
from api.dependencies import Context, ContextOf, TaskId
from api.errors import Refused, gateway_errors, json_response
from api.event_stream import EventStream, abort_of
from api.identity import Person, StreamPerson
from api.live import TOO_MANY_STREAMS, Reader
from api.openapi import (
    PERSON_REFUSALS,
    READ_REFUSALS,
    TASK_ID_TEXT,
    answer,
    error,
    event_stream,
    not_found,
    on_execution,
)
from api.schemas import ExecutionAnswer, OverviewAnswer, State, TaskRow, TasksAnswer
from executions.errors import InvalidCursor
from executions.execution_view import overview_shown, view
from executions.operations.surroundings import surroundings_of
from executions.record import Execution
from executions.rows import Filters, Place, cursor_from_place, place_from_cursor
from executions.tracking import execution_id_of, followed

UNKNOWN_TASK = "task not found"
_SHOWN_AT_MOST = 200

router = APIRouter(prefix="/dashboard", tags=["dashboard"])

_ROW = {
    "executionId": "impl-e2e",
    "status": "error",
    "occurredAt": "2026-03-15T09:26:53.589Z",
    "eventId": "impl-e2e.5f0c.1773566813589.4",
    "flow": "implementation",
    "taskName": "implementation",
    "project": "my-org/my-repo",
    "taskId": "impl-e2e",
    "taskType": "implementation",
    "phase": "Failed",
    "traceId": "impl-e2e",
    "errorCode": "WORKER_LOST",
    "attempt": 1,
    "actor": {"provider": "slack", "id": "U123", "display": "Jane"},
    "prLinks": [],
}
_EXECUTION = {
    "resourceName": "impl-e2e",
    **{name: _ROW[name] for name in ("taskId", "executionId", "taskType", "taskName", "flow", "project", "actor")},
    **{name: _ROW[name] for name in ("prLinks", "status", "phase", "attempt", "traceId")},
    "reason": "WorkerLost",
    "message": "the worker is gone without a callback for 60 s",
    "next": "annotate alakai.dev/retry to retry",
    "run": 1,
    "launcher": "ecs",
    "workerId": "arn:aws:ecs:us-east-1:000000000000:task/workers/0f",
    "startTime": "2026-03-15T09:20:00.000Z",
    "finishTime": "2026-03-15T09:26:53.589Z",
    "nextRetryTime": None,
    "schedule": None,
    "obstacles": [],
    "assignee": None,
    "retriesLeft": 1,
    "canRetry": True,
    "retryRefusal": None,
    "canCancel": False,
    "attempts": [
        {
            "attempt": 1,
            "status": "failed",
            "phase": "Failed",
            "reason": "WorkerLost",
            "message": "the worker is gone without a callback for 60 s",
            "errorMessage": "the worker is gone without a callback for 60 s",
            "lateResults": [],
        }
    ],
}
_OVERVIEW = {
    "now": "2026-03-15T09:26:53.589Z",
    "hold": {"by": "jane@example.com", "reason": "the cluster moves", "since": "2026-03-15T09:20:00.000Z"},
    "breakers": [
        {
            "launcher": "ecs",
            "taskType": "implementation",
            "code": "WORKER_NEVER_STARTED",
            "openedAt": "2026-03-15T09:20:00.000Z",
            "probeAt": "2026-03-15T09:27:00.000Z",
        }
    ],
    "slots": {"limit": 100, "live": 97, "waiting": 4},
    "types": [{"taskType": "implementation", "limit": None, "live": 97, "waiting": 4}],
    "maxRetries": 1,
}
_STREAM = """retry: 2000

id: 1773566813000-0
event: reset
data: {"tasks":[],"lastEventId":"1773566813000-0"}

id: 1773566813590-0
event: task
data: {"eventId":"impl-e2e.5f0c.1773566813589.4","executionId":"impl-e2e","status":"error"}

: heartbeat

event: expired
data: {}

"""
_AUTH_TOKEN = {
    "name": "authToken",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "A Google ID token, where a browser cannot set the header",
}
_PARAMETER_REFUSAL = error(
    "A parameter is not usable", cursor=errors.BAD_CURSOR, limit="the parameter 'limit' is invalid: less_than_equal"
)
_Word = Annotated[str | None, Query(min_length=1, max_length=256)]


@router.get(
    "/tasks",
    responses={
        **READ_REFUSALS,
        200: answer("Rows from the newest on", TasksAnswer, page={"tasks": [_ROW], "nextCursor": "MTc3Ompx"}),
        422: _PARAMETER_REFUSAL,
    },
)
async def tasks(
    person: Person,
    context: ContextOf,
    project: _Word = None,
    status: Annotated[State | None, Query(description="in_progress, success or error, or a phase")] = None,
    actor: Annotated[_Word, Query(description="Id or shown name")] = None,
    text: Annotated[_Word, Query(description="Somewhere in name, ids or project")] = None,
    limit: Annotated[int, Query(ge=1, le=_SHOWN_AT_MOST)] = 50,
    cursor: Annotated[str | None, Query(max_length=2048, description="nextCursor of the page before")] = None,
) -> Response:
    """The newest event of each execution that this person may see."""
    before = place_of(cursor)
    with gateway_errors():
        page = await context.tasks.page(person.email, Filters(project, status, actor, text), before=before, limit=limit)
    following = cursor_from_place(page.following) if page.following else None
    return json_response(200, {"tasks": [dict(row.shown) for row in page.rows], "nextCursor": following})


@router.get(
    "/tasks/{executionId:path}",
    responses={**READ_REFUSALS, 200: answer("The row", TaskRow, row=_ROW), 404: not_found(unknown=UNKNOWN_TASK)},
    openapi_extra={
        "parameters": [
            {"name": "executionId", "in": "path", "required": True, "schema": {"type": "string"}, "example": "impl-e2e"}
        ]
    },
)
async def task(person: Person, request: Request, context: ContextOf) -> Response:
    """The newest event of one execution."""
    with gateway_errors():
        row = await context.tasks.row(request.path_params["executionId"])
    if row is None or not context.tasks.sees(person.email, row):
        raise Refused(404, UNKNOWN_TASK)
    return json_response(200, row.shown)


@router.get(
    "/executions/{taskId}",
    responses={
        **READ_REFUSALS,
        200: answer("All of it", ExecutionAnswer, failed=_EXECUTION),
        400: error("The task id is not usable", task_id=TASK_ID_TEXT),
        404: not_found(unknown=errors.NOT_FOUND),
    },
    openapi_extra=on_execution(),
)
async def execution(person: Person, task_id: TaskId, context: ContextOf) -> Response:
    """Attempts with their evidence, why it stands where it does, and what happens next."""
    with gateway_errors():
        snapshot = await context.store.read(task_id)
        found = snapshot.execution
        if found is None or not await is_seen(context, person.email, found):
            raise Refused(404, errors.NOT_FOUND)
        around = await surroundings_of(context.store, found)
    return json_response(200, view(snapshot, found, context.commands.policy, around))


@router.get(
    "/overview", responses={**READ_REFUSALS, 200: answer("What holds right now", OverviewAnswer, now=_OVERVIEW)}
)
async def overview(person: Person, context: ContextOf) -> Response:
    """Hold, open breakers and slots of the whole installation: figures, and nothing of anybody's task."""
    store, policy = context.store, context.commands.policy
    with gateway_errors():
        now_ms, hold, breakers = await store.now_ms(), await store.held(), await store.breakers()
        standing = await store.standing()
    return json_response(200, overview_shown(now_ms, hold, breakers, standing, policy))


@router.get(
    "/stream",
    status_code=200,
    response_class=Response,  # of no media type: the refusals stay JSON in the description
    responses={
        **PERSON_REFUSALS,
        200: event_stream("Events as they happen; goes on until either side ends it", _STREAM),
        429: error("This person asks too often or reads too much", too_many=errors.TOO_MANY, streams=TOO_MANY_STREAMS),
        503: error(
            "No stream can be opened now",
            streams=TOO_MANY_STREAMS,
            identity="the identity provider cannot be reached; try again",
        ),
        422: error("A parameter is not usable", last="the parameter 'lastEventId' is invalid: string_too_long"),
    },
    openapi_extra={"parameters": [_AUTH_TOKEN]},
)
async def stream(
    person: StreamPerson,
    request: Request,
    context: ContextOf,
    last_event_id: Annotated[
        str | None, Query(alias="lastEventId", max_length=256, description="Where to go on, without the header")
    ] = None,
) -> Response:
    """Server-sent events: every event that this person may see, once, in the order of the stream."""
    live, visible, abort = context.live, context.tasks, abort_of(request)
    seat = live.admit(person.subject, abort)
    reader = Reader(
        live,
        last_event_id=request.headers.get("last-event-id", last_event_id),
        sees=lambda frame: visible.sees_frame(person.email, frame),
        snapshot=lambda up_to: visible.snapshot(person.email, live.log, up_to),
        seconds_left=None if person.expires_at is None else person.expires_at - context.clock_ms() / 1000,
    )
    return EventStream(
        reader.chunks(), send_seconds=live.limits.send_seconds, abort=abort, left=lambda: live.leave(seat)
    )


def place_of(cursor: str | None) -> Place | None:
    """Raises Refused with 422."""
    try:
        return None if cursor is None else place_from_cursor(cursor)
    except InvalidCursor as error_:
        raise Refused(422, errors.BAD_CURSOR) from error_


async def is_seen(context: Context, email: str, found: Execution) -> bool:
    """Whether a person may see an execution: by its row; where there is none of it yet, by its project.

    Rows are named by upstream, so one may be of another task: such a one says nothing of who may see this. Raises
    StoreUnavailable.
    """
    row = await context.tasks.row(execution_id_of(found))
    if row is not None and row.shown["taskId"] == found.task_id:
        return context.tasks.sees(email, row)
    return context.tasks.visibility.sees(email, followed(found)["project"], None)
