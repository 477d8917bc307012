"""Server-sent events as a browser reads them: from bytes to events, and a call of an application that goes on.

Shares no code with what writes them.
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``entry_id`` is None where it had no id."""

    kind: str
    data: Any
    entry_id: str | None


class Parser:
    """Takes bytes as they come; comments are counted."""

    def __init__(self) -> None:
        self.heartbeats = 0
        self.retry_ms: int | None = None
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        return [event for block in blocks if (event := self._event(block.decode())) is not None]

    def _event(self, block: str) -> Event | None:
        fields = dict[str, str]()
        for line in block.splitlines():
            name, _, value = line.partition(":")
            if not name:
                self.heartbeats += 1
            fields[name] = value.removeprefix(" ")
        if "retry" in fields:
            self.retry_ms = int(fields["retry"])
        if "data" not in fields:
            return None
        return Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))


class StreamCall:
    """A GET of an application without a socket: ``async with``; ``next`` gives what arrives.

    While ``is_stalled`` the connection takes nothing, as one whose buffers are full.
    """

    def __init__(self, app: ASGIApp, path: str, *, query: str = "", headers: dict[str, str] | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parser = Parser()
        self.body = b""
        self.was_aborted = False
        self.is_complete = False
        self.taking = asyncio.Event()
        self.taking.set()
        self._app = app
        self._events = asyncio.Queue[Event]()
        self._gone = asyncio.Event()
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "extensions": {"alakai.abort": {"call": self._abort}},
        }
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StreamCall:
        async def call() -> None:
            await self._app(self._scope, self._receive, self._send)

        self._task = asyncio.create_task(call())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        self.taking.set()
        await self.ended()

    async def next(self, seconds: float = 5.0) -> Event:
        async with asyncio.timeout(seconds):
            return await self._events.get()

    @property
    def waiting(self) -> int:
        """Events that arrived and were not asked for."""
        return self._events.qsize()

    async def ended(self, seconds: float = 5.0) -> None:
        """Until the application is done with this call."""
        assert self._task is not None
        async with asyncio.timeout(seconds):
            await asyncio.shield(self._task)

    def leave(self) -> None:
        """Close the connection from this side."""
        self._gone.set()

    def _abort(self) -> None:
        self.was_aborted = True
        self._gone.set()

    async def _receive(self) -> Message:
        if not self._task_has_asked():
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def _task_has_asked(self) -> bool:
        asked, self._scope["asked"] = self._scope.get("asked", False), True
        return bool(asked)

    async def _send(self, message: Message) -> None:
        await self.taking.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self.body += message.get("body", b"")
        self.is_complete = not message.get("more_body", False)
        if self.status == 200:
            for event in self.parser.feed(message.get("body", b"")):
                self._events.put_nowait(event)


class Browser:
    """One page that follows a stream over a real connection, as EventSource does: it comes back by itself.

    ``read`` runs until cancelled; what came is in ``events``.
    """

    def __init__(self, port: int, *, user: str = "you@local", buffer_bytes: int | None = None) -> None:
        self.events: list[Event] = []
        self.connections = 0
        self.last_event_id: str | None = None
        self.parser = Parser()
        self.is_reading = asyncio.Event()
        """While it is not set, nothing is taken from the connection."""
        self.is_reading.set()
        self._port = port
        self._user = user
        self._buffer_bytes = buffer_bytes

    @property
    def ids(self) -> list[str | None]:
        """Of the task events, as they came."""
        return [event.entry_id for event in self.events if event.kind == "task"]

    @property
    def resets(self) -> int:
        return sum(event.kind == "reset" for event in self.events)

    async def read(self) -> None:
        while True:
            try:
                await self._connection()
            except (OSError, asyncio.IncompleteReadError, ValueError):
                await asyncio.sleep(0.1)

    async def _connection(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        if self._buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
        except OSError:
            connection.close()
            raise
        limit = self._buffer_bytes or 2**16
        reader, writer = await asyncio.open_connection(sock=connection, limit=limit)
        try:
            place = f"Last-Event-ID: {self.last_event_id}\r\n" if self.last_event_id else ""
            request = f"GET /dashboard/stream HTTP/1.1\r\nHost: localhost\r\nx-dev-user: {self._user}\r\n{place}\r\n"
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(head.decode())
            self.connections += 1
            self.parser = Parser()
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await self.is_reading.wait()
                for event in self.parser.feed((await reader.readexactly(size + 2))[:-2]):
                    self.events.append(event)
                    self.last_event_id = event.entry_id or self.last_event_id
        finally:
            writer.close()
