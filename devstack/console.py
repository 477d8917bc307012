"""What the stack tells the person who waits for it. Goes to stderr, so that stdout stays for results."""

from __future__ import annotations

import sys
import time

LINE_INTERVAL_SECONDS = 10.0


def say(line: str) -> None:
    """Print one line at once, so that it is on the screen before the wait it announces."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """A counter that redraws one line on a terminal and prints a line now and then in a log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()
        self._printed = self._started
        self._redraw = sys.stderr.isatty()

    def show(self, done: str) -> None:
        """Tell how far it is; `done` is for people, such as `310 of 1,204 packages`."""
        now = time.monotonic()
        if self._redraw:
            print(f"\r\033[K  {self._what}: {done}, {now - self._started:.0f} s", end="", file=sys.stderr, flush=True)
        elif now - self._printed >= LINE_INTERVAL_SECONDS:
            self._printed = now
            say(f"  {self._what}: {done}, {now - self._started:.0f} s")

    def end(self) -> None:
        """Leave the line, so that the next message begins on its own."""
        if self._redraw:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
