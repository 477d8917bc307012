"""SIGTERM and SIGINT: they interrupt the work, and never the report of its outcome.

A worker that is told to stop still says so to the control plane; who cannot wait for that kills it.

Python runs a handler between two of its instructions. A signal that comes after the last of them before a blocking call
is noted, and its handler runs when the call ends, which for a command may be hours later. So a thread, told of each
signal by Python's wake-up descriptor, sends it to the main thread again until the handler has run: that interrupts
the call.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_CAUGHT = (signal.SIGTERM, signal.SIGINT)
_SEND_AGAIN_SECONDS = 0.1


class Stopped(BaseException):
    """Raised in the work when the process is told to stop. No Exception, so that ``except Exception`` lets it pass."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class Signals:
    """While entered, holds the handlers; must be entered in the main thread."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._raising = False
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1
        self._wakeup: socket.socket | None = None

    def __enter__(self) -> Signals:
        arrived, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._send_again, args=(arrived,), name="signals", daemon=True).start()
        self._previous = {number: signal.signal(number, self._handle) for number in _CAUGHT}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        if self._wakeup is not None:
            self._wakeup.close()

    def check(self) -> None:
        """Raise Stopped when a signal has come."""
        if self._received is not None:
            raise Stopped(self._received)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Inside, a signal raises Stopped; one that came before raises it at once."""
        self._raising = True
        try:
            self.check()
            yield
        finally:
            self._raising = False

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        self._received = self._received or signum
        if self._raising:
            # Once: a second signal must not tear down what the first one's handling does.
            self._raising = False
            raise Stopped(signum)

    def _send_again(self, arrived: socket.socket) -> None:
        main = threading.main_thread().ident
        with arrived:
            while numbers := arrived.recv(64):
                time.sleep(_SEND_AGAIN_SECONDS)
                if self._received is None and main is not None and numbers[-1] in _CAUGHT:
                    signal.pthread_kill(main, numbers[-1])
