"""Counts requests and their time by route, method and status. Pure ASGI, outside everything else."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from executions.adapters.metrics import HTTP_REQUESTS, HTTP_SECONDS

_STREAM = "text/event-stream"
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class Measuring:
    """Wraps the application. A route is its template (``/dashboard/executions/{taskId}/retry``), never a path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began, is_stream = 0, time.perf_counter(), False

        async def counted(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                status = message["status"]
                is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith(_STREAM)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            # Without an answer: the caller went away before there was one.
            HTTP_REQUESTS.labels(route, method, str(status or 499)).inc()
            if not is_stream:  # How long somebody stayed says nothing about how fast we answer.
                HTTP_SECONDS.labels(route).observe(time.perf_counter() - began)
