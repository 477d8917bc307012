"""A secret in a file that may change while we run: a mounted Secret is replaced in place.

A file that cannot be used stops start-up; later it is told in one line and the secret that is known stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from executions.errors import InvalidSettings

_LOOK_AGAIN_SECONDS = 1.0
_LARGEST = 8192
_log = structlog.get_logger(__name__)


class SecretFile:
    """One line of printable text, as new as a second ago. Reading it is a look at a small file in memory."""

    def __init__(self, path: Path, *, at_least: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InvalidSettings with one line that says what is wrong with the file, never what is in it."""
        self._path = path
        self._at_least = at_least
        self._clock = clock
        self._looked_at = clock()
        self._version = self._found_version()
        self._text = self._read()

    @property
    def text(self) -> str:
        if self._clock() - self._looked_at >= _LOOK_AGAIN_SECONDS:
            self._looked_at = self._clock()
            self._reload()
        return self._text

    def _reload(self) -> None:
        version = self._found_version()
        if version == self._version:
            return
        self._version = version
        try:
            self._text = self._read()
        except InvalidSettings as error:
            _log.error("A secret was not reloaded; the one that is known stays", reason=str(error))
        else:
            _log.info("A secret was reloaded", file=self._path.name)

    def _read(self) -> str:
        try:
            with self._path.open(encoding="utf-8") as file:
                text = file.read(_LARGEST + 1).strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InvalidSettings(f"the secret file {self._path} cannot be read: {why}") from None
        if not self._at_least <= len(text) <= _LARGEST:
            raise InvalidSettings(f"the secret file {self._path} must hold at least {self._at_least} characters")
        if not text.isascii() or not text.isprintable():
            raise InvalidSettings(f"the secret file {self._path} must hold one line of ASCII text")
        return text

    def _found_version(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
