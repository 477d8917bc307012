"""The IAM policy of the docs lets every call through that we make, and holds nothing that no call needs.

moto checks each call against the policy's actions. What it does not know is left out here: resources, conditions,
iam:PassRole, and that a batch is allowed by the action of its single call.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from devstack.aws import AwsServer
from executions.adapters.aws_client import _session
from executions.adapters.ecs_client import EcsClient, EcsRefused, EcsUnclear
from executions.adapters.s3_archive import S3Archive
from executions.adapters.settings import Settings
from executions.adapters.sqs_queue import open_queue
from executions.errors import ArchiveUnavailable, QueueUnavailable, QueueUnclear
from tests.support.ecs_world import REGION, make_cluster

POLICY = Path(__file__).parents[2] / "docs" / "iam-policy.json"
BATCHES = {
    "sqs:DeleteMessage": "sqs:DeleteMessageBatch",
    "sqs:ChangeMessageVisibility": "sqs:ChangeMessageVisibilityBatch",
}
NOT_CHECKED = "iam:PassRole"
ADAPTERS = ("sqs_queue.py", "ecs_client.py", "s3_archive.py")
OTHERWISE_NAMED = {"s3:ListObjectsV2": "s3:ListBucket", "s3:GetPaginator": "s3:ListBucket"}
"""S3's permissions are not called like its calls."""
Call = Callable[[], Awaitable[object]]


def actions() -> list[str]:
    found: list[str] = []
    for statement in json.loads(POLICY.read_text())["Statement"]:
        wanted = statement["Action"]
        found += [wanted] if isinstance(wanted, str) else wanted
    return found


def policy(*, without: str | None = None) -> str:
    """The document, for moto."""
    document = json.loads(POLICY.read_text())
    for statement in document["Statement"]:
        statement.pop("Condition", None)
        statement["Resource"] = "*"
        wanted = statement["Action"]
        kept = [item for item in ([wanted] if isinstance(wanted, str) else wanted) if item != without]
        statement["Action"] = [BATCHES.get(item, item) for item in kept]
    document["Statement"] = [item for item in document["Statement"] if item["Action"]]
    return json.dumps(document)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    """An AWS of its own, whose calls are checked once `guarded` says so."""
    server = AwsServer.start(tmp_path_factory.mktemp("account"))
    yield server
    server.stop()


class World:
    """A user who has the policy, and what there is to call."""

    def __init__(self, account: AwsServer) -> None:
        self.url = account.url
        admin: Any = boto3.session.Session("admin", "admin", region_name=REGION)
        self._iam = admin.client("iam", endpoint_url=self.url)
        sqs = admin.client("sqs", endpoint_url=self.url)
        self.name = f"tasks-{secrets.token_hex(4)}"
        dead = sqs.create_queue(QueueName=f"{self.name}-dlq")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
        self.queue_url: str = sqs.create_queue(QueueName=self.name, Attributes={"RedrivePolicy": redrive})["QueueUrl"]
        admin.client("s3", endpoint_url=self.url).create_bucket(
            Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        self.cluster = make_cluster(self.url)
        self.definition = self.cluster["taskTypes"]["default"]["taskDefinition"]
        self.user = f"alakai-{secrets.token_hex(4)}"
        self._iam.create_user(UserName=self.user)
        key = self._iam.create_access_key(UserName=self.user)["AccessKey"]
        self.credentials = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
        }

    def grant(self, document: str) -> None:
        self._guard("inf")
        self._iam.put_user_policy(UserName=self.user, PolicyName="alakai", PolicyDocument=document)
        self._guard("0")

    def open_to_all(self) -> None:
        self._guard("inf")

    def _guard(self, after_calls: str) -> None:
        httpx.post(f"{self.url}/moto-api/reset-auth", content=after_calls, trust_env=False).raise_for_status()


@pytest.fixture
def world(account: AwsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(account)
    for name, value in world.credentials.items():
        monkeypatch.setenv(name, value)
    _session.cache_clear()  # it has the credentials of whoever came first
    yield world
    _session.cache_clear()
    world.open_to_all()


async def everything(world: World) -> dict[str, str]:
    """Every call that we make, by what went wrong with it; the names of calls that work are missing."""
    wrong: dict[str, str] = {}
    settings = Settings(sqs_queue_url=world.queue_url)
    tasks = open_queue(world.queue_url, settings)
    outcomes = open_queue(f"{world.queue_url}-outcomes", settings)
    ecs = EcsClient(region=REGION, endpoint_url=world.url)
    archive = S3Archive(world.name, "task-tracking", region=REGION)
    started: list[str] = []

    async def released() -> None:
        messages = await tasks.receive(wait_seconds=1)
        assert messages
        await tasks.release(messages)
        assert await tasks.delete(messages) == []

    async def ran() -> None:
        subnet = world.cluster["taskTypes"]["default"]["subnets"]
        network = {"awsvpcConfiguration": {"subnets": subnet, "securityGroups": [], "assignPublicIp": "DISABLED"}}
        request = {
            "cluster": world.cluster["cluster"],
            "taskDefinition": world.definition,
            "launchType": "FARGATE",
            "networkConfiguration": network,
        }
        answer = await ecs.run_task(request, token="t" * 64, started_by="alakai-test", send_within_seconds=30)
        started.append(answer["tasks"][0]["taskArn"])

    async def owned() -> None:
        assert await tasks.owner("one") == "one", "the owner is not known"

    async def measured() -> None:
        assert (await tasks.depths()).dead_letters == 0
        assert await outcomes.waiting() == 0

    cluster = world.cluster["cluster"]
    calls: dict[str, Call] = {
        "send": lambda: tasks.send({"taskId": "a"}),
        "receive, release, delete": released,
        "tags": owned,
        "depths": measured,
        "outcomes": lambda: outcomes.send({"taskId": "a"}),
        "run": ran,
        "list": lambda: ecs.live_tasks(cluster, "alakai-test"),
        "describe": lambda: ecs.describe_tasks(cluster, started or ["x"]),
        "archive": archive.check,
        "store": lambda: archive.put("a", b"a"),
        "look up": lambda: archive.read("a"),
        "stop": lambda: ecs.stop_task(cluster, started[0] if started else "x", "a test"),
    }
    try:
        for name, call in calls.items():
            try:
                await call()
            except (QueueUnavailable, QueueUnclear, EcsRefused, EcsUnclear, ArchiveUnavailable, AssertionError) as no:
                wrong[name] = str(no)
    finally:
        for queue in (tasks, outcomes):
            await queue.close()
        await ecs.close()
        await archive.close()
    return wrong


async def test_every_call_is_let_through(world: World) -> None:
    world.grant(policy())
    assert await everything(world) == {}


@pytest.mark.parametrize("action", [item for item in actions() if item != NOT_CHECKED])
async def test_without_one_of_its_actions_a_call_is_refused(world: World, action: str) -> None:
    world.grant(policy(without=action))
    assert await everything(world) != {}


def test_only_what_needs_it_is_for_every_resource() -> None:
    for statement in json.loads(POLICY.read_text())["Statement"]:
        if statement["Resource"] == "*":
            assert statement["Action"] == "ecs:ListTasks"
            assert "Condition" in statement
        assert "*" not in json.dumps(statement["Action"])


def test_no_call_is_made_that_the_policy_does_not_know() -> None:
    """By what stands in the adapters: boto3's methods are the operations' names in snake case."""
    folder = Path(__file__).parents[2] / "executions" / "adapters"
    found = subprocess.run(
        ["grep", "-ohE", r"\b(sqs|ecs|s3)\.[a-z_0-9]+\(", *(folder / name for name in ADAPTERS)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    made = {
        f"{service}:{''.join(part.capitalize() for part in method.rstrip('(').removesuffix('_batch').split('_'))}"
        for service, _, method in (item.partition(".") for item in found)
    }
    made = {OTHERWISE_NAMED.get(item, item) for item in made}
    assert made - set(actions()) == set()
    assert set(actions()) - made == {NOT_CHECKED}
