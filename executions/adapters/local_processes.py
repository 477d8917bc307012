"""Worker processes of this machine, found by the launch token in their arguments. The process table is the registry:
whoever looks sees the same, also a controller that started after the one which started the workers.

Every function blocks and is called in a thread. What the answers mean is said in ``local_launcher``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

_PROGRAM = "alakai_worker"
_TOKEN_FLAG = "--launch-token"  # noqa: S105 - the name of an argument
_EXIT_CODES_KEPT = 10_000

_lock = threading.Lock()
_children: list[tuple[str, subprocess.Popen[bytes]]] = []
"""Started by this process, with their launch tokens. They may outlive the launcher object that started them."""
_exit_codes: dict[str, int] = {}


def start(scenario: str, token: str, environment: Mapping[str, str], log: Path | None) -> None:
    """Start a worker in a session of its own, so that it outlives us. Raises OSError, ValueError.

    Its output goes to ``log``, else to our standard error.
    """
    # -P: the folder we happen to run in must not shadow the worker's modules.
    command = [sys.executable, "-P", "-m", _PROGRAM, "scenario", scenario, _TOKEN_FLAG, token]
    output = 2 if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(  # noqa: S603 - our own program, no shell
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    finally:
        if log is not None:
            os.close(output)
    with _lock:
        _children.append((token, child))


def live_workers() -> dict[str, list[int]]:
    """Pids by launch token. A zombie has no arguments and is not among them. Raises psutil.Error, OSError."""
    reap()
    found: dict[str, list[int]] = {}
    for process in psutil.process_iter(["cmdline"]):
        token = _token_in(process.info["cmdline"] or ())
        if token is not None:
            found.setdefault(token, []).append(process.pid)
    with _lock:
        # For some microseconds after its start a process has no arguments yet.
        for token, child in _children:
            if child.pid not in found.get(token, ()):
                found.setdefault(token, []).append(child.pid)
    return found


def environments() -> dict[str, dict[str, str]]:
    """The environment of each live worker that may be looked at, by launch token. Raises psutil.Error, OSError."""
    found: dict[str, dict[str, str]] = {}
    for token, pids in live_workers().items():
        try:
            found[token] = psutil.Process(pids[0]).environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def send(number: signal.Signals, token: str, pids: Iterable[int]) -> None:
    """Signal the process groups that the workers lead; those that are gone, or not ours to signal, are passed over."""
    for pid in pids:
        try:
            # Looked at once more: the pid may have been given to another process since.
            if _token_in(psutil.Process(pid).cmdline()) == token and os.getpgid(pid) == pid:
                os.killpg(pid, number)
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue


def reap() -> None:
    """Take the exit codes of our ended children, so that none stays a zombie."""
    with _lock:
        for token, child in list(_children):
            code = child.poll()
            if code is None:
                continue
            _children.remove((token, child))
            # The first one's code counts: a later process of the same launch was only refused at its claim.
            _exit_codes.setdefault(token, 128 - code if code < 0 else code)
        while len(_exit_codes) > _EXIT_CODES_KEPT:
            del _exit_codes[next(iter(_exit_codes))]


def exit_code(token: str) -> int | None:
    """How the worker of a launch ended, where we are its parent: 128 + n after signal n."""
    return _exit_codes.get(token)


def _token_in(arguments: Sequence[str]) -> str | None:
    if _PROGRAM not in arguments or _TOKEN_FLAG not in arguments[:-1]:
        return None
    return arguments[arguments.index(_TOKEN_FLAG) + 1]
