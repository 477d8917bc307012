"""The outermost layer of every request: bounded bodies, security headers, and no exception without a JSON answer.

Pure ASGI, because a header check is passed by with a chunked body and the framework's own middleware buffers without a
limit. Knows no route; what a body means is decided in ``body``.
"""

from __future__ import annotations

import asyncio
import traceback

import structlog
from alakai_worker.redaction import sanitised
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import INTERNAL, Refused

MAX_BODY_BYTES = 65_536
READ_SECONDS = 10.0
_DISCARDED_BYTES = 32 * 1_048_576
"""How much of a body that is too large is still taken in: a client that writes on does not read our answer."""
_HEADERS = (
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
)
_CLOSE = {"Connection": "close"}
_log = structlog.get_logger(__name__)


class _Disconnected(Exception):
    """The caller went away before the body was complete."""


class Guard:
    """Wraps the application. ``max_body_bytes`` counts received bytes, ``read_seconds`` is for a whole body."""

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int = MAX_BODY_BYTES, read_seconds: float = READ_SECONDS
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._read_seconds = read_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            body = await self._body(receive)
            await self._app(scope, _replayed(body, receive), answer)
        except _Disconnected:
            return
        except Refused as refusal:
            await refusal.response()(scope, receive, answer)
        except Exception as error:
            _log.error(
                "Request failed unexpectedly",
                error_type=type(error).__name__,
                error=sanitised(str(error)),
                # Frames and source lines only: an exception's own text may repeat what the caller sent.
                where="".join(traceback.format_tb(error.__traceback__)[-4:]),
            )
            if not answer.has_started:
                await Refused(500, INTERNAL).response()(scope, receive, answer)

    async def _body(self, receive: Receive) -> bytes:
        """The whole body. Raises Refused 413 or 408, or _Disconnected."""
        body = bytearray()
        seen = 0
        try:
            async with asyncio.timeout(self._read_seconds):
                while seen <= _DISCARDED_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Disconnected
                    chunk: bytes = message.get("body", b"")
                    seen += len(chunk)
                    if seen <= self._max_body_bytes:
                        body += chunk
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            if seen <= self._max_body_bytes:
                raise Refused(408, "the body did not arrive in time", headers=_CLOSE) from None
        if seen > self._max_body_bytes:
            raise Refused(413, f"the body is larger than {self._max_body_bytes} bytes", headers=_CLOSE)
        return bytes(body)


class _Answer:
    """The way out: adds the security headers that the route did not set, and knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS:
                headers.setdefault(name, value)
        await self._send(message)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Hands the body over once; what follows (a disconnect) comes from the connection."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
