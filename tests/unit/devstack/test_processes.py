"""Pid files: only the recorded process is ever signalled, and what was started is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devstack.errors import DevstackError, StartFailed
from devstack.processes import Daemon

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon("thing", tmp_path / "state")
    yield daemon
    daemon.stop(grace_seconds=0.1)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else."""
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def record(daemon: Daemon, **values: object) -> None:
    daemon.folder.mkdir(parents=True, exist_ok=True)
    daemon.pid_file.write_text(json.dumps(values))


def test_a_started_process_is_found_again_and_ended(daemon: Daemon) -> None:
    daemon.start(SLEEP, port=1234)
    again = Daemon("thing", daemon.folder)
    assert again.is_running
    assert again.port == 1234
    process = again.process()
    assert process is not None
    assert again.stop() is True
    assert not process.is_running()
    assert not daemon.pid_file.exists()
    assert again.stop() is False


def test_a_reused_pid_is_never_signalled(daemon: Daemon, stranger: subprocess.Popen[bytes]) -> None:
    record(daemon, pid=stranger.pid, started=psutil.Process(stranger.pid).create_time() - 3600, port=1)
    assert not daemon.is_running
    daemon.kill()
    assert daemon.stop() is False
    assert stranger.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "12", '{"pid": "1", "started": 0}', '{"pid": 1}', '{"started": 1.0}'])
def test_a_damaged_pid_file_signals_nobody(text: str, daemon: Daemon) -> None:
    daemon.folder.mkdir()
    daemon.pid_file.write_text(text)
    assert not daemon.is_running
    assert daemon.stop() is False


def test_a_crash_keeps_the_port_for_the_next_start(daemon: Daemon) -> None:
    daemon.start(SLEEP, port=4321)
    daemon.kill()
    assert not daemon.is_running
    assert daemon.port == 4321


def test_a_second_start_is_refused_while_the_first_runs(daemon: Daemon) -> None:
    daemon.start(SLEEP, port=1)
    first = daemon.process()
    with pytest.raises(DevstackError, match="thing already runs on port 1"):
        daemon.start(SLEEP, port=2)
    assert daemon.process() == first


def test_adopting_on_another_port_says_what_to_do(daemon: Daemon) -> None:
    assert daemon.adopt(7) is False
    daemon.start(SLEEP, port=1)
    assert daemon.adopt(None) is True
    assert daemon.adopt(1) is True
    with pytest.raises(DevstackError, match="thing already runs on port 1; `make down` first to have it on 7"):
        daemon.adopt(7)


def test_one_that_stops_while_starting_shows_the_end_of_its_log(daemon: Daemon) -> None:
    daemon.start([sys.executable, "-c", "print('bad flag --x'); raise SystemExit(3)"], port=1)
    with pytest.raises(StartFailed, match=r"thing stopped while starting(.|\n)*bad flag --x"):
        daemon.wait_until(lambda: False)


def test_one_that_is_never_ready_is_ended(daemon: Daemon) -> None:
    daemon.start(SLEEP, port=1)
    with pytest.raises(StartFailed, match="thing was not ready after 0 s"):
        daemon.wait_until(lambda: False, timeout_seconds=0.2)
    assert not daemon.is_running


def test_one_that_ignores_the_polite_signal_is_ended_by_force(daemon: Daemon, tmp_path: Path) -> None:
    deaf = f"import signal, time, pathlib; signal.signal({signal.SIGTERM.value}, signal.SIG_IGN); "
    daemon.start(
        [sys.executable, "-c", f"{deaf}pathlib.Path({str(tmp_path / 'deaf')!r}).touch(); time.sleep(60)"], port=1
    )
    daemon.wait_until((tmp_path / "deaf").exists)
    started = time.monotonic()
    assert daemon.stop(grace_seconds=0.2) is True
    assert time.monotonic() - started < 10
    assert not daemon.is_running


def test_ctrl_c_in_the_terminal_does_not_reach_it(daemon: Daemon) -> None:
    daemon.start(SLEEP, port=1)
    process = daemon.process()
    assert process is not None
    assert os.getpgid(process.pid) != os.getpgid(0)
