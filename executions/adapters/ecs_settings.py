"""The settings file of the ECS launcher: which task definition, capacity and network each task type gets.

Read and checked once at start-up; what is wrong is told in one line. ``examples/ecs/launcher.yaml`` explains each
field; limits are those of botocore's ECS service model (2014-11-13). Never asks AWS whether the things named exist.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from executions.adapters.settings_file import (
    DEFAULT,
    PlainValue,
    PlainVariable,
    SettingsFile,
    StrictModel,
    TaskTypeName,
    model_from_file,
)

EXAMPLE = "examples/ecs/launcher.yaml"

_PINNED = re.compile(r"(arn:aws[a-z-]*:ecs:[a-z0-9-]+:\d{12}:task-definition/)?[A-Za-z0-9_-]{1,255}:[1-9]\d*", re.ASCII)


def _pinned(value: str) -> str:
    if not _PINNED.fullmatch(value):
        raise ValueError(
            "must be pinned as family:revision (for example alakai-worker:12); without a revision a repeated launch "
            "could start other code than the first one"
        )
    return value


Pinned = Annotated[str, AfterValidator(_pinned)]
Text = Annotated[str, Field(min_length=1, max_length=512)]


class CapacityProvider(StrictModel):
    """One of the providers that a task may be placed on; ``weight`` 0 places nothing."""

    provider: Text
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    base: Annotated[int, Field(ge=0, le=100_000)] = 0


class TaskType(StrictModel):
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
    environment: dict[PlainVariable, PlainValue] = Field(default_factory=dict)
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


class EcsSettings(StrictModel):
    """The whole file."""

    cluster: Annotated[str, Field(pattern=r"^(arn:aws[a-z-]*:ecs:[a-z0-9-]+:\d{12}:cluster/)?[A-Za-z0-9_-]{1,255}$")]
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] | None = None
    """None: the environment's."""
    task_types: Annotated[dict[TaskTypeName, TaskType], Field(min_length=1)]

    def for_task_type(self, task_type: str) -> TaskType | None:
        """The entry of a task type, else the default one, else None."""
        return self.task_types.get(task_type) or self.task_types.get(DEFAULT)


def ecs_settings_from_file(path: Path) -> EcsSettings:
    """Read and check the file. Raises InvalidSettings with one line that names the file, the field and the remedy."""
    return model_from_file(EcsSettings, path, SettingsFile("the ECS launcher", "ECS_LAUNCHER_FILE", EXAMPLE))
