"""The folder of binaries that are built or fetched once per user and shared by all clones.

An entry is complete or absent: it is made under a temporary name and renamed, so an interrupted build leaves nothing
half-made, and a lock file keeps two runs from building the same thing at once. This module never decides where
a binary comes from; that is `binaries`.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.console import say

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def cache_root() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/alakai`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alakai"


def platform_name() -> str:
    """`linux-amd64`, `darwin-arm64`: the names Go and its release archives use."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{ARCHITECTURES.get(machine, machine)}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder of the cache: `<name>-<version>-<os>-<arch>`, complete when every one of `files` is executable."""

    name: str
    version: str
    files: tuple[str, ...]

    @property
    def path(self) -> Path:
        return cache_root() / f"{self.name}-{self.version}-{platform_name()}"

    @property
    def is_complete(self) -> bool:
        return not missing_executables(self.path, self.files)

    def executables(self) -> dict[str, Path]:
        """Base name → path, for every file of a complete entry."""
        return {Path(file).name: self.path / file for file in self.files}

    def fill(self, make: Callable[[Path], None]) -> dict[str, Path]:
        """Return the executables, calling `make(folder)` first when the entry is not there yet.

        Raises what `make` raises, with nothing left behind, and FileNotFoundError when it made too little.
        """
        cache_root().mkdir(parents=True, exist_ok=True)
        with _locked(cache_root() / f".{self.path.name}.lock", self.name):
            if not self.is_complete:
                self._make(make)
        return self.executables()

    def _make(self, make: Callable[[Path], None]) -> None:
        prefix = f".{self.path.name}.partial-"
        for leftover in cache_root().glob(f"{prefix}*"):  # of a build that was killed: we hold the lock, so it is dead
            remove_tree(leftover)
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=cache_root()))
        try:
            make(partial)
            if missing := missing_executables(partial, self.files):
                raise FileNotFoundError(f"{self.name} {self.version} came without {', '.join(missing)}")
            remove_tree(self.path)  # an entry that lost a file
            partial.chmod(0o755)
            partial.rename(self.path)
        finally:
            remove_tree(partial)


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, for what is no executable: made by `make(folder)` when it is not there yet.

    Raises what `make` raises, with nothing left behind.
    """
    folder = cache_root() / name
    cache_root().mkdir(parents=True, exist_ok=True)
    with _locked(cache_root() / f".{name}.lock", name):
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix=f".{name}.partial-", dir=cache_root()) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                make(made)
                made.rename(folder)
    return folder


def missing_executables(folder: Path, files: tuple[str, ...]) -> list[str]:
    """The ones of `files` that are not executable files below `folder`."""
    return [file for file in files if not ((folder / file).is_file() and os.access(folder / file, os.X_OK))]


def remove_tree(folder: Path) -> None:
    """Remove a folder that may be absent."""
    if folder.exists():
        shutil.rmtree(folder)


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another run is getting {name} ready; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the lock ends with the file handle, also when the process is killed
