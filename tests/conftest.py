"""Real parts for the tests that need them: started once per run, on free loopback ports, ended by their own handles.

Unit tests use none of these fixtures and open no socket.
"""

from __future__ import annotations

import itertools
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from devstack import infra
from devstack.aws import AwsServer
from devstack.infra import apply_crds
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from devstack.workloads import Workloads
from executions.adapters.redis_connection import connect
from executions.adapters.redis_epoch import create_epoch
from executions.adapters.redis_store import RedisStore
from executions.adapters.settings import Settings
from executions.adapters.sqs_queue import SqsQueue, open_queue

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real redis-server with an append-only file."""
    server = RedisServer.start(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    """A moto server: SQS, S3, ECS."""
    server = AwsServer.start(tmp_path_factory.mktemp("aws"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real kube-apiserver and etcd with our custom resource definition."""
    plane = ControlPlane.start(tmp_path_factory.mktemp("kubernetes"))
    apply_crds(str(plane.kubeconfig))
    yield plane
    plane.stop()


@pytest.fixture(scope="session")
def workloads(kube: ControlPlane) -> Iterator[Workloads]:
    """The Job controller and a node that pretends, on the control plane of ``kube``."""
    workloads = Workloads.start(kube)
    yield workloads
    workloads.stop()


@pytest.fixture
def namespace(kube: ControlPlane) -> str:
    """A fresh namespace; without controllers in the cluster nobody would ever finish removing it, so it stays."""
    name = f"test-{next(_numbers)}-{secrets.token_hex(3)}"
    subprocess.run(
        [kube.kubectl, "--kubeconfig", kube.kubeconfig, "create", "namespace", name],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return name


@pytest.fixture
def prefix() -> str:
    """A key prefix of the test's own, so that tests share one Redis."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
async def redis_store(redis_server: RedisServer, prefix: str) -> AsyncIterator[RedisStore]:
    """A store on the real Redis, its epoch made."""
    store = RedisStore(connect(redis_server.url), prefix)
    await create_epoch(store.redis, prefix)
    yield store
    await store.close()


@pytest.fixture
async def task_queue(aws: AwsServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqsQueue]:
    """A queue of the test's own on the real server, with a dead-letter queue."""
    values = {"AWS_ENDPOINT_URL": aws.url, "AWS_REGION": "us-east-1"}
    for name, value in {**values, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    sqs = infra.sqs_client(values)
    url = infra.ensure_queue(sqs, prefix)
    sqs.close()
    queue = open_queue(url, Settings(sqs_queue_url=url))
    yield queue
    await queue.close()


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parent.parent
