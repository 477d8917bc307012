"""The probes over a socket. What each trouble makes of them: ``tests/e2e/test_probe_table.py``."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from executions.adapters import probes as module
from executions.adapters.health import LOOP_LAG_SECONDS, Health, Look
from executions.adapters.probes import serve_probes
from executions.errors import InvalidSettings, StoreUnavailable
from tests.support.fake_probe import FakeProbe

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
ALL = ("/health", "/startupz", "/livez", "/v0/livez", "/readyz", "/v0/healthz")
ABOUT_A_SECOND = 1.5


class Served:
    """Probes on a port of their own."""

    def __init__(self, health: Health) -> None:
        self.health = health
        self.server = serve_probes(health, 0, variable="API_PROBE_PORT", host=HOST)

    def get(self, path: str) -> tuple[int, dict[str, object]]:
        """Blocks; for threads other than the loop's."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.server.port}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    async def ask(self, path: str) -> tuple[int, dict[str, object]]:
        return await asyncio.to_thread(self.get, path)


@pytest.fixture
def store() -> FakeProbe:
    return FakeProbe()


@pytest.fixture
def at_rest(store: FakeProbe) -> Iterator[Served]:
    """Served, and no loop runs."""
    found = Served(Health(store.answers))
    yield found
    found.server.stop()


@pytest.fixture
async def served(at_rest: Served) -> AsyncIterator[Served]:
    heart = asyncio.create_task(at_rest.health.beat())
    await asyncio.sleep(0)
    yield at_rest
    heart.cancel()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server((HOST, 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every probe asks anew."""
    problem = Look.problem

    async def anew(look: Look) -> str | None:
        look._asked_at = float("-inf")
        return await problem(look)

    monkeypatch.setattr(Look, "problem", anew)


async def test_all_is_well(served: Served) -> None:
    for path in ALL:
        assert await served.ask(path) == (200, {"ok": True})
    assert (await served.ask("/"))[0] == 404


@pytest.mark.usefixtures("no_memory")
async def test_a_store_that_fails_and_comes_back(served: Served, store: FakeProbe) -> None:
    store.error = StoreUnavailable("Redis did not do as asked (ConnectionError)")
    status, body = await served.ask("/livez")
    assert (status, body["failed"]) == (503, {"store": "Redis did not do as asked (ConnectionError)"})
    assert (await served.ask("/readyz"))[0] == 503
    assert (await served.ask("/livez?exclude=store"))[0] == 200
    store.error = None
    assert (await served.ask("/livez"))[0] == 200


async def test_fifty_probes_at_once_are_one_ping(served: Served, store: FakeProbe) -> None:
    together = threading.Barrier(50)

    def probed(_: int) -> int:
        together.wait(10)
        return served.get("/livez")[0]

    began, loop = time.monotonic(), asyncio.get_running_loop()
    with ThreadPoolExecutor(50) as pool:
        found = await asyncio.gather(*(loop.run_in_executor(pool, probed, number) for number in range(50)))
    assert set(found) == {200}
    # One more for each whole second that a busy machine needs.
    assert 1 <= store.asked <= 1 + int(time.monotonic() - began)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_before_a_loop_runs_while_it_is_stuck_and_after_it_has_ended(
    at_rest: Served, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Nobody is kept waiting for longer than a second, and nobody is without an answer."""
    told: dict[str, tuple[int, dict[str, object]]] = {}

    def ask(when: str, path: str = "/livez") -> None:
        began = time.monotonic()
        told[when] = at_rest.get(path)
        assert time.monotonic() - began < ABOUT_A_SECOND, when

    async def main() -> None:
        heart = asyncio.create_task(at_rest.health.beat())
        await asyncio.sleep(0)
        await asyncio.to_thread(ask, "turning")
        asking = threading.Thread(target=ask, args=("stuck",))
        asking.start()
        asking.join()  # on the loop's own thread
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)

    ask("begun", "/startupz")
    ask("before")
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    ask("after")
    not_asked = (503, {"ok": False, "failed": {"store": "not asked: the event loop does not run"}})
    assert told == {
        "begun": (200, {"ok": True}),
        "before": not_asked,
        "turning": (200, {"ok": True}),
        "stuck": (503, {"ok": False, "failed": {"store": "no answer within 1 s"}}),
        "after": not_asked,
    }


def test_a_loop_that_never_begins_is_named(at_rest: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    monkeypatch.setattr(at_rest.health, "_clock", lambda: began + LOOP_LAG_SECONDS + 100)
    for path in ("/startupz", "/livez?latch=1", "/readyz"):
        status, body = at_rest.get(path)
        assert (status, list(body["failed"])) == (503, ["loop"])  # type: ignore[call-overload]


async def test_who_goes_away_or_says_nothing_is_not_told_of_and_keeps_nobody_waiting(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    silent = [socket.create_connection((HOST, served.server.port)) for _ in range(20)]
    for _ in range(20):
        with socket.create_connection((HOST, served.server.port)) as hasty:
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
            hasty.sendall(b"GET /livez HTTP/1.1\r\n")
    began = time.monotonic()
    assert (await served.ask("/livez"))[0] == 200
    assert time.monotonic() - began < ABOUT_A_SECOND
    for connection in silent:
        connection.close()
    await asyncio.sleep(0.1)
    assert capfd.readouterr() == ("", "")


async def test_a_fault_of_ours_is_one_line_of_the_log(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "answer", lambda *_: 1 / 0)
    with capture_logs() as logs, pytest.raises(OSError, match="closed"):
        await served.ask("/livez")
    assert [(line["event"], line["error_type"]) for line in logs] == [
        ("A probe could not be answered", "ZeroDivisionError")
    ]


def test_probes_that_are_stopped_answer_nobody(store: FakeProbe) -> None:
    found = Served(Health(store.answers))
    found.server.stop()
    with pytest.raises(urllib.error.URLError):
        found.get("/livez")


# Ports


def test_a_chosen_port_that_is_taken_is_named_with_its_variable_and_the_remedy(store: FakeProbe, taken: int) -> None:
    for variable in ("API_PROBE_PORT", "CONTROLLER_PORT"):
        with pytest.raises(InvalidSettings, match=rf"{variable} is {taken}, .*in use.* set it to a free port, or to 0"):
            serve_probes(Health(store.answers), taken, variable=variable, host=HOST)


def test_a_default_port_that_is_taken_keeps_no_process_from_starting(store: FakeProbe, taken: int) -> None:
    with capture_logs() as logs:
        server = serve_probes(Health(store.answers), None, variable="API_PROBE_PORT", host=HOST, default_port=taken)
    server.stop()
    assert server.port not in (0, taken)
    ((warning),) = logs
    assert (warning["log_level"], warning["port"]) == ("warning", taken)
    assert "API_PROBE_PORT" in warning["event"]


@pytest.mark.parametrize(("process", "variable"), [("api", "API_PROBE_PORT"), ("controller", "CONTROLLER_PORT")])
def test_a_process_whose_probes_cannot_be_served_ends_with_one_line(
    taken: int, process: str, variable: str, tmp_path: Path
) -> None:
    config = {
        "clusters": [{"name": "in", "cluster": {"server": f"https://{HOST}:1"}}],
        "contexts": [{"name": "in", "context": {"cluster": "in", "user": "in"}}],
        "users": [{"name": "in", "user": {}}],
        "current-context": "in",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    environment = {
        **{name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        "ENV": "local",
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "REDIS_URL": f"redis://{HOST}:1",
        "SQS_QUEUE_URL": f"http://{HOST}:1/0/tasks",
        "AWS_REGION": "us-east-1",
        "PORT": "0",
        "METRICS_PORT": "0",
        variable: str(taken),
    }
    done = subprocess.run(
        [sys.executable, "-m", process], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"{process}: {variable} is {taken}, where nothing can listen")
    assert "Traceback" not in done.stdout + done.stderr
