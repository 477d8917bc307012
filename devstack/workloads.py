"""What makes Jobs come to life on a control plane that has no nodes: the Job controller, and a node that pretends.

kube-controller-manager runs with two controllers only: Jobs get their pods, and what names an owner goes with it. kwok
stands in for the kubelet: pods that are bound to the node `NODE` count as running, no program runs. There is no
scheduler: a pod that names no node waits for one for ever.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from devstack import binaries
from devstack.kubernetes import ControlPlane
from devstack.ports import free_port
from devstack.processes import Daemon

NODE = "pretended"
_STAGES = Path(__file__).parent / "kwok.yaml"
_CONTROLLERS = "job-controller,garbage-collector-controller"


class Workloads:
    """Beside one control plane, with its kubeconfig; `start` makes it run."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.controllers = Daemon("kube-controller-manager", plane.data_dir)
        self.kwok = Daemon("kwok", plane.data_dir)

    @classmethod
    def start(cls, plane: ControlPlane) -> Workloads:
        """Start what does not run. Raises DevstackError."""
        workloads = cls(plane)
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        workloads._kubectl("apply", "--filename=-", document=node)
        if not workloads.controllers.is_running:
            workloads._start_controllers()
        if not workloads.kwok.is_running:
            workloads._start_kwok()
        return workloads

    def stop(self) -> None:
        self.kwok.stop()
        self.controllers.stop()

    def _start_controllers(self) -> None:
        self.controllers.start(
            [
                binaries.controller_manager()["kube-controller-manager"],
                f"--kubeconfig={self._plane.kubeconfig}",
                f"--controllers={_CONTROLLERS}",
                "--leader-elect=false",
                "--secure-port=0",
            ],
            port=0,
        )

    def _start_kwok(self) -> None:
        self.kwok.start(
            [
                binaries.kwok()["kwok"],
                f"--kubeconfig={self._plane.kubeconfig}",
                f"--config={_STAGES}",
                "--manage-all-nodes",
                "--node-lease-duration-seconds=0",
            ],
            port=free_port(),
        )

    def _kubectl(self, *arguments: str, document: object) -> None:
        subprocess.run(
            [self._plane.kubectl, "--kubeconfig", self._plane.kubeconfig, *arguments],
            input=json.dumps(document),
            text=True,
            check=True,
            capture_output=True,
            timeout=60,
        )
