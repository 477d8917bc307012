"""Where something comes from, as an ordered tuple of rungs: the first that works wins.

A rung raises `Missed` with a reason and the next one is tried; when none works, one error lists them all. This module
knows no binary and no network; the table of rungs is `binaries`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devstack.console import say
from devstack.errors import NothingFound


class Missed(Exception):
    """A rung does not have it; the message is the reason, for people."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One place to look: `find` returns base name → path of every binary wanted, or raises `Missed`."""

    name: str
    find: Callable[[], dict[str, Path]]


@dataclass(frozen=True, slots=True)
class Ladder:
    """How to get one group of binaries; `advice` ends the error when every rung missed."""

    what: str
    rungs: tuple[Rung, ...]
    advice: str

    def climb(self) -> dict[str, Path]:
        """Return the binaries of the first rung that has them, and say which one it was. Raises NothingFound."""
        misses: list[str] = []
        for rung in self.rungs:
            try:
                found = rung.find()
            except Missed as miss:
                misses.append(f"{rung.name}: {miss}")
                continue
            _say_once(f"{self.what}: {rung.name}")
            return found
        tried = "".join(f"\n  - {miss}" for miss in misses)
        raise NothingFound(f"no {self.what} could be had. {self.advice} Tried:{tried}")


@functools.cache
def _say_once(line: str) -> None:
    say(line)
