"""A world for the tests of the ECS launcher: a cluster on moto, the shim before it, a settings file, the launcher."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3

from executions.adapters.ecs_client import EcsClient
from executions.adapters.ecs_launcher import EcsLauncher
from executions.adapters.ecs_settings import EcsSettings, ecs_settings_from_file
from executions.adapters.settings import Settings
from executions.errors import StoreUnavailable
from executions.ports import Launcher
from tests.support.builders import task_document
from tests.support.ecs_shim import EcsShim, Refusal

REGION = "eu-west-1"
SETTINGS = Settings(callback_url="https://alakai.example/task-complete")
ACCESS_DENIED = Refusal("AccessDeniedException", "User: worker is not authorized to perform: ecs:RunTask")
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDTEST",
    "AWS_SECRET_ACCESS_KEY": "hush",
    "NO_PROXY": "localhost,127.0.0.1",
}
"""What the clients of a test need to find in the environment."""
FOREIGN_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ECS", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION")
"""What they must not find there."""


class Payloads:
    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, Any]] = {}
        self.is_away = False

    async def put(self, task_id: str, task: Mapping[str, Any]) -> None:
        if self.is_away:
            raise StoreUnavailable("Redis does not answer")
        self.kept[task_id] = task


class EcsWorld:
    """The launcher, the shim and the cluster behind it."""

    def __init__(self, shim: EcsShim, cluster: Mapping[str, Any], folder: Path) -> None:
        self.shim = shim
        self.path = folder / "launcher.yaml"
        self.path.write_text(json.dumps(cluster))
        self.payloads = Payloads()
        self.now_seconds = 0.0
        self.launcher: Launcher = self.reopened()

    @property
    def ecs_settings(self) -> EcsSettings:
        return ecs_settings_from_file(self.path)

    def reopened(self, *, answer_seconds: float = 10.0) -> EcsLauncher:
        return EcsLauncher(
            self.ecs_settings,
            EcsClient(region=REGION, endpoint_url=self.shim.url, answer_seconds=answer_seconds),
            SETTINGS,
            self.payloads,
            clock=lambda: self.now_seconds,
            look_again_seconds=0.01,
        )

    def rewrite(self, **fields: Any) -> None:
        """Change the settings file, as a deployment does; only launchers opened from then on see it."""
        self.path.write_text(json.dumps(json.loads(self.path.read_text()) | fields))

    def task(self) -> dict[str, Any]:
        return task_document()

    async def workers(self, token: str) -> int:
        return len(self.shim.alive(token))

    async def end(self, worker_id: str) -> None:
        self.shim.finish(worker_id, exit_code=1)


def make_cluster(aws_url: str) -> dict[str, Any]:
    """A cluster and two revisions of a task definition; what a settings file says that names the first."""
    session: Any = boto3.session.Session("AKIDTEST", "hush", region_name=REGION)
    ecs, ec2 = (session.client(service, endpoint_url=aws_url) for service in ("ecs", "ec2"))
    suffix = secrets.token_hex(4)
    name, family = f"cluster-{suffix}", f"worker-{suffix}"
    ecs.create_cluster(clusterName=name)
    for _ in range(2):
        ecs.register_task_definition(
            family=family,
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            containerDefinitions=[{"name": "worker", "image": "worker:1", "memory": 512, "essential": True}],
        )
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    for client in (ecs, ec2):
        client.close()
    entry = {
        "taskDefinition": f"{family}:1",
        "container": "worker",
        "capacityProviders": [{"provider": "FARGATE", "weight": 1}],
        "subnets": [subnet],
        "environment": {"LOG_LEVEL": "info"},
    }
    return {"cluster": name, "region": REGION, "taskTypes": {"default": entry}}
