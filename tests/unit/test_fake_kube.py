"""The API server in memory keeps the promises of ``cluster.Cluster``."""

from __future__ import annotations

import pytest

from tests.support.cluster_contract import ClusterContract
from tests.support.fake_kube import FakeCluster


class TestFakeCluster(ClusterContract):
    @pytest.fixture
    def cluster(self) -> FakeCluster:
        return FakeCluster()
