"""The settings file of the Kubernetes launcher: which pod template each task type gets.

Read and checked once at start-up; what is wrong is told in one line. ``examples/kubernetes/launcher.yaml`` explains
each field. A template is a ``core/v1 PodTemplateSpec`` that is held to the Pod Security Standard "restricted"
(``pod_security.py``); values that only the API server can judge are judged by it, at the first launch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from kubernetes.client import models
from pydantic import AfterValidator, Field

from executions.adapters.pod_security import restricted, violations
from executions.adapters.settings_file import (
    DEFAULT,
    SettingsFile,
    StrictModel,
    TaskTypeName,
    model_from_file,
    plain_value,
    plain_variable,
)
from executions.names import GROUP

EXAMPLE = "examples/kubernetes/launcher.yaml"
_LIST, _DICT = re.compile(r"[Ll]ist\[(.+)\]"), re.compile(r"[Dd]ict(?:\[|\()str, (.+)[\])]")
_SCALARS: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}


def _template(template: dict[str, Any]) -> dict[str, Any]:
    """The template with its defaults. Raises ValueError that names the field and the remedy."""
    for problem in _type_problems(template, "V1PodTemplateSpec", "template"):
        raise ValueError(problem)
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    for kind in ("labels", "annotations"):
        for name in metadata.get(kind) or {}:
            if name.startswith(f"{GROUP}/"):
                raise ValueError(f"metadata.{kind} names {name}, which the launcher sets itself; remove it")
    containers = spec.get("containers") or []
    if len(containers) != 1:
        raise ValueError(
            f"spec.containers has {len(containers)} entries; leave the worker alone there and make others "
            "initContainers with restartPolicy: Always (sidecars), which end with it"
        )
    (worker,) = containers
    if not worker.get("name") or not worker.get("image"):
        raise ValueError("the worker's container has no name or no image; set both")
    if spec.get("restartPolicy", "Never") != "Never":
        raise ValueError("spec.restartPolicy is not Never; remove it (retries are ours, and a restart is a second run)")
    for variable in worker.get("env") or []:
        name = str(variable.get("name"))
        try:
            plain_variable(name) if "valueFrom" not in variable else _own_name(name)
            plain_value(str(variable.get("value") or ""))
        except ValueError as error:
            raise ValueError(f"the variable {name} {error}") from error
    spec = restricted({"automountServiceAccountToken": False, "enableServiceLinks": False, **spec})
    for problem in violations(spec):
        raise ValueError(f"breaks the pod security standard: {problem}")
    return {**template, "spec": {**spec, "restartPolicy": "Never"}}


def _own_name(name: str) -> None:
    """A variable that is filled from a secret or a field may be called as it likes, but for ours."""
    if name.upper().startswith("ALAKAI_"):
        raise ValueError("begins with ALAKAI_, which the launcher sets; rename it")


def _type_problems(value: object, expected: str, path: str) -> Iterator[str]:
    """What of a document does not fit the API's own model, before an API server is asked."""
    if value is None or expected in ("object", "datetime"):
        return
    if match := _LIST.fullmatch(expected):
        if not isinstance(value, list):
            yield f"{path} must be a list"
            return
        for index, item in enumerate(value):
            yield from _type_problems(item, match[1], f"{path}[{index}]")
    elif match := _DICT.fullmatch(expected):
        if not isinstance(value, dict):
            yield f"{path} must be a mapping"
            return
        for name, item in value.items():
            is_quantity = ".resources." in f"{path}." and isinstance(item, (int, float))
            if not is_quantity:
                yield from _type_problems(item, match[1], f"{path}.{name}")
    elif expected in _SCALARS:
        if not isinstance(value, _SCALARS[expected]) or (isinstance(value, bool) and expected != "bool"):
            yield f"{path} must be a {expected}"
    else:
        yield from _model_problems(value, getattr(models, expected), path)


def _model_problems(value: object, model: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} must be a mapping"
        return
    fields = {external: model.openapi_types[own] for own, external in model.attribute_map.items()}
    for name, item in value.items():
        if name not in fields:
            yield f"{path}.{name} is not a field of {model.__name__.removeprefix('V1')}; correct or remove it"
        else:
            yield from _type_problems(item, fields[name], f"{path}.{name}")


class TaskType(StrictModel):
    """How the workers of one task type are started."""

    template: Annotated[dict[str, Any], AfterValidator(_template)]
    """A ``core/v1 PodTemplateSpec`` with one container, the worker; completed with what "restricted" asks for."""
    active_deadline_seconds: Annotated[int, Field(gt=0, le=2_147_483_647)] = 86_400
    """After which Kubernetes ends the Job, from its start on: the backstop should nobody watch."""


class KubernetesSettings(StrictModel):
    """The whole file."""

    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    """Where the Jobs live; None: beside the WorkerExecutions, which then own them."""
    task_types: Annotated[dict[TaskTypeName, TaskType], Field(min_length=1)]

    def for_task_type(self, task_type: str) -> TaskType | None:
        """The entry of a task type, else the default one, else None."""
        return self.task_types.get(task_type) or self.task_types.get(DEFAULT)


def kubernetes_settings_from_file(path: Path) -> KubernetesSettings:
    """Read and check the file. Raises InvalidSettings with one line that names the file, the field and the remedy."""
    file = SettingsFile("the Kubernetes launcher", "KUBERNETES_LAUNCHER_FILE", EXAMPLE)
    return model_from_file(KubernetesSettings, path, file)
