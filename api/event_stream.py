"""A response that goes on: server-sent events, written chunk by chunk to a connection that may stop taking them.

What the chunks are is ``live``'s. Waits for no connection longer than it is told: one that takes nothing is aborted,
because closing it in order would wait for it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from executions.adapters.metrics import STREAMS_DROPPED

ABORT = "alakai.abort"
"""Name of the ASGI extension whose ``call`` ends a connection at once; our server (``__main__``) has it."""
MEDIA_TYPE = "text/event-stream"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_ABORTED_SECONDS = 1.0


class EventStream(StreamingResponse):
    """``left`` is called once, however it ends."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        send_seconds: float,
        abort: Callable[[], None],
        left: Callable[[], None],
    ) -> None:
        super().__init__(chunks, headers=_HEADERS)
        self._chunks = chunks
        self._send_seconds = send_seconds
        self._abort = abort
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()

    async def stream_response(self, send: Send) -> None:
        try:
            await self._send(
                send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            async for chunk in self._chunks:
                await self._send(send, {"type": "http.response.body", "body": chunk, "more_body": True})
            await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})
        except _Stalled:
            STREAMS_DROPPED.labels("stalled").inc()
            self._abort()
            # The server tells that the connection is gone, which ends this call; without that it would call it a fault.
            await asyncio.sleep(_ABORTED_SECONDS)

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._send_seconds):
                await send(message)
        except TimeoutError:
            raise _Stalled from None


class _Stalled(Exception):
    """The connection takes nothing any more."""


def abort_of(request: Request) -> Callable[[], None]:
    """Ends the request's connection at once; does nothing on a server that does not offer it."""
    extensions: dict[str, Any] = request.scope.get("extensions") or {}
    abort: Callable[[], None] = extensions.get(ABORT, {}).get("call", _nothing)
    return abort


def _nothing() -> None:
    return None
