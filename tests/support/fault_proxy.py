"""A TCP proxy that stands between a client and a real server and misbehaves as told, on a thread of its own.

What it does to bytes is what networks do: a blackhole swallows them, dropped replies let requests through. SIGSTOP on a
server is not the same: the kernel keeps what arrives meanwhile, and all of it is acted on later.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto

_CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for no time: the connection ends with a reset instead of a polite end."""


class Fault(Enum):
    """What happens to connections, those that are open and new ones alike."""

    NONE = auto()
    CUT = auto()
    """Reset: open connections at once, new ones at their first byte.

    A reset before that can reach a client as a refused connection, which is another failure: nothing was sent.
    """
    BLACKHOLE = auto()
    """Accepted, and nothing ever arrives on either side."""
    DROP_REPLIES = auto()
    """Requests arrive and are acted on; what comes back does not."""
    DELAY = auto()
    """Everything arrives, later."""


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    is_damaged: bool = False
    """Bytes of it are gone: it must not be used again."""

    def abort(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None and not writer.transport.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()


class FaultProxy(AbstractContextManager["FaultProxy"]):
    """Listens on ``port`` of the loopback address, on behalf of another port there."""

    def __init__(self, target_port: int, *, delay_seconds: float = 0.2) -> None:
        self._target_port = target_port
        self._delay_seconds = delay_seconds
        self._fault = Fault.NONE
        self._connections: set[_Connection] = set()
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def set(self, fault: Fault) -> None:
        """From now on. A connection of which bytes were lost is reset when the fault ends, as a client would find."""
        self._on_loop(lambda: self._become(fault))

    def retarget(self, port: int) -> None:
        """New connections lead there, as those of a Service do after a rollout."""
        self._target_port = port

    @property
    def connections(self) -> int:
        return len(self._connections)

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _on_loop(self, act: Callable[[], None]) -> None:
        async def acted() -> None:
            act()

        asyncio.run_coroutine_threadsafe(acted(), self._loop).result(10)

    def _become(self, fault: Fault) -> None:
        self._fault = fault
        for connection in list(self._connections):
            if fault is Fault.CUT or (fault is Fault.NONE and connection.is_damaged):
                connection.abort()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _end(self) -> None:
        self._server.close()
        self._become(Fault.CUT)
        others = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._connections.add(connection)
        try:
            if self._fault is Fault.CUT:
                await reader.read(1)
                return
            answers, connection.server = await asyncio.open_connection("127.0.0.1", self._target_port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, connection.server, connection, is_reply=False))
                group.create_task(self._pump(answers, writer, connection, is_reply=True))
        except (OSError, ExceptionGroup):
            return
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, connection: _Connection, *, is_reply: bool
    ) -> None:
        while data := await source.read(_CHUNK):
            if self._swallows(is_reply):
                connection.is_damaged = True
                continue
            if self._fault is Fault.DELAY:
                await asyncio.sleep(self._delay_seconds)
            sink.write(data)
            await sink.drain()
        while self._swallows(is_reply):  # the other side does not hear of the end either
            connection.is_damaged = True
            await self._changed.wait()
        raise ConnectionResetError("one side has ended")

    def _swallows(self, is_reply: bool) -> bool:
        return self._fault is Fault.BLACKHOLE or (self._fault is Fault.DROP_REPLIES and is_reply)
