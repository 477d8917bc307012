"""The rendered pod, run without a kubelet: its containers as processes from the wheels, with its files, environment,
arguments and user, and with a token of its ServiceAccount.

What is not as in a pod: paths of mounted files lie in a folder of the test's (the environment names them there), the
API server's address comes by a kubeconfig, ports are other ones, and nothing limits memory.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx

from devstack.kubernetes import ControlPlane
from devstack.ports import free_port
from tests.chart.charts import Body
from tests.support.wheels import start_as_user

TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
READY_SECONDS = 60.0
STOP_SECONDS = 70.0


class Cluster:
    """What a test asks the API server for, as the admin."""

    def __init__(self, kube: ControlPlane, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [self.kube.kubectl, "--kubeconfig", self.kube.kubeconfig, "--namespace", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def get(self, kind: str, name: str) -> Body:
        found: Body = json.loads(self.kubectl("get", kind, name, "--output=json"))
        return found

    def list(self, kind: str, *arguments: str) -> list[Body]:
        found: list[Body] = json.loads(self.kubectl("get", kind, "--output=json", *arguments))["items"]
        return found


class PodOf(AbstractContextManager["PodOf"]):
    """One replica of a Deployment as it stands in the cluster."""

    def __init__(
        self, cluster: Cluster, deployment: str, python: Path, place: Path, environ: Mapping[str, str]
    ) -> None:
        self.cluster = cluster
        template = cluster.get("deployment", deployment)["spec"]["template"]
        self.spec: Body = template["spec"]
        self._python, self._environ = python, dict(environ)
        self.folder = place / f"pod-{free_port()}"
        self.folder.mkdir()
        self.ports = {name: free_port() for name in ("PORT", "CONTROLLER_PORT", "API_PROBE_PORT")}
        self.volumes = {item["name"]: self._materialised(item) for item in self.spec["volumes"]}
        self.processes = {item["name"]: self._start(item) for item in self.spec["containers"]}

    def wait_ready(self) -> None:
        urls = [f"http://localhost:{port}/readyz" for port in self.ports.values()]
        deadline = time.monotonic() + READY_SECONDS
        while not all(map(_answers, urls)):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.2)

    def stop(self) -> dict[str, int]:
        """As a rollout does: SIGTERM, and so long as the grace period lasts. Exit status by container."""
        for process in self.processes.values():
            process.terminate()
        grace = self.spec["terminationGracePeriodSeconds"]
        return {name: process.wait(grace) for name, process in self.processes.items()}

    def log_text(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def logs(self) -> str:
        """Their ends."""
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(STOP_SECONDS)

    def _materialised(self, volume: Body) -> Path:
        """The volume's files, where the user of the pod may read them."""
        folder = self.folder / "volumes" / volume["name"]
        folder.mkdir(parents=True)
        for path, content in self._files(volume).items():
            (folder / path).write_bytes(content)
            (folder / path).chmod(0o444)
        folder.chmod(0o777 if "emptyDir" in volume else 0o755)
        return folder

    def _files(self, volume: Body) -> dict[str, bytes]:
        if "secret" in volume:
            data = self.cluster.get("secret", volume["secret"]["secretName"])["data"]
            return {item["path"]: base64.b64decode(data[item["key"]]) for item in volume["secret"]["items"]}
        if "configMap" in volume:
            data = self.cluster.get("configmap", volume["configMap"]["name"]).get("data") or {}
            return {name: text.encode() for name, text in data.items()}
        if "projected" in volume:
            account = self.spec["serviceAccountName"]
            token = self.cluster.kubectl("create", "token", account, "--duration=1h").strip()
            authority = self.cluster.kube.certificate_authority
            namespace = self.cluster.namespace
            return {"token": token.encode(), "ca.crt": authority.encode(), "namespace": namespace.encode()}
        return {}

    def _start(self, container: Body) -> subprocess.Popen[bytes]:
        mounts = {item["mountPath"]: self.volumes[item["name"]] for item in container["volumeMounts"]}
        environ: dict[str, str] = {}
        for source in container["envFrom"]:
            environ |= self.cluster.get("configmap", source["configMapRef"]["name"])["data"]
        environ |= {item["name"]: item["value"] for item in container["env"]}
        environ = {name: _moved(value, mounts) for name, value in environ.items()}
        environ |= {name: str(port) for name, port in self.ports.items()} | {"METRICS_PORT": "0"}
        if TOKEN_FOLDER in mounts:
            environ["KUBECONFIG"] = str(self._kubeconfig(mounts[TOKEN_FOLDER]))
        assert container["command"][0] == "python"
        return start_as_user(
            self._python,
            container["command"][1:],
            {**self._environ, **environ, "TMPDIR": str(self.volumes["tmp"])},
            self.folder,
            self.folder / f"{container['name']}.log",
        )

    def _kubeconfig(self, credentials: Path) -> Path:
        cluster = {"server": self.cluster.kube.url, "certificate-authority": str(credentials / "ca.crt")}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "in", "cluster": cluster}],
            "users": [{"name": "in", "user": {"tokenFile": str(credentials / "token")}}],
            "contexts": [
                {"name": "in", "context": {"cluster": "in", "user": "in", "namespace": self.cluster.namespace}}
            ],
            "current-context": "in",
        }
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(config))
        path.chmod(0o444)
        return path


def _moved(value: str, mounts: Mapping[str, Path]) -> str:
    """A value that names a file of the pod's, where it lies here."""
    for mount, folder in mounts.items():
        if value.startswith(f"{mount}/"):
            return value.replace(mount, str(folder), 1)
    return value


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
