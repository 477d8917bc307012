"""Ports and names: what `make up` and `make reset` decide before they touch anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devstack import reset, stack
from devstack.errors import DevstackError


def redis_part(local: Path) -> stack.Component:
    return next(part for part in stack.components(local) if part.variable == "REDIS_URL")


def test_the_default_ports_are_the_guides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEV_REDIS_PORT", "DEV_AWS_PORT", "DEV_KUBERNETES_PORT"):
        monkeypatch.delenv(name, raising=False)
    ports = {part.variable: part.wanted_port() for part in stack.components(tmp_path)}
    assert ports == {"KUBECONFIG": 6443, "REDIS_URL": 6379, "AWS_ENDPOINT_URL": 4566}


def test_a_port_variable_wins_over_the_port_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEV_REDIS_PORT", raising=False)
    part = redis_part(tmp_path)
    part.listener.folder.mkdir()
    part.listener.pid_file.write_text(json.dumps({"pid": 999_999_999, "started": 0, "port": 7001}))
    assert part.wanted_port() == 7001
    monkeypatch.setenv("DEV_REDIS_PORT", "7002")
    assert part.wanted_port() == 7002


@pytest.mark.parametrize("value", ["abc", "0", "65536", "-1", "6379 ", "²"])
def test_a_bad_port_names_its_variable(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV_REDIS_PORT", value)
    with pytest.raises(DevstackError, match=r"DEV_REDIS_PORT is .* set it to a port number"):
        redis_part(tmp_path).wanted_port()


def test_keys_to_delete_follow_the_prefixes_and_escape_wildcards() -> None:
    patterns = reset.key_patterns(
        {
            "EXECUTIONS_REDIS_KEY_PREFIX": "team*a",
            "TASK_TRACKING_REDIS_KEY_PREFIX": "mine:",
            "TASK_TRACKING_REDIS_STREAM_KEY": "events[1]",
        }
    )
    assert patterns == [
        r"team\*a:*",
        r"team\*a/*",
        "alakai-local:*",
        "task-tracking:*",
        "task-events:*",
        "mine:task-tracking:*",
        r"events\[1\]",
    ]


def test_keys_to_delete_by_default() -> None:
    assert reset.key_patterns({}) == [
        "alakai-executions:*",
        "alakai-executions/*",
        "alakai-local:*",
        "task-tracking:*",
        "task-events:*",
    ]


def test_only_queues_that_we_use_are_purged() -> None:
    values = {
        "SQS_QUEUE_URL": "http://x/000000000000/tasks",
        "IMPLEMENTATION_SQS_QUEUE_URL": "http://x/000000000000/tasks",
        "OUTCOMES_SQS_QUEUE_URL": "http://x/000000000000/kept",
    }
    assert reset.queue_names(values) == ["tasks", "tasks-dlq", "tasks-outcomes", "kept"]
