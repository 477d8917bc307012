"""The settings file of the ECS launcher: which task definition, capacity and network each task type gets.

Read and checked once at start-up; what is wrong is told in one line. ``examples/ecs/launcher.yaml`` explains each
field; limits are those of botocore's ECS service model (2014-11-13). Never asks AWS whether the things named exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from executions.errors import InvalidSettings
from executions.names import TASK_TYPE

DEFAULT = "default"
"""The entry for task types that have none of their own."""
EXAMPLE = "examples/ecs/launcher.yaml"

_PINNED = re.compile(r"(arn:aws[a-z-]*:ecs:[a-z0-9-]+:\d{12}:task-definition/)?[A-Za-z0-9_-]{1,255}:[1-9]\d*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SECRET = re.compile(r"SECRET|TOKEN(?:_|$)|PASSW|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/\s@]*:[^/\s@]+@")
_REMEDY = "which anybody who may describe tasks could read; use the task definition's secrets"
_RESERVED = ("ALAKAI_", "AWS_", "ECS_")


def _pinned(value: str) -> str:
    if not _PINNED.fullmatch(value):
        raise ValueError(
            "must be pinned as family:revision (for example alakai-worker:12); without a revision a repeated launch "
            "could start other code than the first one"
        )
    return value


def _plain_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("is not a variable's name; use letters, digits and _")
    if name.upper().startswith(_RESERVED):
        raise ValueError("begins with ALAKAI_, AWS_ or ECS_, which the launcher and ECS set themselves; rename it")
    if _SECRET.search(name):
        raise ValueError(f"looks like a secret, {_REMEDY}")
    return name


def _plain_value(value: str) -> str:
    if _PASSWORD_IN_URL.search(value):
        raise ValueError(f"holds a password, {_REMEDY}")
    return value


Pinned = Annotated[str, AfterValidator(_pinned)]
Variable = Annotated[str, AfterValidator(_plain_variable)]
Value = Annotated[str, AfterValidator(_plain_value)]
Text = Annotated[str, Field(min_length=1, max_length=512)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)


class CapacityProvider(_Strict):
    """One of the providers that a task may be placed on; ``weight`` 0 places nothing."""

    provider: Text
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    base: Annotated[int, Field(ge=0, le=100_000)] = 0


class TaskType(_Strict):
    """How the workers of one task type are started."""

    task_definition: Pinned
    container: Text
    """The container of the task definition that is the worker: it gets the environment, its exit code counts."""
    capacity_providers: Annotated[tuple[CapacityProvider, ...], Field(max_length=20)] = ()
    launch_type: Literal["FARGATE", "EC2", "EXTERNAL"] | None = None
    subnets: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    """Required by task definitions with the network mode awsvpc, which Fargate always has; empty for others."""
    security_groups: Annotated[tuple[Text, ...], Field(max_length=5)] = ()
    assign_public_ip: bool = False
    environment: dict[Variable, Value] = Field(default_factory=dict)
    """Further variables. The file is the allow-list: nothing of the controller's own environment reaches a worker."""

    def placement(self) -> dict[str, Any]:
        """The parts of a RunTask request that say where the task runs."""
        placed: dict[str, Any] = {}
        if self.capacity_providers:
            # Never with a launchType, which would switch the scaling of the providers off.
            placed["capacityProviderStrategy"] = [
                {"capacityProvider": item.provider, "weight": item.weight, "base": item.base}
                for item in self.capacity_providers
            ]
        elif self.launch_type:
            placed["launchType"] = self.launch_type
        if self.subnets:
            placed["networkConfiguration"] = {
                "awsvpcConfiguration": {
                    "subnets": list(self.subnets),
                    "securityGroups": list(self.security_groups),
                    "assignPublicIp": "ENABLED" if self.assign_public_ip else "DISABLED",
                }
            }
        return placed

    @model_validator(mode="after")
    def _is_coherent(self) -> TaskType:
        if self.launch_type and self.capacity_providers:
            raise ValueError("names launchType and capacityProviders, which exclude each other; remove launchType")
        if self.capacity_providers and not any(item.weight for item in self.capacity_providers):
            raise ValueError("gives every capacity provider the weight 0; give at least one a weight of 1 or more")
        if sum(1 for item in self.capacity_providers if item.base) > 1:
            raise ValueError("gives several capacity providers a base; ECS takes it on one only")
        if not self.subnets and (self.security_groups or self.assign_public_ip):
            raise ValueError("names securityGroups or assignPublicIp without subnets; add subnets")
        on_fargate = self.launch_type == "FARGATE" or any(
            item.provider in ("FARGATE", "FARGATE_SPOT") for item in self.capacity_providers
        )
        if on_fargate and not self.subnets:
            raise ValueError("runs on Fargate without subnets; add at least one")
        return self


class EcsSettings(_Strict):
    """The whole file."""

    cluster: Annotated[str, Field(pattern=r"^(arn:aws[a-z-]*:ecs:[a-z0-9-]+:\d{12}:cluster/)?[A-Za-z0-9_-]{1,255}$")]
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None = None
    """None: the environment's."""
    task_types: Annotated[dict[str, TaskType], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_task_types(self) -> EcsSettings:
        for name in self.task_types:
            if not TASK_TYPE.fullmatch(name):
                raise ValueError("taskTypes names a task type that no task can have; use letters, digits and . _ -")
        return self

    def for_task_type(self, task_type: str) -> TaskType | None:
        """The entry of a task type, else the default one, else None."""
        return self.task_types.get(task_type) or self.task_types.get(DEFAULT)


def ecs_settings_from_file(path: Path) -> EcsSettings:
    """Read and check the file. Raises InvalidSettings with one line that names the file, the field and the remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise _invalid(path, f"cannot be read: {why}; correct ECS_LAUNCHER_FILE") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        repeated = next(_repeated_keys(node), None) if node is not None else None
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise _invalid(path, f"is not YAML{where}: {getattr(error, 'problem', None) or 'malformed'}") from None
    if repeated is not None:
        raise _invalid(path, f"names {repeated} twice; keep one of them")
    try:
        # By way of JSON: in strict mode only JSON's lists become the models' tuples.
        return EcsSettings.model_validate_json(orjson.dumps(document))
    except TypeError:
        raise _invalid(path, "has a key or value that is not text, a number or a list; quote it") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"] if part != "[key]") or "the file"
        said = first["msg"].removeprefix("Value error, ")
        raise _invalid(path, f"{field}: {said}") from None


def _invalid(path: Path, text: str) -> InvalidSettings:
    return InvalidSettings(f"the ECS launcher's settings file {path.name} {text} (see {EXAMPLE})")


def _repeated_keys(node: yaml.Node) -> Iterator[str]:
    """Keys that stand twice in one mapping: YAML keeps the last of them and says nothing."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key.value
                seen.add(key.value)
            yield from _repeated_keys(value)
