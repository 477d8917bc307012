"""A secret in a file, which may be replaced while we run."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from executions.adapters.watched_file import WatchedFile
from executions.errors import InvalidSettings

_LARGEST = 8192


class SecretFile:
    """One line of printable text, as new as a second ago."""

    def __init__(self, path: Path, *, at_least: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InvalidSettings with one line that says what is wrong with the file, never what is in it."""
        self._file = WatchedFile(path, partial(_line, at_least=at_least), what="Secrets of channels", clock=clock)

    @property
    def text(self) -> str:
        return self._file.value


def _line(path: Path, *, at_least: int) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST + 1).strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InvalidSettings(f"the secret file {path} cannot be read: {why}") from None
    if not at_least <= len(text) <= _LARGEST:
        raise InvalidSettings(f"the secret file {path} must hold at least {at_least} characters")
    if not text.isascii() or not text.isprintable():
        raise InvalidSettings(f"the secret file {path} must hold one line of ASCII text")
    return text
