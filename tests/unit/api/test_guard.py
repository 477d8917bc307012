"""The outermost layer by itself: slow, endless and broken-off bodies, and exceptions that nobody expected."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from api import guard
from api.guard import Guard

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that sends the body back, with a header of its own."""
    body = await Request(scope, receive).body()
    await Response(body, headers={"cache-control": "max-age=5"})(scope, receive, send)


async def answered(app: Guard, *messages: Message, scope: dict[str, Any] = SCOPE) -> list[Message]:
    """What the client gets for these messages; after the last one it sends nothing more."""
    waiting, sent = list(messages), list[Message]()

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(5):
        await app(scope, receive, send)
    return sent


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def headers(sent: list[Message]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def test_a_body_in_parts_arrives_whole_and_headers_are_added() -> None:
    sent = await answered(Guard(echo), part(b"a", True), part(b"", True), part(b"b"))
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"ab")
    assert headers(sent)["x-content-type-options"] == "nosniff"
    assert headers(sent)["cache-control"] == "max-age=5"


async def test_a_body_of_the_very_limit_is_taken() -> None:
    sent = await answered(Guard(echo, max_body_bytes=4), part(b"ab", True), part(b"cd"))
    assert sent[1]["body"] == b"abcd"


async def test_received_bytes_are_counted_and_not_announced_ones() -> None:
    liar = {**SCOPE, "headers": [(b"content-length", b"1")]}
    sent = await answered(Guard(echo, max_body_bytes=4), part(b"abc", True), part(b"de"), scope=liar)
    assert sent[0]["status"] == 413
    assert headers(sent)["connection"] == "close"
    assert orjson.loads(sent[1]["body"]) == {"error": "the body is larger than 4 bytes"}


async def test_an_endless_body_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_DISCARDED_BYTES", 50)
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        taken += 10
        return part(b"x" * 10, True)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Guard(echo, max_body_bytes=4)(SCOPE, receive, send)
    assert (sent[0]["status"], taken) == (413, 60)


async def test_a_slow_body_is_given_up() -> None:
    sent = await answered(Guard(echo, read_seconds=0.02), part(b"{", True))
    assert sent[0]["status"] == 408
    assert headers(sent)["connection"] == "close"
    assert orjson.loads(sent[1]["body"]) == {"error": "the body did not arrive in time"}


async def test_a_body_that_is_too_large_and_slow_is_too_large() -> None:
    sent = await answered(Guard(echo, max_body_bytes=4, read_seconds=0.02), part(b"abcde", True))
    assert sent[0]["status"] == 413


async def test_a_client_that_hangs_up_gets_nothing() -> None:
    assert await answered(Guard(echo), part(b"{", True), {"type": "http.disconnect"}) == []


async def test_an_exception_becomes_an_answer_and_a_log_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("token=canary")

    monkeypatch.setattr(guard, "_log", structlog.get_logger("test"))
    with capture_logs() as logs:
        sent = await answered(Guard(broken), part(b""))
    assert sent[0]["status"] == 500
    assert orjson.loads(sent[1]["body"]) == {"error": "internal error"}
    assert [entry["error_type"] for entry in logs] == ["RuntimeError"]
    assert "in broken" in logs[0]["where"]
    assert "canary" not in logs[0]["error"]


async def test_an_exception_under_way_does_not_begin_a_second_answer() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    assert [message["type"] for message in await answered(Guard(broken), part(b""))] == ["http.response.start"]


async def test_other_protocols_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await answered(Guard(app), scope={"type": "lifespan"})
    assert seen == ["lifespan"]
