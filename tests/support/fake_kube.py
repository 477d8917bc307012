"""An API server in memory for unit tests: one namespace of custom resources, with the rules that the mirror relies on.

Versions, uids, generations, the status subresource, finalizers, preconditions, JSON patch tests and the schema rules
that keep a status from going back are as on the real one; ``cluster_contract.py`` runs on both.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from executions.cluster import AlreadyExists, Body, ClusterError, Conflict, Invalid, NotFound, Unavailable
from executions.moment import iso_from_ms

CREATED_MS = 1_700_000_000_000
_FINAL = ("Succeeded", "Failed", "Cancelled")


class FakeCluster:
    """``cluster.Cluster``. ``is_away`` fails every call; ``failures`` are raised one by one by the next writes.

    ``watcher`` gets every event as Kopf would; with ``holds_events`` they wait for ``deliver``.
    """

    def __init__(self, namespace: str = "default") -> None:
        self.namespace = namespace
        self.objects: dict[str, dict[str, Any]] = {}
        self.events: dict[str, Body] = {}
        self.config_maps: dict[str, dict[str, str]] = {}
        self.writes: Counter[str] = Counter()
        """Writes to objects, by object name."""
        self.calls: list[str] = []
        self.failures: list[ClusterError] = []
        self.is_away = False
        self.definition_leaves = False
        self.watcher: Callable[[str | None, Body], object] | None = None
        self.holds_events = False
        self.held: list[tuple[str, Body]] = []
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)

    async def list(self) -> AsyncIterator[Body]:
        self._called("list")
        for body in list(self.objects.values()):
            yield copy.deepcopy(body)

    async def read(self, name: str) -> Body:
        self._called(f"read {name}")
        return copy.deepcopy(self._object(name))

    async def create(self, manifest: Body) -> Body:
        name = manifest["metadata"]["name"]
        self._called(f"create {name}", name)
        if name in self.objects:
            raise AlreadyExists(f"{name} already exists")
        body = copy.deepcopy(dict(manifest))
        body["metadata"] |= {
            "uid": f"uid-{next(self._uids)}",
            "generation": 1,
            "creationTimestamp": iso_from_ms(CREATED_MS)[:19] + "Z",
            "namespace": self.namespace,
        }
        body["spec"] = {"suspend": False, **body.get("spec", {})}
        body["status"] = {"phase": "Pending"}
        return self._stored("ADDED", body)

    async def patch_status(self, name: str, status: Body) -> Body:
        self._called(f"status {name}", name)
        body = copy.deepcopy(self._object(name))
        before = body.get("status", {})
        body["status"] = _merged(before, status)
        _check_status(before, body["status"])
        return self._stored("MODIFIED", body)

    async def patch(self, name: str, operations: Sequence[Body]) -> Body:
        self._called(f"patch {name}", name)
        body = copy.deepcopy(self._object(name))
        for operation in operations:
            _apply(body, operation)
        return self._stored("MODIFIED", body)

    async def delete(self, name: str, *, uid: str, resource_version: int) -> None:
        self._called(f"delete {name}", name)
        metadata = self._object(name)["metadata"]
        if metadata["uid"] != uid or metadata["resourceVersion"] != str(resource_version):
            raise Conflict(f"{name} is not the object that was meant")
        self._delete(name)

    async def create_event(self, event: Body) -> None:
        name = event["metadata"]["name"]
        self._called(f"event {name}")
        if name in self.events:
            raise AlreadyExists(f"{name} already exists")
        self.events[name] = event

    async def definition_is_leaving(self) -> bool:
        self._called("definition")
        return self.definition_leaves

    async def check(self) -> None:
        self._called("check")

    async def read_config_map(self, name: str) -> dict[str, str]:
        self._called(f"read {name}")
        if name not in self.config_maps:
            raise NotFound(f"configmaps {name} not found")
        return dict(self.config_maps[name])

    async def create_config_map(self, name: str, data: Mapping[str, str]) -> None:
        self._called(f"create {name}")
        if name in self.config_maps:
            raise AlreadyExists(f"configmaps {name} already exists")
        self.config_maps[name] = dict(data)

    async def update_config_map(self, name: str, data: Mapping[str, str]) -> None:
        await self.read_config_map(name)
        self.config_maps[name] |= data

    # What people do with kubectl; not counted as our writes.

    def apply(self, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Create an object as a user, or change the spec and annotations of one."""
        body = copy.deepcopy(self.objects.get(name)) or {
            "apiVersion": "alakai.dev/v1alpha1",
            "kind": "WorkerExecution",
            "metadata": {
                "name": name,
                "uid": f"uid-{next(self._uids)}",
                "generation": 0,
                "creationTimestamp": iso_from_ms(CREATED_MS)[:19] + "Z",
                "annotations": {},
            },
            "status": {"phase": "Pending"},
        }
        before = body.get("spec")
        body["spec"] = {"suspend": False, **(before or {}), **spec}
        body["metadata"].setdefault("annotations", {}).update(annotations or {})
        if body["spec"] != before:
            body["metadata"]["generation"] += 1
        return self._stored("MODIFIED" if before is not None else "ADDED", body)

    def annotate(self, name: str, **annotations: str) -> None:
        self.apply(name, {}, {f"alakai.dev/{key}": value for key, value in annotations.items()})

    def remove(self, name: str) -> None:
        """``kubectl delete``."""
        self._delete(name)

    def strip_finalizers(self, name: str) -> None:
        body = copy.deepcopy(self.objects[name])
        body["metadata"]["finalizers"] = []
        self._stored("MODIFIED", body)

    def edit_status(self, name: str, **status: Any) -> None:
        body = copy.deepcopy(self.objects[name])
        body["status"] |= status
        self._stored("MODIFIED", body)

    def lose(self, name: str) -> None:
        """The object is gone and no event tells it, as after a watch that broke for too long."""
        del self.objects[name]

    def deliver(self) -> None:
        """Hand the events on that were held back, and hold back no more."""
        self.holds_events = False
        held, self.held = self.held, []
        for event_type, body in held:
            self._emit(event_type, body)

    def conditions(self, name: str) -> dict[str, str]:
        return {item["type"]: item["status"] for item in self.objects[name]["status"].get("conditions", [])}

    def reasons_told(self) -> list[str]:
        return [event["reason"] for event in self.events.values()]

    def _called(self, call: str, written: str | None = None) -> None:
        self.calls.append(call)
        if self.is_away:
            raise Unavailable("the API server gave no answer (test)")
        if written is not None:
            if self.failures:
                raise self.failures.pop(0)
            self.writes[written] += 1

    def _object(self, name: str) -> dict[str, Any]:
        if name not in self.objects:
            raise NotFound(f"{name} not found")
        return self.objects[name]

    def _stored(self, event_type: str, body: dict[str, Any]) -> dict[str, Any]:
        metadata = body["metadata"]
        metadata["resourceVersion"] = str(next(self._versions))
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            self.objects.pop(metadata["name"])
            event_type = "DELETED"
        else:
            self.objects[metadata["name"]] = body
        self._emit(event_type, body)
        return copy.deepcopy(body)

    def _delete(self, name: str) -> None:
        body = copy.deepcopy(self._object(name))
        if "deletionTimestamp" not in body["metadata"]:
            body["metadata"]["deletionTimestamp"] = iso_from_ms(CREATED_MS)[:19] + "Z"
            self._stored("MODIFIED", body)

    def _emit(self, event_type: str, body: Body) -> None:
        if self.holds_events:
            self.held.append((event_type, copy.deepcopy(body)))
        elif self.watcher is not None:
            self.watcher(event_type, copy.deepcopy(body))


def _merged(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    result = dict(before)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            known = result.get(key)
            result[key] = _merged(known if isinstance(known, Mapping) else {}, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _check_status(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """The transition rules of the custom resource definition."""
    if before.get("incarnation") is None or before["incarnation"] != after.get("incarnation"):
        return
    for field in ("attempt", "sequence"):
        if after.get(field, 0) < before.get(field, 0):
            raise Invalid(f"status.{field}: an older state of this execution is not accepted")
    ended = {item["attempt"]: item for item in before.get("attempts", ()) if item["phase"] in _FINAL}
    for item in after.get("attempts", ()):
        known = ended.get(item["attempt"], item)
        if any(known.get(field) != item.get(field) for field in ("phase", "reason", "finishTime")):
            raise Invalid("status.attempts: a finished attempt keeps its phase, reason and finishTime")


def _apply(body: dict[str, Any], operation: Body) -> None:
    *parents, last = operation["path"].lstrip("/").split("/")
    target = body
    for parent in parents:
        target = target[parent]
    match operation["op"]:
        case "test":
            if target.get(last) != operation["value"]:
                raise Invalid(f"testing path {operation['path']} value failed")
        case "add" | "replace":
            target[last] = copy.deepcopy(operation["value"])
        case "remove":
            del target[last]
