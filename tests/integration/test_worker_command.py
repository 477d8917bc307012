"""A command as the work: what it is given, how it ends, and what that says."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from alakai_worker import Claimed
from alakai_worker.command import Command
from alakai_worker.launch import Launch
from alakai_worker.outcome import Outcome
from alakai_worker.signals import Signals, Stopped

from tests.support.builders import task_document

LAUNCH = Launch(
    "task-1", 2, 1, "http://localhost/task-claim", "http://localhost/task-complete", "trace-1", token="t0ken"
)
HINTS = {"codexTransientFallbackMode": "fresh_session", "transientRetryNotBefore": "2026-01-01T00:00:00.000Z"}
TELL = """
import json, os, pathlib, sys
task = json.loads(pathlib.Path(os.environ["ALAKAI_TASK_FILE"]).read_text())
known = {name: text for name, text in os.environ.items() if name.startswith("ALAKAI_")}
assert sys.stdin.read() == ""
pathlib.Path(sys.argv[1]).write_text(json.dumps({"task": task, "environment": known}))
"""


def run(*arguments: str, retry: dict[str, Any] | None = None, **options: Any) -> Outcome:
    claimed = Claimed(LAUNCH, task_document(), "trace-upstream", retry or {})
    environ = {"PATH": os.environ["PATH"], "ALAKAI_CALLBACK_TOKEN": "t0ken"}
    return Command(arguments, environ=environ, **options)(claimed)


def python(program: str, *arguments: str, **options: Any) -> Outcome:
    return run(sys.executable, "-c", program, *arguments, **options)


def test_the_command_gets_the_task_the_names_and_the_hints_and_no_token(tmp_path: Path) -> None:
    assert python(TELL, str(tmp_path / "told"), retry=HINTS).succeeded
    told = json.loads((tmp_path / "told").read_text())
    assert told["task"] == task_document()
    environment = told["environment"]
    assert environment.pop("ALAKAI_TASK_FILE") != environment.pop("ALAKAI_RESULT_FILE")
    assert environment == {
        "ALAKAI_TASK_ID": "task-1",
        "ALAKAI_ATTEMPT": "2",
        "ALAKAI_TRACE_ID": "trace-upstream",
        "ALAKAI_CODEX_TRANSIENT_FALLBACK_MODE": "fresh_session",
        "ALAKAI_TRANSIENT_RETRY_NOT_BEFORE": "2026-01-01T00:00:00.000Z",
    }


def test_nothing_of_the_task_is_left_behind(tmp_path: Path) -> None:
    program = "import os, sys, pathlib; pathlib.Path(sys.argv[1]).write_text(os.environ['ALAKAI_TASK_FILE'])"
    assert python(program, str(tmp_path / "where")).succeeded
    assert not Path((tmp_path / "where").read_text()).parent.exists()


@pytest.mark.parametrize(
    ("program", "message", "code", "family"),
    [
        ("import sys; sys.exit('no luck')", "the command ended with exit status 1: no luck", "WORKER_FAILED", None),
        ("import sys; sys.exit(3)", "the command ended with exit status 3", "WORKER_FAILED", None),
        (
            "import sys; sys.exit(75)",
            "the command ended with exit status 75",
            "TEMPORARY_FAILURE",
            "transient_upstream",
        ),
        (
            "import os; os.kill(os.getpid(), 9)",
            "the command was killed by signal SIGKILL",
            "WORKER_FAILED",
            None,
        ),
        (
            "import sys; sys.stderr.write('token=hush-hush\\n'); sys.exit(1)",
            "the command ended with exit status 1: token=***",
            "WORKER_FAILED",
            None,
        ),
        (
            "import os, sys; os.write(2, b'\\xff\\xfe\\n'); sys.exit(1)",
            "the command ended with exit status 1: \ufffd\ufffd",
            "WORKER_FAILED",
            None,
        ),
    ],
)
def test_how_it_ends_is_the_outcome(program: str, message: str, code: str, family: str | None) -> None:
    outcome = python(program)
    assert (outcome.succeeded, outcome.error_message) == (False, message)
    assert (outcome.error_code, outcome.error_family) == (code, family)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no-such-command-anywhere",), "there is no command 'no-such-command-anywhere' (exit status 127)"),
        (("/etc/passwd",), "the command could not be started: Permission denied (exit status 126)"),
    ],
)
def test_a_command_that_cannot_be_started(arguments: tuple[str, ...], message: str) -> None:
    outcome = run(*arguments)
    assert (outcome.succeeded, outcome.error_message, outcome.error_code) == (False, message, "WORKER_FAILED")


def test_a_kill_for_want_of_memory_is_told_apart(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom_kill 4\n")
    program = "import os, sys, pathlib; pathlib.Path(sys.argv[1]).write_text('oom_kill 5'); os.kill(os.getpid(), 9)"
    outcome = python(program, str(events), memory_events=events)
    assert outcome.error_code == "WORKER_OOM"
    assert python("import os; os.kill(os.getpid(), 9)", memory_events=events).error_code == "WORKER_FAILED"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("'[1]'", "the result file holds no JSON object"),
        ("'{'", "the result file is not JSON"),
        ("'x' * 70000", "the result file is larger than 65536 bytes"),
    ],
)
def test_a_result_file_that_makes_no_sense_is_no_success(content: str, message: str) -> None:
    program = f"import os, pathlib; pathlib.Path(os.environ['ALAKAI_RESULT_FILE']).write_text({content})"
    assert python(program).error_message == message


IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN);"


@pytest.mark.parametrize(
    ("outer", "inner", "seconds"),
    [
        pytest.param("", "", 5.0, id="both end when they are asked to"),
        pytest.param(IGNORE, IGNORE, 0.3, id="both ignore it"),
        pytest.param("", IGNORE, 5.0, id="what the command started ignores it"),
    ],
)
def test_a_stop_ends_the_whole_group_and_by_force_what_ignores_it(
    tmp_path: Path, outer: str, inner: str, seconds: float
) -> None:
    inner = f"import signal, time; {inner} time.sleep(60)"
    program = (
        f"import pathlib, signal, subprocess, sys, time; {outer}"
        f"child = subprocess.Popen([sys.executable, '-c', {inner!r}]);"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(60)"
    )
    pid_file = tmp_path / "pid"

    def stop() -> None:
        while not pid_file.exists() or not pid_file.read_text():
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with Signals() as signals, pytest.raises(Stopped), signals.raised():
        python(program, str(pid_file), stop_seconds=seconds)
    thread.join()
    inner_pid = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while is_running(inner_pid):
        assert time.monotonic() < deadline, "what the command started runs on"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
