"""Retry and cancel for many at once, by a selector.

Each task goes through the same command as on its own route and gets the answer that it would have got there. So many at
most in one request, and for so long at most; what was not come to is named. Nobody touches what they may not see.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.responses import Response

from api import errors
from api.body import JsonBody, validated
from api.dependencies import Context, ContextOf
from api.errors import Refused, gateway_errors, json_response
from api.identity import Person
from api.openapi import DASHBOARD_REFUSALS, Responses, answer, error, request_body
from api.routes.dashboard import is_seen, place_of
from api.routes.executions import Told, cancelled, retried
from api.schemas import CancelSelectionBody, SelectionAnswer, SelectionBody
from executions.errors import InvalidTask
from executions.names import checked_task_id
from executions.record import Execution
from executions.rows import Filters, cursor_from_place, row_from_execution

NOTHING_SELECTED = "the selector must name something: project, status, actor, text or taskIds"
TWO_PAGINGS = "a selector with taskIds has no cursor"
_AT_ONCE = 8
_SECONDS = 20.0

router = APIRouter(prefix="/dashboard/executions", tags=["executions"])

_RESULT = {"taskId": "impl-e2e", "status": 202, "body": {"taskId": "impl-e2e", "attempt": 2, "status": "queued"}}
_ANSWERS: Responses = {
    **{code: said for code, said in DASHBOARD_REFUSALS.items() if code != 404},
    200: answer(
        "An answer for each task that was selected",
        SelectionAnswer,
        some={"dryRun": False, "results": [_RESULT], "left": [], "nextCursor": None},
    ),
    400: error(
        "The body is not usable",
        not_json="the body is not valid JSON",
        selector="the field 'selector' is invalid: missing",
        nothing=NOTHING_SELECTED,
        paging=TWO_PAGINGS,
    ),
    422: error("The cursor is not usable", cursor=errors.BAD_CURSOR),
}
_SELECTOR = {"project": "my-org/my-repo", "status": "Failed"}

OnOne = Callable[[str], Awaitable[Told]]


@router.post(
    "/retry",
    responses=_ANSWERS,
    openapi_extra=request_body(
        SelectionBody,
        tried={"selector": _SELECTOR, "dryRun": True},
        named={"selector": {"taskIds": ["impl-e2e", "digest-1"]}},
    ),
)
async def retry_many(person: Person, body: JsonBody, context: ContextOf) -> Response:
    """Run failed tasks again, each as its own retry route would."""
    asked = validated(SelectionBody, body)
    return await _done(
        context, person.email, asked, lambda task_id: retried(context, task_id, person.email, dry_run=asked.dryRun)
    )


@router.post(
    "/cancel",
    responses=_ANSWERS,
    openapi_extra=request_body(
        CancelSelectionBody, cancel={"selector": {"actor": "jane"}, "reason": "wrong branch", "dryRun": True}
    ),
)
async def cancel_many(person: Person, body: JsonBody, context: ContextOf) -> Response:
    """Stop live workers and drop retries that have not begun, each as its own cancel route would."""
    asked = validated(CancelSelectionBody, body)
    return await _done(
        context,
        person.email,
        asked,
        lambda task_id: cancelled(context, task_id, person.email, reason=asked.reason, dry_run=asked.dryRun),
    )


@dataclass(frozen=True, slots=True)
class _Selected:
    """Tasks in the order found; those that there are none of, for this person, are in ``unknown``."""

    task_ids: Sequence[str]
    unknown: frozenset[str] = frozenset()
    next_cursor: str | None = None


async def _done(context: Context, email: str, asked: SelectionBody, on_one: OnOne) -> Response:
    with gateway_errors():
        selected = await _selected(context, email, asked)

    async def told(task_id: str) -> Told:
        if task_id in selected.unknown:
            return 404, {"error": errors.NOT_FOUND}
        try:
            return await on_one(task_id)
        except Refused as refusal:
            return refusal.status, refusal.body

    results = await _each(selected.task_ids, told)
    document = {
        "dryRun": asked.dryRun,
        "results": [
            {"taskId": task_id, "status": results[task_id][0], "body": results[task_id][1]}
            for task_id in selected.task_ids
            if task_id in results
        ],
        "left": [task_id for task_id in selected.task_ids if task_id not in results],
        "nextCursor": selected.next_cursor,
    }
    return json_response(200, document)


async def _each(task_ids: Sequence[str], told: OnOne, *, seconds: float = _SECONDS) -> dict[str, Told]:
    """Some side by side, none begun after the time; what has begun is never broken off."""
    until, waiting, results = time.monotonic() + seconds, list(reversed(task_ids)), dict[str, Told]()

    async def work() -> None:
        while waiting and time.monotonic() < until:
            task_id = waiting.pop()
            results[task_id] = await told(task_id)

    ended = await asyncio.gather(*(work() for _ in range(_AT_ONCE)), return_exceptions=True)
    for fault in ended:
        if fault is not None:
            raise fault
    return results


async def _selected(context: Context, email: str, asked: SelectionBody) -> _Selected:
    filters, task_ids = asked.selector.filters, asked.selector.taskIds
    if filters.is_empty and not task_ids:
        raise Refused(400, NOTHING_SELECTED)
    if task_ids is not None:
        if asked.cursor is not None:
            raise Refused(400, TWO_PAGINGS)
        return await _named(context, email, filters, list(dict.fromkeys(task_ids)))
    page = await context.tasks.page(email, filters, before=place_of(asked.cursor), limit=asked.limit)
    names = dict.fromkeys(row.shown["taskId"] for row in page.rows if _is_task_id(row.shown["taskId"]))
    return _Selected(list(names), next_cursor=cursor_from_place(page.following) if page.following else None)


async def _named(context: Context, email: str, filters: Filters, task_ids: Sequence[str]) -> _Selected:
    known = {
        snapshot.task_id: snapshot.execution
        for snapshot in await context.store.read_many([name for name in task_ids if _is_task_id(name)])
        if snapshot.execution is not None
    }
    unknown = {name for name in task_ids if name not in known}
    left_out = set[str]()
    for name, found in known.items():
        if not await is_seen(context, email, found):
            unknown.add(name)
        elif not _matches(filters, found):
            left_out.add(name)
    return _Selected([name for name in task_ids if name not in left_out], frozenset(unknown))


def _matches(filters: Filters, found: Execution) -> bool:
    return filters.is_empty or filters.match(row_from_execution(found))


def _is_task_id(value: object) -> bool:
    try:
        return bool(checked_task_id(value))
    except InvalidTask:
        return False
