"""Programs under measurement, and servers that stand in for others: children, ended by their own handle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from bench.errors import BenchError

ROOT = Path(__file__).parent.parent
STOP_SECONDS = 20.0
_LOG_LINES_SHOWN = 6
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "JAVA_HOME")
"""Nothing else of the user's environment: it may name their own Redis, queue and cluster."""


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this project."""
    return [sys.executable, "-m", module, *arguments]


class Child:
    """One process in the project's folder, its output in `log`. Ended with the `with` block."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self.started = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | dict(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is not meant for it
            )
        self._info = psutil.Process(self._process.pid)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def tell(self, line: str) -> None:
        """Write one line to its standard input. Raises BenchError when it is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise BenchError(self._ended()) from error

    def require_running(self) -> None:
        """Raises BenchError with the end of its log when it is gone."""
        if self._process.poll() is not None:
            raise BenchError(self._ended())

    @property
    def rss_bytes(self) -> int:
        """Resident memory now."""
        self.require_running()
        return int(self._info.memory_info().rss)

    @property
    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        self.require_running()
        times = self._info.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_SECONDS)
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def _ended(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return "\n  ".join(["a process of the benchmark ended, the end of its log:", *(line[:300] for line in lines)])
