"""Work that is a command: given the task, watched, stopped when we are, and judged by its end and its result file.

What the command gets: the message in a file, hints and names in its environment, no token and no standard input. What
it may leave: a result file. Its output goes where ours goes, as it comes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from alakai_worker.client import Claimed
from alakai_worker.outcome import Outcome
from alakai_worker.redaction import sanitised
from alakai_worker.signals import Stopped

STOP_SECONDS = 20.0
"""How long a command may take to end after SIGTERM: less than the 30 s after which ECS and Kubernetes kill us."""
TEMPORARY_FAILURE = 75
"""EX_TEMPFAIL of sysexits.h: what a command exits with when trying again later may help."""
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_RESULT_LIMIT = 65_536
_TAIL_LINES = 5
_MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
_HINTS = {
    "codexTransientFallbackMode": "ALAKAI_CODEX_TRANSIENT_FALLBACK_MODE",
    "transientRetryNotBefore": "ALAKAI_TRANSIENT_RETRY_NOT_BEFORE",
}


class Command:
    """``alakai_worker.Work`` that runs a command in a process group of its own."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        stop_seconds: float = STOP_SECONDS,
        memory_events: Path = _MEMORY_EVENTS,
    ) -> None:
        self._arguments = list(arguments)
        self._environ = dict(os.environ if environ is None else environ)
        self._stop_seconds = stop_seconds
        self._memory_events = memory_events

    def __call__(self, claimed: Claimed) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="alakai-task-") as name:
            folder = Path(name)
            task, result = folder / "task.json", folder / "result.json"
            task.write_text(json.dumps(claimed.task), encoding="utf-8")
            kills_before = self._out_of_memory_kills()
            try:
                status, tail = self._run(self._environment(claimed, task, result))
            except FileNotFoundError:
                return _failure(f"there is no command {self._arguments[0]!r}", _NOT_FOUND)
            except OSError as error:
                return _failure(f"the command could not be started: {error.strerror}", _NOT_EXECUTABLE)
            ran_out_of_memory = status == -signal.SIGKILL and self._out_of_memory_kills() > kills_before
            return outcome_of(status, tail, _read(result), ran_out_of_memory=ran_out_of_memory)

    def _environment(self, claimed: Claimed, task: Path, result: Path) -> dict[str, str]:
        launch = claimed.launch
        hints = {variable: claimed.retry.get(name) for name, variable in _HINTS.items()}
        return {
            # The token proves the launch to the control plane: it is ours, and nobody's whom we start.
            **{name: value for name, value in self._environ.items() if name != "ALAKAI_CALLBACK_TOKEN"},
            "ALAKAI_TASK_ID": launch.task_id,
            "ALAKAI_ATTEMPT": str(launch.attempt),
            "ALAKAI_TRACE_ID": claimed.trace_id,
            "ALAKAI_TASK_FILE": str(task),
            "ALAKAI_RESULT_FILE": str(result),
            **{name: value for name, value in hints.items() if isinstance(value, str)},
        }

    def _run(self, environment: Mapping[str, str]) -> tuple[int, list[str]]:
        """Exit status (-n after signal n) and the last lines of standard error. Raises OSError, Stopped."""
        tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        with ThreadPoolExecutor(1) as pool:
            # In a thread, which no signal interrupts: a command that is half started would be left running.
            starting = pool.submit(self._start, environment, tail)
            try:
                process, pump = starting.result()
                status = process.wait()
            except Stopped:
                if starting.exception() is None:
                    self._end(starting.result()[0])
                raise
        pump.join(1.0)  # What the command left running may hold the pipe open; that is not waited for.
        return status, [line.decode("utf-8", "replace").strip() for line in tail]

    def _start(
        self, environment: Mapping[str, str], tail: deque[bytes]
    ) -> tuple[subprocess.Popen[bytes], threading.Thread]:
        """The command, and what passes its errors on."""
        process = subprocess.Popen(  # noqa: S603 - the command is what we are here for, and no shell reads it
            self._arguments,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None  # noqa: S101 - it was asked for
        pump = threading.Thread(target=_pass_on, args=(process.stderr, tail), daemon=True)
        pump.start()
        return process, pump

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the whole group to end; end by force what is there when its leader is gone or takes too long."""
        _signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            pass
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()

    def _out_of_memory_kills(self) -> int:
        """How often the kernel has killed a process of this container for its memory (cgroup v2); 0 when not known."""
        try:
            lines = self._memory_events.read_text().splitlines()
        except OSError:
            return 0
        counts = dict(line.split() for line in lines if len(line.split()) == 2)
        return int(counts.get("oom_kill", 0))


def outcome_of(
    status: int, tail: Sequence[str], result: Mapping[str, Any] | str | None, *, ran_out_of_memory: bool = False
) -> Outcome:
    """The outcome that an exit status and a result file make together.

    ``result`` is the file's document, a text that says what is wrong with it, or None without one. A success needs
    both: exit status 0, and no result that says otherwise.
    """
    document = result if isinstance(result, Mapping) else {}
    agent = document.get("agent") if isinstance(document.get("agent"), Mapping) else None
    if status == 0 and isinstance(result, str):
        return Outcome.failure(result, code="WORKER_FAILED")
    if status == 0 and document.get("status", "success") == "success":
        return Outcome.success(pull_request_url=_text(document, "pullRequestUrl"), agent=agent)
    family = "transient_upstream" if status == TEMPORARY_FAILURE else None
    code = "WORKER_OOM" if ran_out_of_memory else "TEMPORARY_FAILURE" if family else "WORKER_FAILED"
    not_before = document.get("retryNotBefore")
    return Outcome.failure(
        _text(document, "errorMessage") or _message(status, tail, ran_out_of_memory),
        code=_text(document, "errorCode") or code,
        family=_text(document, "errorFamily") or family,
        retry_not_before=not_before if isinstance(not_before, (str, int, float)) else None,
        agent=agent,
    )


def _message(status: int, tail: Sequence[str], ran_out_of_memory: bool) -> str:
    if ran_out_of_memory:
        end = "the command ran out of memory and was killed"
    elif status < 0:
        end = f"the command was killed by signal {_signal_name(-status)}"
    elif status == 0:
        end = "the command's result says that it failed"
    else:
        end = f"the command ended with exit status {status}"
    said = next((line for line in reversed(tail) if line), "")
    return f"{end}: {sanitised(said)}" if said else end


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _failure(message: str, status: int) -> Outcome:
    return Outcome.failure(f"{message} (exit status {status})", code="WORKER_FAILED")


def _read(path: Path) -> Mapping[str, Any] | str | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_RESULT_LIMIT + 1)
    except OSError:
        return None
    if len(raw) > _RESULT_LIMIT:
        return f"the result file is larger than {_RESULT_LIMIT} bytes"
    try:
        document = json.loads(raw)
    except ValueError:
        return "the result file is not JSON"
    return document if isinstance(document, dict) else "the result file holds no JSON object"


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) and value else None


def _signal_group(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return


def _pass_on(source: IO[bytes], tail: deque[bytes]) -> None:
    with source:
        for line in source:
            tail.append(line[:4096])
            try:
                os.write(2, line)
            except OSError:
                continue  # Nobody reads our output any more; the command is not to stop for that.
