"""Both processes from their wheels, far from the checkout: no home, nothing to write to, as nobody in particular."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devstack.ports import free_port
from tests.e2e.installation import STOP_SECONDS, Installation, message
from tests.support.wheels import BUILD_SECONDS, USER, install_wheels, open_place, start_as_user, user

LEFT_OUT = ("HOME", "ALAKAI_LOCAL_WORKER_LOGS")


@pytest.fixture
def place() -> Iterator[Path]:
    with open_place() as place:
        yield place


@pytest.fixture
def python(place: Path) -> Path:
    return install_wheels(place)


@pytest.mark.timeout(BUILD_SECONDS)
def test_the_wheels_run_a_task(python: Path, place: Path, installation: Installation) -> None:
    empty = place / "empty"
    environ = {name: text for name, text in installation.env.items() if name not in LEFT_OUT}
    environ |= {"KUBECONFIG": str(readable_kubeconfig(installation, place)), "CONTROLLER_PORT": str(free_port())}
    processes = [
        start_as_user(python, ("-m", name), environ, empty, place / f"{name}.log") for name in ("controller", "api")
    ]
    try:
        installation.send(message("from-wheels"))
        deadline = time.monotonic() + 60
        while installation.status("from-wheels") != (1, "succeeded"):
            ended = [process.args for process in processes if process.poll() is not None]
            assert not ended, logs(place)
            assert time.monotonic() < deadline, logs(place)
            time.sleep(0.05)
        page = installation.http.get(f"http://localhost:{installation.port}/dashboard/assets/app.js")
        assert page.status_code == 200
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


def readable_kubeconfig(installation: Installation, place: Path) -> Path:
    """One that anybody may read and that names its certificate's file, as a pod's does: nothing has to be unpacked."""
    authority, path = place / "ca.crt", place / "kubeconfig"
    authority.write_text(installation.kube.certificate_authority)
    config = json.loads(installation.kube.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": installation.kube.url, "certificate-authority": str(authority)}
    path.write_text(json.dumps(config))
    return path


def logs(place: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(place.glob("*.log")))
