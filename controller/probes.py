"""Probes of the controller, served from a thread of their own: a stuck event loop answers 503 instead of hanging.

``/startupz`` says that this process has begun, whatever else is away. ``/livez`` says whether a restart would help: the
loop turns and the store answers; with ``?latch=1`` a store that never answered is no reason for one, because a restart
cannot bring back what was never there. ``/readyz`` says whether this replica does its work: the store is the one we
know, queue and key prefix are ours, and we are not shutting down.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from executions.errors import InvalidSettings, StoreUnavailable

LOOP_LAG_SECONDS = 10.0
PING_SECONDS = 1.0
_BEAT_SECONDS = 0.5


class Probes:
    """``ping`` raises StoreUnavailable when the store is not there; it runs on the loop of ``start``."""

    def __init__(self, ping: Callable[[], Awaitable[None]]) -> None:
        self._ping = ping
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_beat = time.monotonic()
        self._last_ping: tuple[float, str | None] = (0.0, "not asked yet")
        self._has_answered = False
        self._one_at_a_time = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._heart: asyncio.Task[None] | None = None
        self.is_trusted = False
        """Whether the store was found to be the one we know."""
        self.intruded: str | None = None
        """Why the queue or the key prefix is not ours; None when they are."""
        self.is_draining = False
        self.is_closed = False

    def start(self, host: str, port: int) -> int:
        """Serve until ``stop``; returns the port (chosen by the system for 0)."""
        self._loop = asyncio.get_running_loop()
        self._heart = self._loop.create_task(self._beat())
        probes = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = probes.answer(self.path)
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Probes come every few seconds; they are not worth a line each."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="probes", daemon=True).start()
        return int(self._server.server_address[1])

    def trust(self, is_trusted: bool) -> None:
        """Note whether the store was found to be the one we know."""
        self.is_trusted = is_trusted

    def own(self, refusal: str | None) -> None:
        """Note whether queue and key prefix are ours."""
        self.intruded = refusal

    def stop(self) -> None:
        self.is_closed = True
        if self._heart is not None:
            self._heart.cancel()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, target: str) -> tuple[int, dict[str, object]]:
        """Status code and body for a path; called on a thread of the server."""
        url = urlsplit(target)
        query = parse_qs(url.query)
        excluded = set(query.get("exclude", []))
        if query.get("latch") == ["1"] and not self._has_answered and not self.is_closed:
            self._store_problem(excluded)  # which notes that it answers, once it does
            excluded |= set() if self._has_answered else {"store"}
        match url.path:
            case "/health":
                return 200, {"ok": True}
            case "/startupz":
                checks = {"loop": self._loop_problem()}
            case "/livez" | "/v0/livez":
                checks = {"loop": self._loop_problem(), "store": self._store_problem(excluded)}
            case "/readyz" | "/v0/healthz":
                checks = {
                    "loop": self._loop_problem(),
                    "store": self._store_problem(excluded),
                    "trust": None if self.is_trusted else "the store is not known to be ours yet",
                    "installation": self.intruded,
                    "draining": "shutting down" if self.is_draining else None,
                }
            case _:
                return 404, {"error": "not found"}
        failed = {name: text for name, text in checks.items() if text is not None and name not in excluded}
        return (503, {"ok": False, "failed": failed}) if failed else (200, {"ok": True})

    async def _beat(self) -> None:
        while True:
            self._last_beat = time.monotonic()
            await asyncio.sleep(_BEAT_SECONDS)

    def _loop_problem(self) -> str | None:
        lag = time.monotonic() - self._last_beat
        return f"the event loop has not turned for {lag:.0f} s" if lag > LOOP_LAG_SECONDS else None

    def _store_problem(self, excluded: set[str]) -> str | None:
        if "store" in excluded:
            return None
        if self.is_closed:
            return "closed"
        with self._one_at_a_time:
            asked_at, problem = self._last_ping
            if time.monotonic() - asked_at > PING_SECONDS:
                problem = self._asked()
                self._last_ping = (time.monotonic(), problem)
                self._has_answered |= problem is None
        return problem

    def _asked(self) -> str | None:
        assert self._loop is not None  # noqa: S101 -- only answer() asks, and it is served after start()
        pending: Future[None] = asyncio.run_coroutine_threadsafe(self._pinged(), self._loop)
        try:
            pending.result(PING_SECONDS)
        except NotInTime:
            pending.cancel()
            return f"no answer within {PING_SECONDS:g} s"
        except StoreUnavailable as error:
            return str(error)
        return None

    async def _pinged(self) -> None:
        await self._ping()


def serve_probes(probes: Probes, port: int) -> int:
    """Serve; returns the port. Raises InvalidSettings."""
    try:
        return probes.start("0.0.0.0", port)  # noqa: S104 -- the kubelet asks from outside
    except OSError as error:
        raise InvalidSettings(
            f"CONTROLLER_PORT is {port}, where nothing can listen ({error.strerror}); set it to a free port"
        ) from error
