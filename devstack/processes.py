"""Background processes that outlive the command that started them and are found again by a pid file.

A pid file holds pid, start time and port. A process is only ever signalled when its start time is the recorded one, so
that a pid which the system has given to somebody else is left alone. Nothing here knows what it runs; the components
do (`kubernetes`, `redis`, `aws`).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from devstack.errors import DevstackError, StartFailed
from devstack.ports import free_port, require_free

START_TIMEOUT_SECONDS = 90.0
STOP_GRACE_SECONDS = 20.0
KILL_TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.05
CLOCK_TOLERANCE_SECONDS = 2.0  # start times are derived from the wall clock, which may be corrected meanwhile
LOG_LINES_SHOWN = 6

_children: dict[int, subprocess.Popen[bytes]] = {}  # kept to reap those that this very process started


@dataclass(frozen=True, slots=True)
class Daemon:
    """One process of one data folder: `<folder>/<name>.pid` and `<folder>/<name>.log`."""

    name: str
    folder: Path

    @property
    def pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def port(self) -> int | None:
        """The recorded port; it stays after a crash, so that the process comes back where its clients look."""
        port = self._record().get("port")
        return port if isinstance(port, int) else None

    def process(self) -> psutil.Process | None:
        """The recorded process if it still runs, else None: also when its pid now belongs to another process."""
        record = self._record()
        pid, started = record.get("pid"), record.get("started")
        if not isinstance(pid, int) or not isinstance(started, int | float):
            return None
        if (child := _children.get(pid)) is not None and child.poll() is not None:
            del _children[pid]
        try:
            process = psutil.Process(pid)
            same = abs(process.create_time() - started) <= CLOCK_TOLERANCE_SECONDS
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    @property
    def is_running(self) -> bool:
        return self.process() is not None

    def choose_port(self, wanted: int | None) -> int:
        """The port to start on: the wanted one, else the one it had, else a free one. Raises PortTaken."""
        if port := wanted or self.port:
            require_free(port)
            return port
        return free_port()

    def adopt(self, wanted: int | None) -> bool:
        """Whether it runs already. Raises DevstackError when it does so on another port than the wanted one."""
        if not self.is_running:
            return False
        if wanted and wanted != self.port:
            raise DevstackError(
                f"{self.name} already runs on port {self.port}; `make down` first to have it on {wanted}"
            )
        return True

    def start(self, command: Sequence[str | Path], *, port: int, environ: Mapping[str, str] | None = None) -> None:
        """Run `command` detached from the terminal, its output in `log`, and record it."""
        if self.is_running:  # a second one would make us forget the pid of the first
            raise DevstackError(f"{self.name} already runs on port {self.port}")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            child = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | dict(environ or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is not meant for it
            )
        _children[child.pid] = child
        record = {"pid": child.pid, "started": psutil.Process(child.pid).create_time(), "port": port}
        partial = self.pid_file.with_suffix(".partial")
        partial.write_text(json.dumps(record))
        partial.rename(self.pid_file)

    def wait_until(self, is_ready: Callable[[], bool], timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Return once `is_ready()`; raise StartFailed with the end of the log when it stops or takes too long.

        One that takes too long is ended, so that the next start begins afresh.
        """
        deadline = time.monotonic() + timeout_seconds
        while not is_ready():
            if not self.is_running:
                raise StartFailed(f"{self.name} stopped while starting; {self._log_end()}")
            if time.monotonic() > deadline:
                self.kill()
                raise StartFailed(f"{self.name} was not ready after {timeout_seconds:.0f} s; {self._log_end()}")
            time.sleep(POLL_SECONDS)

    def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> bool:
        """End it, by force after the grace period, and forget it. Returns whether it ran."""
        ended = self._end(psutil.Process.terminate, grace_seconds)
        ended = ended or self._end(psutil.Process.kill, KILL_TIMEOUT_SECONDS)
        if self.is_running:
            raise DevstackError(f"{self.name} (pid {self._record().get('pid')}) cannot be ended")
        self.pid_file.unlink(missing_ok=True)
        return ended

    def kill(self) -> None:
        """End it as a crash would; the record stays, so it comes back on its port and with its data."""
        self._end(psutil.Process.kill, KILL_TIMEOUT_SECONDS)

    def _end(self, signal: Callable[[psutil.Process], Any], timeout_seconds: float) -> bool:
        """Signal it and wait. Whether it ran and is gone now."""
        process = self.process()
        if process is None:
            return False
        try:
            signal(process)
            process.wait(timeout_seconds)
        except psutil.NoSuchProcess:
            pass
        except psutil.TimeoutExpired:
            pass  # it may have ended and only wait for its heir to reap it
        return self.process() is None

    def _record(self) -> dict[str, object]:
        try:
            record = json.loads(self.pid_file.read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _log_end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return f"the end of {self.log}:" + "".join(f"\n  {line[:300]}" for line in lines[-LOG_LINES_SHOWN:])
