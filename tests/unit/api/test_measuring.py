"""Requests are counted by route, never by path."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from tests.unit.api.conftest import Api


def count(route: str, method: str, status: str) -> float:
    labels = {"route": route, "method": method, "status": status}
    return REGISTRY.get_sample_value("alakai_http_requests_total", labels) or 0


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/health", "/health", "200"),
        ("POST", "/task-complete", "/task-complete", "400"),
        ("POST", "/dashboard/executions/task-1/retry", "/dashboard/executions/{taskId}/retry", "401"),
        ("GET", "/nowhere/canary", "none", "404"),
        ("BREW", "/health", "/health", "405"),
    ],
)
async def test_a_request_is_counted_by_its_route(api: Api, method: str, path: str, route: str, status: str) -> None:
    labelled = method if method != "BREW" else "OTHER"
    before = count(route, labelled, status)
    answer = await api.send(method, path)
    assert str(answer.status_code) == status
    assert count(route, labelled, status) == before + 1
    seen = [
        sample.labels["route"]
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name.startswith("alakai_http") and "route" in sample.labels
    ]
    assert not [item for item in seen if "canary" in item or "task-1" in item]
