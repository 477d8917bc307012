"""Installations for the end-to-end tests: real processes on the real parts that the session's fixtures provide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from tests.e2e.installation import Installation


@pytest.fixture
def installation(
    redis_server: RedisServer, aws: AwsServer, kube: ControlPlane, tmp_path: Path
) -> Iterator[Installation]:
    """A fresh one in which nothing runs yet."""
    with Installation(redis_server, aws, kube, tmp_path) as found:
        yield found


@pytest.fixture(scope="session")
def served(
    redis_server: RedisServer, aws: AwsServer, kube: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """One that many tests share, with two controllers and an API; each test uses task ids of its own."""
    with Installation(redis_server, aws, kube, tmp_path_factory.mktemp("served")) as found:
        found.start_both(controllers=2)
        yield found


@pytest.fixture(scope="session")
def scale() -> int:
    """How many of a kind are used where the number does not matter much: ALAKAI_E2E_SCALE=full takes more."""
    return 100 if os.environ.get("ALAKAI_E2E_SCALE") == "full" else 20
