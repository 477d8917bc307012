"""A file that may change while we run: a mounted Secret is replaced in place.

A file that cannot be used stops start-up; later it is told in one line and what is known stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from executions.errors import InvalidSettings

T = TypeVar("T")
_LOOK_AGAIN_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class WatchedFile(Generic[T]):
    """What ``read`` makes of a file, as new as a second ago. Reading it is a look at a small file in memory.

    ``read`` raises InvalidSettings with one line that says what is wrong with the file, never what is in it; so does
    the constructor. ``what`` begins the lines that are logged (``The callback keys``), ``about`` says in them what is
    known and no secret.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], T],
        *,
        what: str,
        about: Callable[[T], Mapping[str, object]] = lambda _: {},
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._read = read
        self._what = what
        self._about = about
        self._clock = clock
        self._looked_at = clock()
        self._version = self._found_version()
        self._value = read(path)

    @property
    def value(self) -> T:
        if self._clock() - self._looked_at >= _LOOK_AGAIN_SECONDS:
            self._looked_at = self._clock()
            self._reload()
        return self._value

    def _reload(self) -> None:
        version = self._found_version()
        if version == self._version:
            return
        self._version = version
        try:
            self._value = self._read(self._path)
        except InvalidSettings as error:
            _log.error(f"{self._what} were not reloaded; what is known stays", reason=str(error))
        else:
            _log.info(f"{self._what} were reloaded", file=self._path.name, **self._about(self._value))

    def _found_version(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
