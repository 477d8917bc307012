"""Real workers for the pods of kwok's node, which only count as running: each gets a process, whose end is the pod's.

What a process gets is the environment of the pod's container and nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devstack.kubernetes import ControlPlane

ROOT = Path(__file__).parents[2]
_LOOK_SECONDS = 0.1


class PodRunner(AbstractContextManager["PodRunner"]):
    """Looks after the pods of one namespace, on a thread of its own. Logs go to ``TASK.ATTEMPT.TRY.log``."""

    def __init__(self, kube: ControlPlane, namespace: str, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._kubectl = [kube.kubectl, "--kubeconfig", kube.kubeconfig, "--namespace", namespace]
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._told: set[str] = set()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pod-runner", daemon=True)
        self._thread.start()

    @property
    def started(self) -> int:
        """How many workers have been started so far."""
        return len(self._processes)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)
        for process in self._processes.values():
            process.kill()
            process.wait()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._ended.wait(_LOOK_SECONDS):
                for pod in json.loads(self._call("get", "pods", "--output=json"))["items"]:
                    self._look_after(pod)
        except BaseException as error:  # told to the test at the end
            self._failure = error

    def _look_after(self, pod: dict[str, Any]) -> None:
        name, uid, phase = pod["metadata"]["name"], pod["metadata"]["uid"], pod["status"].get("phase")
        process = self._processes.get(uid)
        if process is None and phase == "Running" and "deletionTimestamp" not in pod["metadata"]:
            self._processes[uid] = self._start(pod)
        if process is None or uid in self._told:
            return
        if phase in ("Failed", "Succeeded") or "deletionTimestamp" in pod["metadata"]:
            process.send_signal(signal.SIGTERM)
            self._told.add(uid)
        elif (code := process.poll()) is not None:
            self._told.add(uid)
            self._tell(name, code)

    def _start(self, pod: dict[str, Any]) -> subprocess.Popen[bytes]:
        (worker,) = pod["spec"]["containers"]
        variables = {item["name"]: item["value"] for item in worker["env"]}
        name = ".".join(variables[f"ALAKAI_{part}"] for part in ("TASK_ID", "ATTEMPT", "LAUNCH_TRY"))
        with (self._logs / f"{name}.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.crash.container"],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def _tell(self, name: str, code: int) -> None:
        """As a kubelet does."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        exit_code = 128 - code if code < 0 else code
        ended = {"exitCode": exit_code, "reason": "Error" if code else "Completed", "startedAt": now, "finishedAt": now}
        container = {
            "name": "worker",
            "image": "worker:1",
            "imageID": "",
            "containerID": "kwok://worker",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
        patch = json.dumps({"status": status})
        self._call("patch", "pod", name, "--subresource=status", "--type=merge", f"--patch={patch}")

    def _call(self, *arguments: str) -> str:
        done = subprocess.run([*self._kubectl, *arguments], capture_output=True, text=True, timeout=60)
        if done.returncode and "not found" not in done.stderr:
            raise RuntimeError(done.stderr)
        return done.stdout or '{"items": []}'
