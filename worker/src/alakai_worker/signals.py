"""SIGTERM and SIGINT: they interrupt the work, and never the report of its outcome.

A worker that is told to stop still says so to the control plane; who cannot wait for that kills it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_CAUGHT = (signal.SIGTERM, signal.SIGINT)


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

    def __enter__(self) -> Signals:
        self._previous = {number: signal.signal(number, self._handle) for number in _CAUGHT}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise Stopped when a signal has come."""
        if self._received is not None:
            raise Stopped(self._received)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Inside, a signal raises Stopped; one that came before raises it at once."""
        self.check()
        self._raising = True
        try:
            yield
        finally:
            self._raising = False

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        self._received = self._received or signum
        if self._raising:
            # Once: a second signal must not tear down what the first one's handling does.
            self._raising = False
            raise Stopped(signum)
