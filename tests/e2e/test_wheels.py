"""Both processes from their wheels, far from the checkout: no home, nothing to write to, as nobody in particular."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devstack.ports import free_port
from tests.e2e.installation import ROOT, STOP_SECONDS, Installation, message

USER = 65532
BUILD_SECONDS = 170
LEFT_OUT = ("HOME", "ALAKAI_LOCAL_WORKER_LOGS")
CODE_FOLDERS = ("api", "cli", "controller", "crds", "executions", "worker")
CODE_FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="alakai-wheels-"))
    folder.chmod(0o755)
    yield folder
    (folder / "empty").chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def python(place: Path) -> Path:
    """The interpreter of a fresh environment with both wheels and the locked dependencies, and nothing else."""
    source, wheels, venv = place / "source", place / "wheels", place / "venv"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "dist", "build")
    for name in CODE_FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in CODE_FILES:
        shutil.copy(ROOT / name, source)
    for project in (source, source / "worker"):
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, project)
    run(uv(), "venv", "--python", interpreter(place), venv)
    locked = ROOT / "requirements" / "run.txt"
    run(uv(), "pip", "install", "--python", venv / "bin" / "python", "--require-hashes", "-r", locked)
    run(uv(), "pip", "install", "--python", venv / "bin" / "python", "--no-deps", *sorted(wheels.glob("*.whl")))
    shutil.rmtree(source)
    return venv / "bin" / "python"


@pytest.mark.timeout(BUILD_SECONDS)
def test_the_wheels_run_a_task(python: Path, place: Path, installation: Installation) -> None:
    empty = place / "empty"
    empty.mkdir(mode=0o555)
    environ = {name: text for name, text in installation.env.items() if name not in LEFT_OUT}
    environ |= {"KUBECONFIG": str(readable_kubeconfig(installation, place)), "CONTROLLER_PORT": str(free_port())}
    processes = [start(python, name, environ, empty, place / f"{name}.log") for name in ("controller", "api")]
    try:
        installation.send(message("from-wheels"))
        deadline = time.monotonic() + 60
        while installation.status("from-wheels") != (1, "succeeded"):
            ended = [process.args for process in processes if process.poll() is not None]
            assert not ended, logs(place)
            assert time.monotonic() < deadline, logs(place)
            time.sleep(0.05)
        assert {psutil.Process(process.pid).uids().real for process in processes} == {user() or os.geteuid()}
        installation.kubectl("wait", "--for=condition=Succeeded", "execution/from-wheels", "--timeout=30s")
        for process in processes:
            process.terminate()
        assert [process.wait(STOP_SECONDS) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait(STOP_SECONDS)
    assert list(empty.iterdir()) == []
    if user():
        assert [path for path in place.rglob("*") if path.lstat().st_uid == USER] == []


def start(python: Path, name: str, environ: dict[str, str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [*as_a_container_would(), python, "-m", name],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def as_a_container_would() -> list[str]:
    """Begins a command that runs as the user, on a root that nobody can write to where the system lets us make one."""
    if not user():
        return []
    as_user = f"setpriv --reuid={USER} --regid={USER} --clear-groups"
    read_only = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    script = f'mount -o remount,bind,ro / && exec {as_user} "$@"'
    tried = subprocess.run([*read_only, script, "sh", "true"], capture_output=True)
    return [*read_only, script, "sh"] if tried.returncode == 0 else as_user.split()


def readable_kubeconfig(installation: Installation, place: Path) -> Path:
    """One that anybody may read and that names its certificate's file, as a pod's does: nothing has to be unpacked."""
    authority, path = place / "ca.crt", place / "kubeconfig"
    authority.write_text(installation.kube.certificate_authority)
    config = json.loads(installation.kube.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": installation.kube.url, "certificate-authority": str(authority)}
    path.write_text(json.dumps(config))
    return path


def interpreter(place: Path) -> Path:
    """One that the processes' user may run: this one, the system's, or a copy of this one."""
    own = Path(sys.executable).resolve()
    for found in (own, Path("/usr/local/bin/python3"), Path("/usr/bin/python3")):
        if may_run(found):
            return found
    copied = copy_of(own, place / "python")
    assert may_run(copied), f"user {USER} may not run {own}: have a Python that every user may run, or test as a user"
    return copied


def may_run(python: Path) -> bool:
    check = "import ssl, sys; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-I", "-c", check], cwd="/", user=user(), capture_output=True).returncode == 0
    except OSError:
        return False


def copy_of(python: Path, folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "test", "site-packages", "*.a")
    shutil.copytree(Path(sys.base_prefix) / "lib", folder / "lib", symlinks=True, ignore=ignored)
    (folder / "bin").mkdir()
    return Path(shutil.copy(python, folder / "bin"))


def user() -> int | None:
    """Whom the processes run as; only root can choose."""
    return USER if os.geteuid() == 0 else None


def uv() -> Path:
    return Path(sys.prefix) / "bin" / "uv"


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stderr


def logs(place: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(place.glob("*.log")))
