"""The Pod Security Standard "restricted" for workers: what is left out is filled in, what breaks it is named.

Rules and names: https://kubernetes.io/docs/concepts/security/pod-security-standards/. The API server of a namespace
that enforces the standard has the last word; a test holds both to the same pods.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
_CAPABILITIES = frozenset({"NET_BIND_SERVICE"})
_PROFILES = frozenset({"RuntimeDefault", "Localhost"})
_APP_ARMOR = frozenset({"RuntimeDefault", "Localhost"})
_SELINUX_TYPES = frozenset({"container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
Json = Mapping[str, Any]


def restricted(spec: Json) -> dict[str, Any]:
    """The pod's spec with what "restricted" asks for, wherever it says nothing itself."""
    made: dict[str, Any] = copy.deepcopy(dict(spec))
    pod = made.setdefault("securityContext", {})
    pod.setdefault("runAsNonRoot", True)
    pod.setdefault("seccompProfile", {"type": "RuntimeDefault"})
    for kind in ("initContainers", "containers"):
        for container in made.get(kind) or []:
            context = container.setdefault("securityContext", {})
            context.setdefault("allowPrivilegeEscalation", False)
            context.setdefault("capabilities", {}).setdefault("drop", ["ALL"])
    return made


def violations(spec: Json) -> Iterator[str]:
    """What of a completed spec breaks the standard, as the path of the field and the remedy."""
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"spec.{name} is true; remove it"
    for volume in spec.get("volumes") or []:
        kinds = volume.keys() - {"name"}
        if not kinds <= _VOLUMES:
            yield f"volume {volume.get('name')} is a {_list(kinds - _VOLUMES)}; use one of {_list(_VOLUMES)}"
    pod = spec.get("securityContext") or {}
    yield from _identity(pod, "spec.securityContext")
    yield from _profiles(pod, "spec.securityContext")
    for sysctl in pod.get("sysctls") or []:
        if sysctl.get("name") not in _SYSCTLS:
            yield f"the sysctl {sysctl.get('name')} is not one of the safe ones; remove it"
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind) or []:
            yield from _container(container, f"{kind} {container.get('name')}", pod)


def _container(container: Json, path: str, pod: Json) -> Iterator[str]:
    context = container.get("securityContext") or {}
    yield from _identity(context, path)
    yield from _profiles(context, path)
    if context.get("privileged"):
        yield f"{path} is privileged; remove it"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{path} allows privilege escalation; set allowPrivilegeEscalation: false"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield f"{path} keeps capabilities; set capabilities.drop: [ALL]"
    if added := set(capabilities.get("add") or []) - _CAPABILITIES:
        yield f"{path} adds the capabilities {_list(added)}; only {_list(_CAPABILITIES)} may be added"
    if (context.get("procMount") or "Default") != "Default":
        yield f"{path} sets procMount; remove it"
    if context.get("runAsNonRoot") is None and pod.get("runAsNonRoot") is not True:
        yield f"{path} may run as root; set runAsNonRoot: true"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield f"{path} has a hostPort; remove it"
    probes = [container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    lifecycle = container.get("lifecycle") or {}
    handlers = probes + [lifecycle.get(name) or {} for name in ("postStart", "preStop")]
    if any((handler.get(kind) or {}).get("host") for handler in handlers for kind in ("httpGet", "tcpSocket")):
        yield f"{path} has a probe or hook of another host; remove its host"


def _identity(context: Json, path: str) -> Iterator[str]:
    if context.get("runAsNonRoot") is False:
        yield f"{path} sets runAsNonRoot: false; remove it"
    if context.get("runAsUser") == 0:
        yield f"{path} runs as user 0; set another or leave it to the image"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{path} is a Windows host process; remove it"


def _profiles(context: Json, path: str) -> Iterator[str]:
    for name, allowed in (("seccompProfile", _PROFILES), ("appArmorProfile", _APP_ARMOR)):
        profile = context.get(name)
        if profile is not None and profile.get("type") not in allowed:
            yield f"{path}.{name} is {profile.get('type')}; use one of {_list(allowed)}"
    options = context.get("seLinuxOptions") or {}
    if options.get("user") or options.get("role") or (options.get("type") or "container_t") not in _SELINUX_TYPES:
        yield f"{path}.seLinuxOptions sets user, role or a type of its own; remove them"


def _list(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names))
