"""One summary event per request that did something, joined by the trace id, without secrets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.builders import intended, running
from tests.unit.api.harness import Api

SUCCESS = {"taskId": "task-1", "result": {"status": "success", "pullRequestUrl": "https://github.com/x/y/pull/7"}}


def told(api: Api) -> tuple[str, str, dict[str, str]]:
    """Outcome, final status and steps of the only event."""
    (event,) = api.events
    return event["outcome"], event["final_status"], event["steps"]


async def test_a_retry_is_told_as_the_guide_reads_it(api: Api) -> None:
    await api.fail("task-1")
    await api.retry("task-1")
    (event,) = api.events
    assert event["service"] == "alakai-core"
    assert event["context"] == {"trace_id": "trace-task-1", "component": "core"}
    assert event["msg"] == "[event] coding.implementation -> success"
    assert event["repo"]["full_name"] == "my-org/my-repo"
    assert event["task"] == {"task_id": "task-1", "task_type": "implementation", "source": "coding.implementation"}
    assert event["final_status"] == "queued"
    assert event["steps"] == {"authenticate": "ok", "request": "ok", "enqueue": "ok"}
    assert event["error"] is None


async def test_the_click_that_joins_enqueues_nothing(api: Api) -> None:
    await api.fail("task-1")
    await api.retry("task-1")
    await api.retry("task-1")
    assert [event["steps"]["enqueue"] for event in api.events] == ["ok", "-"]
    assert [event["final_status"] for event in api.events] == ["queued", "queued"]


async def test_a_dry_run_is_skipped(api: Api) -> None:
    await api.fail("task-1")
    await api.retry("task-1", "?dryRun=true")
    assert told(api) == ("skipped", "dry_run", {"authenticate": "ok", "request": "ok", "enqueue": "-"})


async def test_a_refused_retry_is_skipped(api: Api) -> None:
    await api.keep(running())
    await api.retry("task-1")
    assert told(api) == ("skipped", "not_failed", {"authenticate": "ok", "request": "ok", "enqueue": "-"})


async def test_a_retry_of_an_unknown_task_is_traced_by_its_id(api: Api) -> None:
    await api.retry("task-1")
    (event,) = api.events
    assert (event["trace_id"], event["event"], event["final_status"]) == ("task-1", "retry", "not_found")


async def test_an_enqueue_that_failed_is_an_error(api: Api) -> None:
    await api.fail("task-1")
    api.retries.unavailable = True
    await api.retry("task-1")
    assert told(api) == ("error", "queue_unavailable", {"authenticate": "ok", "request": "ok", "enqueue": "error"})
    assert api.events[0]["error"]["type"] == "QueueUnavailable"
    assert api.events[0]["trace_id"] == "trace-task-1"


@pytest.mark.parametrize("control", ["retry", "cancel", "done", "assign"])
async def test_a_store_that_is_away_is_an_error(api: Api, control: str) -> None:
    api.store.unavailable = True
    await api.post(f"/dashboard/executions/task-1/{control}", json={"reason": "r", "assignee": "a"})
    step = "request" if control == "retry" else control
    assert told(api) == ("error", "store_unavailable", {"authenticate": "ok", step: "error"})
    assert api.events[0]["error"]["type"] == "StoreUnavailable"


async def test_a_cancellation(api: Api) -> None:
    await api.keep(running())
    await api.post("/dashboard/executions/task-1/cancel", json={"reason": "canary"})
    assert told(api) == ("success", "accepted", {"authenticate": "ok", "cancel": "ok"})


async def test_who_is_not_signed_in_or_sends_rubbish_did_nothing(api: Api) -> None:
    await api.send("POST", "/dashboard/executions/task-1/retry")
    await api.send("POST", "/task-complete", json={})
    await api.send("GET", "/livez")
    assert api.events == []


@pytest.mark.parametrize(
    ("body", "final_status"),
    [(SUCCESS, "succeeded"), ({"taskId": "task-1", "status": "failure", "error": {"message": "x"}}, "failed")],
)
async def test_an_outcome_that_was_recorded(api: Api, body: dict[str, Any], final_status: str) -> None:
    await api.keep(running())
    await api.send("POST", "/task-complete", json=body)
    assert told(api) == ("success", final_status, {"record": "ok"})
    assert api.events[0]["trace_id"] == "trace-task-1"


async def test_what_a_worker_adds_is_told(api: Api) -> None:
    await api.keep(running())
    await api.send("POST", "/task-complete", json={**SUCCESS, "agent": {"provider": "codex", "model": "m"}})
    assert api.events[0]["agent"] == {"provider": "codex", "model": "m"}
    assert api.events[0]["pull_request"] == {"url": "https://github.com/x/y/pull/7", "number": 7}


async def test_an_outcome_that_changed_nothing_is_skipped(api: Api) -> None:
    await api.fail("task-1")
    await api.send("POST", "/task-complete", json=SUCCESS)
    assert told(api) == ("skipped", "already_finished", {"record": "ok"})


async def test_an_outcome_that_is_kept_is_a_success_with_a_failed_step(api: Api) -> None:
    api.store.unavailable = True
    await api.send("POST", "/task-complete", json=SUCCESS)
    assert told(api) == ("success", "queued", {"record": "error", "keep": "ok"})


@pytest.mark.parametrize("fault", ["unavailable", "unclear"])
async def test_an_outcome_that_nobody_kept_is_an_error(api: Api, fault: str) -> None:
    api.store.unavailable = True
    setattr(api.outcomes, fault, True)
    await api.send("POST", "/task-complete", json=SUCCESS)
    assert told(api) == ("error", "queue_unavailable", {"record": "error", "keep": "error"})


async def test_a_claim(api: Api) -> None:
    await api.keep(intended())
    claim = {"taskId": "task-1", "attempt": 1, "launchTry": 1, "claimId": "i"}
    for changes in ({}, {"claimId": "j"}):
        await api.send("POST", "/task-claim", json={**claim, **changes})
    assert [(event["outcome"], event["final_status"]) for event in api.events] == [
        ("success", "granted"),
        ("skipped", "refused"),
    ]


async def test_a_record_without_a_message_is_told_by_what_is_known(api: Api) -> None:
    await api.keep(running().with_latest(task_snapshot=None, trace_id=None))
    await api.send("POST", "/task-complete", json=SUCCESS)
    (event,) = api.events
    assert (event["event"], event["trace_id"]) == ("implementation", "task-1")
    assert event["task"]["task_id"] == "task-1"


async def test_no_secret_is_told(api: Api) -> None:
    await api.keep(running())
    url = "https://jane:canary@github.com/x/y/pull/7?token=canary"
    body = {"taskId": "task-1", "status": "success", "pullRequestUrl": url, "token": "canary", "password": "canary"}
    await api.send("POST", "/task-complete", json=body)
    await api.send("POST", "/task-complete", json={**body, "status": "failure", "error": {"message": "token=canary"}})
    assert len(api.events) == 2
    assert "canary" not in str(api.events)
