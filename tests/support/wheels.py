"""Both processes from their wheels, far from the checkout, as the user of the images on a root that is read-only.

So the wheels are tried as an image would hold them, without a container engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
USER = 65532
BUILD_SECONDS = 170
_CODE_FOLDERS = ("api", "cli", "controller", "crds", "executions", "worker")
_CODE_FILES = ("pyproject.toml", "README.md", "LICENSE")


@contextmanager
def open_place() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not; in it an empty one that nobody may write to."""
    folder = Path(tempfile.mkdtemp(prefix="alakai-wheels-"))
    folder.chmod(0o755)
    (folder / "empty").mkdir(mode=0o555)
    try:
        yield folder
    finally:
        (folder / "empty").chmod(0o755)
        shutil.rmtree(folder)


def install_wheels(place: Path) -> Path:
    """The interpreter of a fresh environment with both wheels and the locked dependencies, and nothing else."""
    source, wheels, venv = place / "source", place / "wheels", place / "venv"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "dist", "build")
    for name in _CODE_FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in _CODE_FILES:
        shutil.copy(ROOT / name, source)
    for project in (source, source / "worker"):
        _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, project)
    _run(_uv(), "venv", "--python", _interpreter(place), venv)
    locked = ROOT / "requirements" / "run.txt"
    _run(_uv(), "pip", "install", "--python", venv / "bin" / "python", "--require-hashes", "-r", locked)
    _run(_uv(), "pip", "install", "--python", venv / "bin" / "python", "--no-deps", *sorted(wheels.glob("*.whl")))
    shutil.rmtree(source)
    return venv / "bin" / "python"


def start_as_user(
    python: Path, arguments: Sequence[str], environ: Mapping[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Run the interpreter as the images' user, where we may choose, in ``folder``."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [*_as_a_container_would(), python, *arguments],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _as_a_container_would() -> list[str]:
    """Begins a command that runs as the user, on a root that nobody can write to where the system lets us make one."""
    if not user():
        return []
    as_user = f"setpriv --reuid={USER} --regid={USER} --clear-groups"
    read_only = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    script = f'mount -o remount,bind,ro / && exec {as_user} "$@"'
    tried = subprocess.run([*read_only, script, "sh", "true"], capture_output=True)
    return [*read_only, script, "sh"] if tried.returncode == 0 else as_user.split()


def _interpreter(place: Path) -> Path:
    """One that the processes' user may run: this one, the system's, or a copy of this one."""
    own = Path(sys.executable).resolve()
    for found in (own, Path("/usr/local/bin/python3"), Path("/usr/bin/python3")):
        if _may_run(found):
            return found
    copied = _copy_of(own, place / "python")
    assert _may_run(copied), f"user {USER} may not run {own}: have a Python that every user may run, or test as a user"
    return copied


def _may_run(python: Path) -> bool:
    check = "import ssl, sys; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-I", "-c", check], cwd="/", user=user(), capture_output=True).returncode == 0
    except OSError:
        return False


def _copy_of(python: Path, folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "test", "site-packages", "*.a")
    shutil.copytree(Path(sys.base_prefix) / "lib", folder / "lib", symlinks=True, ignore=ignored)
    (folder / "bin").mkdir()
    return Path(shutil.copy(python, folder / "bin"))


def user() -> int | None:
    """Whom the processes run as; only root can choose."""
    return USER if os.geteuid() == 0 else None


def _uv() -> Path:
    return Path(sys.prefix) / "bin" / "uv"


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stderr
