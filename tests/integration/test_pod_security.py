"""Our reading of the Pod Security Standard "restricted" and the API server's own agree on the same pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from devstack.kubernetes import ControlPlane
from executions.adapters.kube_connection import open_connection
from executions.adapters.kube_requests import KubeRequests
from executions.adapters.pod_security import restricted, violations
from executions.cluster import Forbidden, Invalid

GOOD: dict[str, dict[str, Any]] = {
    "nothing said": {},
    "a user": {"securityContext": {"runAsUser": 1000}},
    "its own seccomp profile": {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}},
    "a safe sysctl": {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}},
    "SELinux": {"securityContext": {"seLinuxOptions": {"type": "container_t", "level": "s0:c1,c2"}}},
    "volumes": {
        "volumes": [
            {"name": "a", "emptyDir": {}},
            {"name": "b", "secret": {"secretName": "x"}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "x"}},
            {"name": "d", "projected": {"sources": []}},
        ]
    },
    "a sidecar": {"initContainers": [{"name": "logs", "image": "logs:1", "restartPolicy": "Always"}]},
    "AppArmor": {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}},
}
BAD: dict[str, dict[str, Any]] = {
    "host network": {"hostNetwork": True},
    "host processes": {"hostPID": True},
    "host memory": {"hostIPC": True},
    "a host path": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
    "NFS": {"volumes": [{"name": "x", "nfs": {"server": "x", "path": "/"}}]},
    "root by user": {"securityContext": {"runAsUser": 0}},
    "root by word": {"securityContext": {"runAsNonRoot": False}},
    "no seccomp": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    "no AppArmor": {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
    "an unsafe sysctl": {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
    "an SELinux type": {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}},
    "an SELinux user": {"securityContext": {"seLinuxOptions": {"user": "root"}}},
}
GOOD_CONTAINERS: dict[str, dict[str, Any]] = {
    "a port": {"ports": [{"containerPort": 80}]},
    "binding low ports": {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}},
    "a probe": {"livenessProbe": {"httpGet": {"port": 80}}},
    "read-only": {"securityContext": {"readOnlyRootFilesystem": True, "runAsUser": 5}},
    "its own word": {"securityContext": {"runAsNonRoot": True}},
}
BAD_CONTAINERS: dict[str, dict[str, Any]] = {
    "privileged": {"securityContext": {"privileged": True, "allowPrivilegeEscalation": True}},
    "escalation": {"securityContext": {"allowPrivilegeEscalation": True}},
    "capabilities kept": {"securityContext": {"capabilities": {"drop": ["NET_RAW"]}}},
    "capabilities added": {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}},
    "root": {"securityContext": {"runAsUser": 0}},
    "root by word": {"securityContext": {"runAsNonRoot": False}},
    "no seccomp": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    "a host port": {"ports": [{"containerPort": 80, "hostPort": 80}]},
    "another host's probe": {"livenessProbe": {"httpGet": {"port": 80, "host": "example.com"}}},
    "another host's hook": {"lifecycle": {"preStop": {"tcpSocket": {"port": 80, "host": "example.com"}}}},
    "an SELinux role": {"securityContext": {"seLinuxOptions": {"role": "x"}}},
}
WORKER = {"name": "worker", "image": "worker:1"}
SPECS = {
    **{f"good: {name}": (spec, True) for name, spec in GOOD.items()},
    **{f"bad: {name}": (spec, False) for name, spec in BAD.items()},
    **{f"good container: {name}": ({"containers": [{**WORKER, **c}]}, True) for name, c in GOOD_CONTAINERS.items()},
    **{f"bad container: {name}": ({"containers": [{**WORKER, **c}]}, False) for name, c in BAD_CONTAINERS.items()},
    **{
        f"bad sidecar: {name}": (
            {"initContainers": [{"name": "s", "image": "s:1", "restartPolicy": "Always", **c}]},
            False,
        )
        for name, c in BAD_CONTAINERS.items()
    },
}


@pytest.fixture
async def api(kube: ControlPlane) -> AsyncIterator[KubeRequests]:
    api = KubeRequests(open_connection(kube.kubeconfig), connections=8)
    yield api
    await api.close()


async def test_both_judge_the_same_pods_alike(api: KubeRequests, namespace: str) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await api.send("PATCH", f"/api/v1/namespaces/{namespace}", label, content_type="application/merge-patch+json")

    refusals: list[str] = []

    async def is_accepted(spec: dict[str, Any]) -> bool:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec}
        try:
            await api.send("POST", f"/api/v1/namespaces/{namespace}/pods", pod, query={"dryRun": "All"})
        except (Forbidden, Invalid) as error:
            refusals.append(str(error))
            return False
        return True

    made = {name: restricted({"containers": [WORKER], **spec}) for name, (spec, _) in SPECS.items()}
    accepted = dict(zip(made, await asyncio.gather(*map(is_accepted, made.values())), strict=True))
    ours = {name: not list(violations(spec)) for name, spec in made.items()}
    assert accepted == {name: good for name, (_, good) in SPECS.items()}
    assert ours == accepted
    # Privileged pods are refused by this API server's own settings before the standard is asked.
    of_policy = [text for text in refusals if "disallowed by cluster policy" in text]
    assert len(of_policy) == 2
    assert all("violates PodSecurity" in text for text in refusals if text not in of_policy)
