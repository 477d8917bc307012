"""A small real HTTP server that plays the control plane for workers: it grants claims once and keeps outcomes.

Answers can be scripted per route, to play a control plane that is away, confused or cut off.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLAIM, COMPLETE = "/task-claim", "/task-complete"
CUT = 0
"""As a status: the connection is closed without an answer."""


@dataclass(frozen=True)
class Scripted:
    """One answer. ``body`` is sent as it is."""

    status: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


class CallbackServer:
    """``tasks`` holds the messages given to claims by task id; every other attribute is what was received."""

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.retry_hints: dict[str, Any] = {}
        self.claims: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []
        self.outcomes: list[dict[str, Any]] = []
        self.script: dict[str, deque[Scripted]] = {CLAIM: deque(), COMPLETE: deque()}
        self.trouble: Iterator[Scripted] = iter(())
        """Answers whatever is asked, for as long as it gives something."""
        self.calls: dict[str, int] = {CLAIM: 0, COMPLETE: 0}
        self._owners: dict[tuple[object, ...], str] = {}
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = owner.answer(self.path, json.loads(body))
                if answer.status == CUT:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                """Tests say themselves what went wrong."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> CallbackServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, body: dict[str, Any]) -> Scripted:
        with self._lock:
            self.calls[path] += 1
            if (troubled := next(self.trouble, None)) is not None:
                return troubled
            if self.script[path]:
                return self.script[path].popleft()
            return self._claim(body) if path == CLAIM else self._complete(body)

    def _claim(self, body: dict[str, Any]) -> Scripted:
        launch = (body["taskId"], body["attempt"], body["launchTry"])
        task = self.tasks.get(body["taskId"])
        if task is None:
            return Scripted(404, b'{"error":"execution not found"}')
        if self._owners.setdefault(launch, body["claimId"]) != body["claimId"]:
            self.refused.append(body)
            return Scripted(409, b'{"error":"claimed by another worker"}')
        self.claims.append(body)
        granted = {"task": task, "traceId": f"upstream-{body['taskId']}", "retry": self.retry_hints}
        return Scripted(200, json.dumps(granted).encode())

    def _complete(self, body: dict[str, Any]) -> Scripted:
        repeated = any(body["taskId"] == item["taskId"] for item in self.outcomes)
        self.outcomes.append(body)
        answer = {"recorded": False, "reason": "already_finished"} if repeated else {"recorded": True}
        return Scripted(200, json.dumps(answer).encode())
