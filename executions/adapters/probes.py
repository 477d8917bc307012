"""The probes over HTTP, on threads of their own: an event loop that is stuck is told with 503 instead of by silence.

Both processes serve them so, each on a port of its own. What is checked is in ``health``.
"""

from __future__ import annotations

from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from sys import exc_info
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import orjson
import structlog

from executions.adapters.health import Health, Probe
from executions.adapters.thread_server import ThreadServer, serve_on_thread

PATHS = {
    "/startupz": Probe.STARTUP,
    "/livez": Probe.LIVENESS,
    "/v0/livez": Probe.LIVENESS,
    "/readyz": Probe.READINESS,
    "/v0/healthz": Probe.READINESS,
}
_log = structlog.get_logger(__name__)

Answer = tuple[int, dict[str, Any]]
"""Status code and body."""


def answer(health: Health, target: str) -> Answer:
    """What a path, with its query, is answered; called on any thread but the event loop's."""
    path, _, query = target.partition("?")
    asked = parse_qs(query)
    if path == "/health":
        return answer_of({})
    if path not in PATHS:
        return 404, {"error": "not found"}
    exclude, latch = asked.get("exclude", []), asked.get("latch") == ["1"]
    return answer_of(health.problems_for_thread(PATHS[path], exclude, latch=latch))


def answer_of(problems: dict[str, str]) -> Answer:
    return (503, {"ok": False, "failed": problems}) if problems else (200, {"ok": True})


def serve_probes(health: Health, port: int | None, *, variable: str, host: str, default_port: int = 0) -> ThreadServer:
    """Serve until stopped, also while the event loop does not run yet or any more. Raises InvalidSettings."""
    return serve_on_thread(partial(_start, health, host), port, variable=variable, default_port=default_port)


def _start(health: Health, host: str, port: int) -> tuple[_Server, Thread]:
    server = _Server((host, port), partial(_Handler, health))
    thread = Thread(target=server.serve_forever, name="probes", daemon=True)
    thread.start()
    return server, thread


class _Server(ThreadingTCPServer):
    """A thread for each probe, so that one that waits keeps no other waiting."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        error = exc_info()[1]
        if not isinstance(error, OSError):  # which is one who asked and went away
            _log.error("A probe could not be answered", error_type=type(error).__name__)


class _Handler(BaseHTTPRequestHandler):
    timeout = 5.0
    """Who connects and says nothing is not waited for."""

    def __init__(self, health: Health, *connection: Any) -> None:
        self._health = health
        super().__init__(*connection)

    def do_GET(self) -> None:
        status, body = answer(self._health, self.path)
        raw = orjson.dumps(body)
        self.send_response_only(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Probes come every few seconds; they are not worth a line each."""
