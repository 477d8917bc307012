"""The worker program as a real process against a real HTTP server."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from executions.outcome import outcome_from_document
from tests.support.builders import task_document
from tests.support.callback_server import CLAIM, COMPLETE, CUT, CallbackServer, Scripted

DEADLINE_SECONDS = 60.0
OUTAGE_SECONDS = 600 if os.environ.get("ALAKAI_E2E_SCALE") == "full" else 4
PATIENT = {"ALAKAI_GIVE_UP_SECONDS": "3600"}
AWAY = [Scripted(503, b"", {"retry-after": "0"}), Scripted(502, b"<html>bad gateway</html>"), Scripted(CUT)]
GARBAGE = [Scripted(200, b"<html>hello</html>"), Scripted(200, b"\xff\x00"), Scripted(200, b'{"recorded":1}')]


@pytest.fixture
def server() -> Iterator[CallbackServer]:
    with CallbackServer() as server:
        yield server


class Workers:
    """Starts worker processes for one task and ends those that are left."""

    def __init__(self, server: CallbackServer) -> None:
        self.server = server
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self,
        *command: str,
        payload: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        task = task_document("task-1")
        self.server.tasks.setdefault("task-1", {**task, "payload": {**task["payload"], **(payload or {})}})
        launch = {
            "PATH": os.environ["PATH"],
            "ALAKAI_TASK_ID": "task-1",
            "ALAKAI_ATTEMPT": "1",
            "ALAKAI_LAUNCH_TRY": "1",
            "ALAKAI_CLAIM_URL": self.server.url + CLAIM,
            "ALAKAI_CALLBACK_URL": self.server.url + COMPLETE,
            "ALAKAI_TRACE_ID": "trace-1",
            "ALAKAI_GIVE_UP_SECONDS": "20",
        }
        worker = subprocess.Popen(
            [sys.executable, *command],
            env={**launch, **(environment or {})},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(worker)
        return worker

    def play(self, scenario: str, payload: dict[str, Any] | None = None, **environment: str) -> subprocess.Popen[str]:
        return self.start("-m", "alakai_worker", "scenario", scenario, payload=payload, environment=environment)


@pytest.fixture
def workers(server: CallbackServer) -> Iterator[Workers]:
    workers = Workers(server)
    yield workers
    for worker in workers.started:
        worker.kill()
        worker.communicate()


def ended(worker: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the log lines."""
    output, errors = worker.communicate(timeout=DEADLINE_SECONDS)
    assert errors == ""
    return worker.returncode, [json.loads(line) for line in output.splitlines()]


def until(check: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("scenario", "payload", "exit_code", "status", "code"),
    [
        ("succeed", {}, 0, "success", None),
        ("slow", {"seconds": 0.05}, 0, "success", None),
        ("fail", {}, 1, "error", "WORKER_FAILED"),
        ("transient", {"agent": {"provider": "claude"}}, 1, "error", "claude_transient_upstream"),
    ],
)
def test_a_scenario_is_claimed_played_and_reported(
    server: CallbackServer,
    workers: Workers,
    scenario: str,
    payload: dict[str, Any],
    exit_code: int,
    status: str,
    code: str | None,
) -> None:
    found, lines = ended(workers.play(scenario, payload))
    assert found == exit_code
    (claim,) = server.claims
    assert (claim["taskId"], claim["attempt"], claim["launchTry"]) == ("task-1", 1, 1)
    (outcome,) = server.outcomes
    assert (outcome["attempt"], outcome["launchTry"]) == (1, 1)
    assert (outcome["result"]["status"], outcome["result"].get("errorCode")) == (status, code)
    assert outcome_from_document(outcome).succeeded is (status == "success")
    (event,) = lines
    assert (event["trace_id"], event["event"]) == ("upstream-task-1", "coding.implementation")
    assert event["outcome"] == status


def test_two_workers_of_one_launch_work_once(server: CallbackServer, workers: Workers) -> None:
    first = workers.play("hang")
    until(lambda: server.claims, "the first worker claims")
    exit_code, lines = ended(workers.play("succeed"))
    assert exit_code == 0
    assert [line["final_status"] for line in lines] == ["claim_refused"]
    assert len(server.refused) == 1
    assert server.outcomes == []
    assert first.poll() is None


def test_a_worker_that_dies_says_nothing(server: CallbackServer, workers: Workers) -> None:
    exit_code, lines = ended(workers.play("die"))
    assert exit_code == 1
    assert len(server.claims) == 1
    assert server.outcomes == []
    assert lines == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_reports_that(server: CallbackServer, workers: Workers, number: signal.Signals) -> None:
    worker = workers.play("hang")
    until(lambda: server.claims, "the worker claims")
    # It may not have read the grant yet; the outcome is reported all the same.
    worker.send_signal(number)
    exit_code, lines = ended(worker)
    assert exit_code == 128 + number
    assert [item["result"]["errorMessage"] for item in server.outcomes] == [f"stopped by signal {number.name}"]
    assert lines[-1]["error"] == {"type": "Stopped", "message": f"stopped by signal {number.name}"}


def test_a_worker_stopped_while_it_reports_still_delivers(server: CallbackServer, workers: Workers) -> None:
    server.script[COMPLETE].append(Scripted(503))
    worker = workers.play("succeed")
    until(lambda: server.calls[COMPLETE] >= 1, "the worker tries to report")
    worker.send_signal(signal.SIGTERM)
    exit_code, _ = ended(worker)
    assert exit_code == 0
    assert [item["result"]["status"] for item in server.outcomes] == ["success"]


@pytest.mark.parametrize("answers", [AWAY, GARBAGE], ids=["away", "garbage"])
def test_a_control_plane_in_trouble_is_waited_for(
    server: CallbackServer, workers: Workers, answers: list[Scripted]
) -> None:
    server.script[CLAIM].extend(answers[:1])
    server.script[COMPLETE].extend(answers[1:])
    exit_code, lines = ended(workers.play("succeed"))
    assert exit_code == 0
    assert server.calls == {CLAIM: 2, COMPLETE: 3}
    assert [item["result"]["status"] for item in server.outcomes] == ["success"]
    assert [line["level"] for line in lines] == [40, 40, 40, 30]


@pytest.mark.timeout(1500)
def test_a_long_outage_with_every_kind_of_answer_loses_no_outcome(server: CallbackServer, workers: Workers) -> None:
    """Ten minutes before the claim, and ten before the report, with ALAKAI_E2E_SCALE=full."""

    def outage() -> Iterator[Scripted]:
        """From the first call on."""
        end = time.monotonic() + OUTAGE_SECONDS
        for answer in itertools.cycle(
            [*AWAY, *GARBAGE, Scripted(202, b"{}"), Scripted(429, b"", {"retry-after": "1"})]
        ):
            if time.monotonic() > end:
                return
            yield answer

    began = time.monotonic()
    server.trouble = outage()
    program = "import time; time.sleep(1)"
    worker = workers.start("-m", "alakai_worker", "run", "--", sys.executable, "-c", program, environment=PATIENT)
    until(lambda: server.claims, "it has claimed", OUTAGE_SECONDS + DEADLINE_SECONDS)
    server.trouble = outage()
    worker.communicate(timeout=OUTAGE_SECONDS + DEADLINE_SECONDS)
    assert worker.returncode == 0
    assert [item["result"]["status"] for item in server.outcomes] == ["success"]
    assert time.monotonic() - began >= 2 * OUTAGE_SECONDS
    # Patient, and no nuisance: at most 30 seconds apart, and far fewer calls than seconds.
    assert server.calls[CLAIM] < 12 + OUTAGE_SECONDS / 10


def test_a_redirect_is_not_followed(server: CallbackServer, workers: Workers) -> None:
    server.script[COMPLETE].append(Scripted(302, b"", {"location": f"{server.url}{COMPLETE}"}))
    exit_code, _ = ended(workers.play("succeed"))
    assert exit_code == 0
    assert server.calls[COMPLETE] == 2
    assert len(server.outcomes) == 1


def test_an_outcome_that_is_queued_is_delivered(server: CallbackServer, workers: Workers) -> None:
    server.script[COMPLETE].append(Scripted(202, b'{"recorded":false,"queued":true}'))
    exit_code, lines = ended(workers.play("succeed"))
    assert exit_code == 0
    assert server.calls[COMPLETE] == 1
    assert lines[0]["msg"] == "the outcome was delivered and not recorded now"


@pytest.mark.parametrize("status", [400, 401, 404, 409])
def test_a_final_refusal_of_the_outcome_ends_the_worker(server: CallbackServer, workers: Workers, status: int) -> None:
    server.script[COMPLETE].append(Scripted(status, b'{"error":"no"}'))
    exit_code, lines = ended(workers.play("succeed"))
    assert exit_code == 75
    assert server.calls[COMPLETE] == 1
    assert lines[-1]["error"] == {"type": "Rejected", "message": f"HTTP {status}: no"}


def test_a_control_plane_that_stays_away_is_given_up_at_the_limit(server: CallbackServer, workers: Workers) -> None:
    server.script[COMPLETE].extend([Scripted(503)] * 1000)
    began = time.monotonic()
    exit_code, lines = ended(workers.play("succeed", ALAKAI_GIVE_UP_SECONDS="1.5"))
    assert exit_code == 75
    assert 1.5 <= time.monotonic() - began < 15
    assert lines[-1]["final_status"] == "unreported"


def test_a_control_plane_that_comes_up_late_is_found(server: CallbackServer, workers: Workers) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()
        worker = workers.play("succeed", ALAKAI_CLAIM_URL=f"http://127.0.0.1:{address[1]}{CLAIM}")
        assert worker.stdout is not None
        assert "ConnectionRefusedError" in worker.stdout.readline()
        unused.listen()
        relay = threading.Thread(target=_relay_once, args=(unused, server))
        relay.start()
        exit_code, _ = ended(worker)
        relay.join()
    assert exit_code == 0
    assert len(server.outcomes) == 1


def test_a_broken_pipe_does_not_disturb_the_work(server: CallbackServer, workers: Workers) -> None:
    reader, writer = os.pipe()
    worker = workers.start("-m", "alakai_worker", "scenario", "fail", stdout=writer)
    os.close(writer)
    os.close(reader)
    _, errors = worker.communicate(timeout=DEADLINE_SECONDS)
    assert (worker.returncode, errors) == (1, "")
    assert len(server.outcomes) == 1


def test_the_program_explains_itself(workers: Workers) -> None:
    worker = workers.start("-m", "alakai_worker", "scenario", "explode")
    _, errors = worker.communicate(timeout=DEADLINE_SECONDS)
    assert worker.returncode == 2
    assert "choose from" in errors
    worker = workers.play("succeed", ALAKAI_ATTEMPT="first")
    _, errors = worker.communicate(timeout=DEADLINE_SECONDS)
    assert worker.returncode == 64
    assert errors == "alakai-worker: ALAKAI_ATTEMPT must be a whole number from 1 on\n"


@pytest.mark.parametrize(
    ("payload", "exit_code", "told"),
    [
        ({"prompt": "add three words"}, 0, "https://github.com/my-org/my-repo/pull/3"),
        ({"prompt": None}, 1, "the task has no prompt; put one into payload.prompt"),
    ],
)
def test_the_example_worker_works(
    server: CallbackServer,
    workers: Workers,
    repository: Path,
    payload: dict[str, Any],
    exit_code: int,
    told: str,
) -> None:
    found, _ = ended(workers.start(str(repository / "examples/worker/worker.py"), payload=payload))
    assert found == exit_code
    (outcome,) = server.outcomes
    assert told in outcome["result"].values()


def _relay_once(listener: socket.socket, server: CallbackServer) -> None:
    """Pass one request on to the server, and its answer back."""
    client, _ = listener.accept()
    port = int(server.url.rpartition(":")[2])
    with client, socket.create_connection(("127.0.0.1", port)) as upstream:
        request = b""
        while not request.endswith(b"}"):
            request += client.recv(65536)
        upstream.sendall(request)
        while answer := upstream.recv(65536):
            client.sendall(answer)


@pytest.mark.parametrize(
    ("program", "exit_code", "status", "code"),
    [
        ("print('working')", 0, "success", None),
        ("import sys; sys.exit('no luck')", 1, "error", "WORKER_FAILED"),
        ("import sys; sys.exit(75)", 1, "error", "TEMPORARY_FAILURE"),
    ],
)
def test_a_command_is_claimed_run_and_reported(
    server: CallbackServer, workers: Workers, program: str, exit_code: int, status: str, code: str | None
) -> None:
    worker = workers.start("-m", "alakai_worker", "run", "--", sys.executable, "-u", "-c", program)
    output, errors = worker.communicate(timeout=DEADLINE_SECONDS)
    assert worker.returncode == exit_code
    assert ("working" in output.splitlines()) is (status == "success")
    assert ("no luck" in errors) is ("no luck" in program)
    (outcome,) = server.outcomes
    assert (outcome["result"]["status"], outcome["result"].get("errorCode")) == (status, code)


def test_a_command_is_stopped_with_its_worker_and_that_is_reported(server: CallbackServer, workers: Workers) -> None:
    worker = workers.start("-m", "alakai_worker", "run", "--stop-seconds", "5", "--", "sleep", "60")
    until(lambda: server.claims, "it has claimed")
    time.sleep(0.5)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=DEADLINE_SECONDS)
    assert worker.returncode == 128 + signal.SIGTERM
    (outcome,) = server.outcomes
    assert outcome["result"]["errorMessage"] == "stopped by signal SIGTERM"


def test_the_example_command_does_its_work(server: CallbackServer, workers: Workers, repository: Path) -> None:
    worker = workers.start(
        "-m", "alakai_worker", "run", "--", sys.executable, str(repository / "examples" / "worker" / "work.py")
    )
    worker.communicate(timeout=DEADLINE_SECONDS)
    (outcome,) = server.outcomes
    assert outcome["result"] == {"status": "success", "pullRequestUrl": "https://github.com/my-org/my-repo/pull/2"}


def test_a_run_without_a_command_is_told_what_to_do(workers: Workers) -> None:
    worker = workers.start("-m", "alakai_worker", "run")
    _, errors = worker.communicate(timeout=DEADLINE_SECONDS)
    assert worker.returncode == 2
    assert "alakai-worker run -- python work.py" in errors
