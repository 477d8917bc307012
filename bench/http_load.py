"""A small HTTP client for load: prepared requests over kept connections, so that it is not what is measured."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.errors import BenchError
from bench.parallel import in_parallel
from bench.processes import Child
from devstack.ports import HOST

_START_SECONDS = 60.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"^content-length: *(\d+)\r$", re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class Load:
    """What came of a series of requests."""

    per_second: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)


def post(path: str, **headers: str) -> bytes:
    """A request without a body."""
    fields = {"Host": HOST, "Content-Length": "0"} | {name.replace("_", "-"): text for name, text in headers.items()}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def send_all(port: int, requests: Sequence[bytes], *, expected: int, connections: int) -> Load:
    """Send each request once, one at a time per connection. Raises BenchError for an answer of another status."""
    load, waiting = Load(), iter(requests)

    async def work(_: int) -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            for request in waiting:
                began = time.perf_counter()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_content_length(head))
                load.latencies_ms.append((time.perf_counter() - began) * 1000)
                if (status := _STATUS.match(head)) is None or int(status[1]) != expected:
                    raise BenchError(f"a request was answered {head.splitlines()[0]!r} {body[:200]!r}")
        finally:
            writer.close()

    began = time.perf_counter()
    await in_parallel(range(connections), work, width=connections)
    load.per_second = len(requests) / (time.perf_counter() - began)
    return load


async def until_listening(port: int, child: Child) -> None:
    """Raises BenchError when the process ends, or does not listen in time."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        child.require_running()
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            if time.monotonic() > deadline:
                raise BenchError(f"a server of the benchmark did not listen within {_START_SECONDS:.0f} s") from None
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def _content_length(head: bytes) -> int:
    found = _LENGTH.search(head)
    if found is None:
        raise BenchError(f"an answer without a length: {head[:200]!r}")
    return int(found[1])
