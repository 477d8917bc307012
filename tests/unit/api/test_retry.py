"""``POST /dashboard/executions/{taskId}/retry``: all its answers, double clicks, dry runs, outages."""

from __future__ import annotations

import asyncio

import pytest

from executions.lifecycle import launched
from executions.record import Status
from executions.submission import dispatch
from tests.support.builders import POLICY, a_task, intended, pending, running, task_document
from tests.unit.api.harness import Api

QUEUED = {"taskId": "task-1", "attempt": 2, "status": "queued"}


async def test_a_failed_attempt_is_queued_with_the_next_number(api: Api) -> None:
    await api.fail("task-1")
    response = await api.retry("task-1")
    assert (response.status_code, response.json()) == (202, QUEUED)
    assert api.retries.sent == [{**task_document("task-1"), "attempt": 2}]


async def test_nobody_is_signed_in(api: Api) -> None:
    await api.fail("task-1")
    response = await api.send("POST", "/dashboard/executions/task-1/retry")
    assert (response.status_code, response.json()) == (401, {"error": "dashboard_unauthorized"})
    assert response.headers["www-authenticate"] == "Bearer"
    assert api.retries.sent == []


async def test_there_is_no_record(api: Api) -> None:
    response = await api.retry("task-1")
    assert (response.status_code, response.json()) == (404, {"error": "execution not found"})


@pytest.mark.parametrize("status", ["running", "pending", "succeeded", "cancelled"])
async def test_the_latest_attempt_is_not_failed(api: Api, status: str) -> None:
    await api.keep(running().with_latest(status=Status(status)))
    response = await api.retry("task-1")
    assert response.status_code == 409
    assert response.json() == {"error": f"cannot retry execution in status '{status}'"}


async def test_the_budget_is_spent(api: Api) -> None:
    await api.fail("task-1")
    await api.retry("task-1")
    task = a_task("task-1", attempt=2)
    failed = await api.found("task-1")
    claimed = dispatch(
        failed, task, now_ms=api.store.now, policy=POLICY, launcher="local", incarnation="other"
    ).execution
    assert claimed is not None
    await api.keep(claimed.with_latest(status=Status.FAILED))
    response = await api.retry("task-1")
    assert (response.status_code, response.json()) == (409, {"error": "retry budget exhausted", "maxRetries": 1})


async def test_the_payload_is_lost(api: Api) -> None:
    await api.keep(running().with_latest(status=Status.FAILED, task_snapshot=None))
    response = await api.retry("task-1")
    assert (response.status_code, response.json()) == (409, {"error": "cannot retry: task payload is lost"})


async def test_redis_is_away(api: Api) -> None:
    api.store.unavailable = True
    response = await api.retry("task-1")
    assert response.status_code == 502
    assert response.json() == {"error": "the execution store cannot be used right now; try again"}


async def test_the_enqueue_fails_and_the_mark_is_withdrawn(api: Api) -> None:
    await api.fail("task-1")
    api.retries.unavailable = True
    response = await api.retry("task-1")
    assert (response.status_code, response.json()) == (502, {"error": "the retry could not be enqueued; try again"})
    assert (await api.found("task-1")).state.retry is None
    api.retries.unavailable = False
    assert (await api.retry("task-1")).status_code == 202


async def test_an_unclear_send_counts_as_sent(api: Api) -> None:
    await api.fail("task-1")
    api.retries.unclear = True
    assert (await api.retry("task-1")).json() == QUEUED
    assert (await api.found("task-1")).state.retry is not None


async def test_a_record_that_cannot_be_read(api: Api) -> None:
    api.store.records["task-1"] = {"1": b"{"}
    response = await api.retry("task-1")
    assert response.status_code == 502


async def test_forty_clicks_at_once_are_one_retry(api: Api) -> None:
    await api.fail("task-1")
    responses = await asyncio.gather(*(api.retry("task-1") for _ in range(40)))
    assert {(item.status_code, item.text) for item in responses} == {(202, responses[0].text)}
    assert responses[0].json() == QUEUED
    assert len(api.retries.sent) == 1


async def test_a_click_soon_after_the_attempt_began_gets_the_same_answer(api: Api) -> None:
    await api.fail("task-1")
    await api.retry("task-1")
    decision = dispatch(
        await api.found("task-1"),
        a_task("task-1", attempt=2),
        now_ms=api.store.now,
        policy=POLICY,
        launcher="local",
        incarnation="other",
    )
    assert decision.execution is not None
    await api.keep(decision.execution)
    api.store.now += 9_000
    assert (await api.retry("task-1")).json() == QUEUED
    api.store.now += 2_000
    assert (await api.retry("task-1")).json() == {"error": "cannot retry execution in status 'pending'"}


async def test_a_dry_run_answers_the_same_and_does_nothing(api: Api) -> None:
    await api.fail("task-1")
    before = await api.found("task-1")
    response = await api.retry("task-1", "?dryRun=true")
    assert (response.status_code, response.json()) == (202, QUEUED)
    assert (await api.found("task-1")).state == before.state
    assert api.retries.sent == []
    assert (await api.retry("task-2", "?dryRun=true")).status_code == 404
    await api.keep(pending("task-3"))
    assert (await api.retry("task-3", "?dryRun=true")).status_code == 409
    assert (await api.retry("task-1", "?dryRun=false")).status_code == 202
    assert len(api.retries.sent) == 1


@pytest.mark.parametrize("query", ["?dryRun=canary", "?dryRun=", "?dryRun=2", "?dryRun=%00"])
async def test_a_dry_run_that_is_not_yes_or_no(api: Api, query: str) -> None:
    await api.fail("task-1")
    response = await api.retry("task-1", query)
    assert response.status_code == 422
    assert response.json() == {"error": "the parameter 'dryRun' is invalid: bool_parsing"}
    assert api.retries.sent == []


@pytest.mark.parametrize("body", [{}, {"unknown": [1]}])
async def test_a_body_is_not_needed_and_may_be_there(api: Api, body: dict[str, object]) -> None:
    await api.fail("task-1")
    assert (await api.post("/dashboard/executions/task-1/retry", json=body)).status_code == 202


async def test_who_asked_is_kept(api: Api) -> None:
    await api.fail("task-1")
    await api.retry("task-1")
    mark = (await api.found("task-1")).state.retry
    assert mark is not None
    assert mark.requested_by == "jane@example.org"


async def test_an_attempt_with_a_launch_that_nobody_answered_is_pending(api: Api) -> None:
    await api.keep(intended())
    assert (await api.retry("task-1")).json() == {"error": "cannot retry execution in status 'pending'"}
    execution = await api.found("task-1")
    await api.keep(launched(execution, 1, 1, worker_id="w", now_ms=api.store.now))
    assert (await api.retry("task-1")).json() == {"error": "cannot retry execution in status 'running'"}
