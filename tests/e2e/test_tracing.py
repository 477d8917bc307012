"""The tracing guide's queries, word for word, on the lines that API, controller and real workers wrote in one run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from executions.slices import CATALOGUE
from tests.e2e.installation import Installation, message
from tests.support.logs_insights import query
from tests.support.otlp_receiver import OtlpReceiver

QUERIES = Path(__file__).parent / "queries"
TRACE_ID = "7d9f0d4e-0000-4000-8000-00000000cafe"
SLACK_USER = "U024BE7LH"
REPOSITORY = "my-org/traced"


def asked(name: str, lines: list[str], **values: str) -> list[dict[str, Any]]:
    text = (QUERIES / f"{name}.txt").read_text()
    for place, value in values.items():
        text = text.replace(place, value)
    assert "REPLACE" not in text
    return query(text, lines)


def traced(task_id: str, scenario: str, **fields: Any) -> dict[str, Any]:
    body = message(task_id, scenario, repo=REPOSITORY, **fields.pop("payload", {}))
    body["metadata"] |= fields.pop("metadata", {})
    return {**body, **fields}


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def lines(
    redis_server: RedisServer,
    aws: AwsServer,
    kube: ControlPlane,
    tmp_path_factory: pytest.TempPathFactory,
    collector: OtlpReceiver,
) -> Iterator[list[str]]:
    """A task that failed twice, one from Slack that failed, one that succeeded, some that waited for a slot."""
    settings = {
        "SLOTS_PER_TYPE": "implementation=2",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with Installation(redis_server, aws, kube, tmp_path_factory.mktemp("traced"), **settings) as installation:
        installation.start_both()
        slack = {"actor": {"provider": "slack", "id": SLACK_USER, "display": "Jane"}, "trace_id": "from-slack"}
        installation.send(
            traced("twice", "fail:all", metadata={"trace_id": TRACE_ID}),
            traced("asked", "fail", metadata=slack, payload={"source": "slack.implementation"}),
            traced("good", "succeed"),
            *(traced(f"waits-{number}", "slow", payload={"seconds": 1}) for number in range(3)),
        )
        installation.wait_for("twice", 1, "failed")
        assert installation.retry("twice")[0] == 202
        installation.wait_for("twice", 2, "failed")
        for task_id in ("asked", "good", "waits-0", "waits-1", "waits-2"):
            wanted = "failed" if task_id == "asked" else "succeeded"
            installation.wait_for(task_id, 1, wanted, 60)
        installation.wait_until(lambda: not installation.workers(), 30, "all workers have ended")
        for process in installation.running():
            assert process.stop() == 0  # and so the last spans are sent
        yield [line for line in installation.logs().splitlines() if line.startswith("{")]


def summaries(lines: list[str]) -> list[dict[str, Any]]:
    return [document for line in lines if "final_status" in (document := json.loads(line))]


def test_one_trace_is_a_row_for_each_slice_through_all_components(lines: list[str]) -> None:
    rows = [row for row in asked("trace", lines, REPLACE_WITH_TRACE_ID=TRACE_ID) if "final_status" in row]
    expected = [item for item in summaries(lines) if item["trace_id"] == TRACE_ID]
    assert len(rows) == len(expected) >= 9
    assert [row["@timestamp"] for row in rows] == sorted(item["time"] for item in expected)
    assert {row["context.component"] for row in rows} == {"core", "orchestrator", "worker"}
    statuses = [row["final_status"] for row in rows]
    assert statuses.count("claimed") == statuses.count("launched") == 2
    assert [row["final_status"] for row in rows if row["context.component"] == "worker"] == ["failed", "failed"]
    assert all(row["repo.full_name"] == REPOSITORY and row["task.task_id"] == "twice" for row in rows)
    failures = [row for row in rows if row["outcome"] == "error"]
    assert all(row["error.message"] for row in failures)


def test_all_lines_of_a_trace_come_with_their_levels(lines: list[str]) -> None:
    rows = asked("all-lines", lines, REPLACE_WITH_TRACE_ID=TRACE_ID)
    assert len(rows) >= 9
    assert all({"@timestamp", "context.component", "level", "msg"} <= row.keys() for row in rows)


def test_errors_are_found_by_outcome_and_by_event(lines: list[str]) -> None:
    errors = [item for item in summaries(lines) if item["outcome"] == "error"]
    rows = asked("recent-errors", lines)
    assert len(rows) == len(errors) >= 3
    assert [row["@timestamp"] for row in rows] == sorted((item["time"] for item in errors), reverse=True)
    of_event = asked("errors-of-an-event", lines)
    assert len(of_event) == len([item for item in errors if item["event"] == "coding.implementation"]) >= 2


def test_implementations_of_a_repository_are_its_workers(lines: list[str]) -> None:
    rows = asked("implementations-of-a-repository", lines, **{"REPLACE_WITH_ORG/REPO": REPOSITORY})
    workers = [item for item in summaries(lines) if item["component"] == "worker"]
    assert len(rows) == len(workers) == 7
    assert {row["event"] for row in rows} == {"coding.implementation", "slack.implementation"}


def test_failures_of_a_slack_user_are_found_by_the_users_id(lines: list[str]) -> None:
    rows = asked("slack-failures-of-a-user", lines, REPLACE_WITH_SLACK_USER_ID=SLACK_USER)
    assert rows
    assert {row["trace_id"] for row in rows} == {"from-slack"}
    assert asked("slack-failures-of-a-user", lines, REPLACE_WITH_SLACK_USER_ID="U0") == []


def test_waiting_for_a_slot_is_found(lines: list[str]) -> None:
    rows = asked("slot-contention", lines)
    assert rows
    assert {row["final_status"] for row in rows} == {"slot_unavailable"}


def test_slow_workers_are_those_above_the_limit(lines: list[str]) -> None:
    """No worker of a test works for five minutes; the same query finds those of a run in which time went faster."""
    assert asked("slow-workers", lines) == []
    faster = [json.dumps({**item, "duration_ms": item["duration_ms"] * 400}) for item in summaries(lines)]
    rows = asked("slow-workers", faster)
    expected = {item["trace_id"] for item in map(json.loads, faster) if _is_slow(item)}
    assert {row["trace_id"] for row in rows} == expected
    assert {"trace-waits-0", "trace-waits-1", "trace-waits-2"} <= expected


def _is_slow(item: dict[str, Any]) -> bool:
    return item["component"] == "worker" and item["duration_ms"] > 300_000


def test_durations_are_by_event_and_component(lines: list[str]) -> None:
    rows = asked("durations", lines)
    assert {(row["event"], row["context.component"]) for row in rows} >= {
        ("coding.implementation", component) for component in ("core", "orchestrator", "worker")
    }
    assert sum(row["total"] for row in rows) == len(summaries(lines))
    assert all(row["p90_ms"] <= row["p99_ms"] for row in rows)


def test_every_event_of_api_and_controller_is_a_span_with_its_ids(lines: list[str], collector: OtlpReceiver) -> None:
    expected = sorted(
        (item["service"], item["event"], item["trace_id"], item["final_status"], item["outcome"] == "error")
        for item in summaries(lines)
        if item["component"] != "worker"
    )
    spans = [
        (
            span.service,
            span.name,
            span.attributes["alakai.trace_id"],
            span.attributes["alakai.final_status"],
            span.is_error,
        )
        for span in collector.spans
    ]
    assert sorted(spans) == expected
    of_trace = {span.trace_id for span in collector.spans if span.attributes["alakai.trace_id"] == TRACE_ID}
    assert of_trace == {TRACE_ID.replace("-", "")}
    assert all(span.attributes["alakai.task_id"] for span in collector.spans)


def test_every_event_is_one_of_the_catalogue(lines: list[str]) -> None:
    seen = set[str]()
    for item in summaries(lines):
        kinds = [
            kind for kind in CATALOGUE if kind.component == item["component"] and set(item["steps"]) <= set(kind.steps)
        ]
        assert kinds, f"{item['component']} went through {item['steps']}"
        fitting = [kind for kind in kinds if item["final_status"] in kind.final_statuses]
        assert fitting, f"{item['component']} ended {item['final_status']} after {item['steps']}"
        seen.update(kind.name for kind in fitting)
    assert seen >= {"intake", "launch", "wait", "claim", "outcome", "retry", "work"}
    assert len(CATALOGUE) == len({(kind.component, kind.name) for kind in CATALOGUE})
