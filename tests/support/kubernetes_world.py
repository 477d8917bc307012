"""A world for the Kubernetes launcher's tests: a namespace of a real API server, the Job controller, kwok's node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devstack.workloads import NODE
from executions.adapters.job_client import JobClient
from executions.adapters.kube_connection import KubeConnection, open_connection
from executions.adapters.kube_requests import MERGE_PATCH, KubeRequests
from executions.adapters.kubernetes_launcher import KubernetesLauncher
from executions.adapters.kubernetes_settings import kubernetes_settings_from_file
from executions.adapters.settings import Settings
from executions.cluster import Body
from executions.ports import Launcher
from tests.support.builders import task_document
from tests.support.ecs_world import Payloads
from tests.support.launcher_contract import until

ENDED = ("Succeeded", "Failed")
TEMPLATE = {"spec": {"nodeName": NODE, "containers": [{"name": "worker", "image": "worker:1"}]}}


def settings_document(spec: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A settings file whose pods run on kwok's node, unless ``spec`` says otherwise."""
    return {"taskTypes": {"default": {"template": {"spec": {**TEMPLATE["spec"], **(spec or {})}}, **fields}}}


class KubernetesWorld:
    """The launcher, and what it launches on."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path) -> None:
        self.connection: KubeConnection = open_connection(kubeconfig)
        self.namespace = namespace
        self.path = folder / "launcher.yaml"
        self.path.write_text(json.dumps(settings_document()))
        self.payloads = Payloads()
        self.settings = Settings(callback_url="https://alakai.example/task-complete")
        self.api = KubeRequests(self.connection, connections=8)
        self.launcher: Launcher = self.reopened()

    def reopened(self, connection: KubeConnection | None = None) -> KubernetesLauncher:
        return KubernetesLauncher(
            kubernetes_settings_from_file(self.path),
            JobClient(connection or self.connection, request_timeout_seconds=10),
            self.settings,
            self.payloads,
            home=self.namespace,
        )

    async def rewrite(self, document: Mapping[str, Any]) -> None:
        """Change the settings file, as a deployment does."""
        self.path.write_text(json.dumps(document))
        await self.launcher.close()
        self.launcher = self.reopened()

    def task(self) -> dict[str, Any]:
        return task_document()

    async def workers(self, token: str) -> int:
        """Jobs that may still run something, and pods of Jobs that are gone."""
        selector = f"alakai.dev/launch={token[:20]}"
        jobs, pods = await self.jobs(selector), await self.pods(selector)
        # FailureTarget and SuccessCriteriaMet come before, while the Job controller still counts.
        over = {
            job["metadata"]["name"]
            for job in jobs
            if any(item["type"] in ("Complete", "Failed") for item in job["status"].get("conditions", ()))
        }
        alive = [pod for pod in pods if pod["status"]["phase"] not in ENDED]
        return max(len([job for job in jobs if job["metadata"]["name"] not in over]), len(alive))

    async def end(self, worker_id: str) -> None:
        await self.end_pod(worker_id, terminated(exitCode=1, reason="Error"), phase="Failed")

    # Objects

    async def jobs(self, selector: str = "") -> list[Body]:
        return await self._list(f"/apis/batch/v1/namespaces/{self.namespace}/jobs", selector)

    async def job(self, worker_id: str) -> Body:
        """A Job by the id of its worker. Raises NotFound."""
        name = worker_id.rsplit("/", 1)[-1]
        return await self.api.send("GET", f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}")

    async def pods(self, selector: str = "") -> list[Body]:
        return await self._list(f"/api/v1/namespaces/{self.namespace}/pods", selector)

    async def pod(self, worker_id: str, *, phase: str = "Running") -> Body:
        """The pod of a worker, once it is there and in this phase."""
        selector = f"alakai.dev/launch={worker_id[-20:]}"
        found: list[Body] = []

        async def is_there() -> bool:
            found[:] = [pod for pod in await self.pods(selector) if pod["status"].get("phase") == phase]
            return bool(found)

        await until(is_there, f"a pod of {worker_id} is {phase}")
        return found[0]

    async def end_pod(self, worker_id: str, container: Mapping[str, Any] | None = None, **status: Any) -> None:
        """Tell, in the kubelet's place, how the pod of a worker ends."""
        pod = await self.pod(worker_id)
        containers = [] if container is None else [{"name": "worker", "image": "worker:1", "imageID": "", **container}]
        await self.patch_pod(pod, "/status", {"status": {"containerStatuses": containers, **status}})

    async def patch_pod(self, pod: Body, part: str, document: Mapping[str, Any]) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}{part}"
        await self.api.send("PATCH", path, document, content_type=MERGE_PATCH)

    async def delete(self, path: str) -> None:
        await self.api.send("DELETE", path)

    async def close(self) -> None:
        await self.launcher.close()
        await self.api.close()

    async def _list(self, path: str, selector: str) -> list[Body]:
        found: list[Body] = (await self.api.send("GET", path, query={"labelSelector": selector}))["items"]
        return found


def terminated(**fields: Any) -> dict[str, Any]:
    """The status of a container that ended."""
    return {
        "containerID": "kwok://worker",
        "ready": False,
        "restartCount": 0,
        "state": {
            "terminated": {"startedAt": "2026-01-02T00:00:00Z", "finishedAt": "2026-01-02T00:00:01Z", **fields},
            "running": None,
        },
    }
