"""Outcomes are told by real processes: of a retried task both, also of a callback that came while Redis was away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from devstack.redis import RedisServer
from tests.e2e.installation import Installation, message
from tests.support.fault_proxy import Fault, FaultProxy

RETRIES = {"RETRY_DELAYS_SECONDS": "0.5", "MAX_RETRIES": "2"}


class Receiver(ThreadingHTTPServer):
    """A webhook that takes no first request of any outcome."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refused: set[str] = set()
        self.taken: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/alakai"

    def told(self, task_id: str) -> list[tuple[int, str]]:
        """Attempt and status of each outcome of a task, repeats left out, in the order in which they came."""
        found = [(item["attempt"], item["status"]) for item in self.taken if item["taskId"] == task_id]
        return list(dict.fromkeys(found))


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        if key not in self.server.refused:
            self.server.refused.add(key)
            self.send_response(500)
        else:
            self.server.taken.append(json.loads(body))
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.timeout(120)
def test_both_outcomes_of_a_retried_task_are_told_and_one_that_redis_missed(
    installation: Installation, redis_server: RedisServer, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("a-secret-of-the-webhook")
    path = tmp_path / "notifications.yaml"
    document = {
        "webhook": {"url": receiver.url, "secretFile": "secret"},
        "delivery": {"firstWaitSeconds": 0.1, "timeoutSeconds": 2},
    }
    path.write_text(json.dumps(document))
    with FaultProxy(redis_server.port or 0) as proxy:
        settings = {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}", "NOTIFICATIONS_FILE": str(path), **RETRIES}
        installation.start_both(**settings)
        installation.send(message("again", "transient"), message("kept", "manual"))
        installation.wait_for("again", 2, "succeeded")
        installation.wait_for("kept", 1, "running")
        proxy.set(Fault.CUT)
        assert installation.complete("kept") == (202, {"recorded": False, "queued": True})
        proxy.set(Fault.NONE)
        installation.wait_until(lambda: len(receiver.told("again")) == 2, 30, "both outcomes are told")
        installation.wait_until(lambda: receiver.told("kept"), 30, "the kept one too")
    assert receiver.told("again") == [(1, "failed"), (2, "succeeded")]
    assert receiver.told("kept") == [(1, "succeeded")]
    first = next(item for item in receiver.taken if item["taskId"] == "again")
    assert "automatic retry 1 of" in first["next"]
    assert installation.alakai_says("notifications", "dead") == "no notification was given up\n"


def test_a_file_that_cannot_be_used_stops_the_start(installation: Installation, tmp_path: Path) -> None:
    path = tmp_path / "notifications.yaml"
    path.write_text("webhook: {url: 'http://10.0.0.1/', secretFile: nowhere}")
    controller = installation.start_controller(wait=False, NOTIFICATIONS_FILE=str(path))
    assert controller.process.wait(30) == 2
    said = controller.log_text()
    assert "the notification file notifications.yaml webhook.secretFile" in said
    assert "Traceback" not in said
