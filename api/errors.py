"""Every refusal that leaves this process: one shape, ``{"error": "…"}``, constant texts, never the caller's input.

Which refusal when is decided by the routes, the bodies (``body``) and the guard (``guard``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from executions.errors import QueueUnavailable, StoreUnavailable, TooMuchContention
from executions.record import RecordUnreadable

RETRY_AFTER_SECONDS = 5

STORE_AWAY = "the execution store cannot be used right now; try again"
ENQUEUE_FAILED = "the retry could not be enqueued; try again"
NOT_FOUND = "execution not found"
UNAUTHORIZED = "dashboard_unauthorized"
FORBIDDEN = "dashboard_forbidden"
TOO_MANY = "too many requests; try again later"
CALLBACK_UNAUTHORIZED = "callback_unauthorized"
ROUTE_NOT_FOUND = "route not found"
BAD_CURSOR = "the parameter 'cursor' is invalid: not one that a page gave"
METHOD_NOT_ALLOWED = "method not allowed"
INTERNAL = "internal error"

STORE_ERRORS = (StoreUnavailable, RecordUnreadable, TooMuchContention)
"""What keeps a command from being decided: the store is away, the record is broken, or others were always faster."""


class Refused(Exception):
    """A request that gets another answer than the one it asked for; raised anywhere below a route."""

    def __init__(self, status: int, error: str, *, headers: Mapping[str, str] | None = None, **fields: Any) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, **fields}
        self.headers = dict(headers or {})

    def response(self) -> Response:
        return json_response(self.status, self.body, self.headers)


def json_response(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; the document is a plain object."""
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


def try_again_later(error: str) -> Refused:
    """503 with ``Retry-After``: nothing was done, and the same request may be sent again."""
    return Refused(503, error, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


@contextmanager
def gateway_errors() -> Iterator[None]:
    """For the dashboard: a store or queue that does not do its part is a 502."""
    try:
        yield
    except QueueUnavailable as error:
        raise Refused(502, ENQUEUE_FAILED) from error
    except STORE_ERRORS as error:
        raise Refused(502, STORE_AWAY) from error


def install(app: FastAPI) -> None:
    """Replace the framework's own error bodies, which echo what was sent."""
    for kind in (Refused, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)


async def _answer(_: Request, error: Exception) -> Response:
    match error:
        case Refused():
            return error.response()
        case HTTPException():
            known = {404: ROUTE_NOT_FOUND, 405: METHOD_NOT_ALLOWED}
            text = known.get(error.status_code) or HTTPStatus(error.status_code).phrase.lower()
            return json_response(error.status_code, {"error": text}, error.headers)
        case RequestValidationError():
            first = error.errors()[0]
            return json_response(422, {"error": f"the parameter {str(first['loc'][-1])!r} is invalid: {first['type']}"})
    raise error
