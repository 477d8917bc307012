"""Retry and cancel for many: what a selector selects, that each is answered as on its own route, and what bounds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from api.routes.bulk import _each
from executions.visibility import Visibility
from tests.support.builders import NOW_MS, running
from tests.support.memory_tracking import tracked
from tests.unit.api.harness import Api

RETRY, CANCEL = "/dashboard/executions/retry", "/dashboard/executions/cancel"
JOHNS = {"visibility": {"responsibleUsers": ["john@example.org"]}}


async def failed(api: Api, *names: str, **fields: Any) -> None:
    """Executions whose first attempt failed, each with its row; the last one is the newest."""
    for name in names:
        await api.fail(name)
        at_ms = NOW_MS + len(api.tasks.places)
        api.tasks.put(tracked(name, at_ms=at_ms, status="error", phase="Failed", **fields))


async def asked(api: Api, path: str, **body: Any) -> dict[str, Any]:
    answer = await api.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def statuses(found: dict[str, Any]) -> dict[str, int]:
    return {item["taskId"]: item["status"] for item in found["results"]}


async def test_each_task_is_answered_as_on_its_own_route(api: Api) -> None:
    await failed(api, "task-1", "task-2")
    await api.keep(running("task-3"))
    found = await asked(api, RETRY, selector={"taskIds": ["task-1", "task-3", "never-there", "-bad", "task-1"]})
    assert found["results"] == [
        {"taskId": "task-1", "status": 202, "body": {"taskId": "task-1", "attempt": 2, "status": "queued"}},
        {"taskId": "task-3", "status": 409, "body": {"error": "cannot retry execution in status 'running'"}},
        {"taskId": "never-there", "status": 404, "body": {"error": "execution not found"}},
        {"taskId": "-bad", "status": 404, "body": {"error": "execution not found"}},
    ]
    assert (found["left"], found["nextCursor"], found["dryRun"]) == ([], None, False)
    assert [message["taskId"] for message in api.retries.sent] == ["task-1"]
    mark = (await api.found("task-1")).state.retry
    assert mark is not None
    assert mark.requested_by == "jane@example.org"
    assert [event["final_status"] for event in api.events] == ["queued", "not_failed"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"status": "Failed"}, ["task-3", "task-2", "task-1"]),
        ({"status": "error", "project": "other/repo"}, ["task-3"]),
        ({"actor": "jane"}, ["task-2"]),
        ({"text": "SK-1"}, ["task-1"]),
        ({"taskIds": ["task-1", "task-2"], "project": "my-org/my-repo"}, ["task-1", "task-2"]),
        ({"taskIds": ["task-1", "task-2"], "status": "Running"}, []),
        ({"taskIds": [], "status": "Running"}, []),
        ({"status": "Cancelled"}, []),
    ],
)
async def test_what_a_selector_selects(api: Api, selector: dict[str, Any], expected: list[str]) -> None:
    await failed(api, "task-1")
    await failed(api, "task-2", actor={"id": "Jane"})
    await failed(api, "task-3", project="other/repo")
    found = await asked(api, RETRY, selector=selector, dryRun=True)
    assert statuses(found) == dict.fromkeys(expected, 202)


async def test_a_dry_run_answers_the_same_and_does_nothing(api: Api) -> None:
    await failed(api, "task-1")
    await api.keep(running("task-2"))
    selector = {"taskIds": ["task-1", "task-2"]}
    tried = await asked(api, RETRY, selector=selector, dryRun=True)
    assert api.retries.sent == []
    assert (await asked(api, RETRY, selector=selector)) == {**tried, "dryRun": False}
    tried = await asked(api, CANCEL, selector=selector, reason="wrong branch", dryRun=True)
    assert statuses(tried) == {"task-1": 202, "task-2": 202}
    assert (await api.found("task-2")).state.cancellation is None
    done = await asked(api, CANCEL, selector=selector, reason="wrong branch")
    assert statuses(done) == statuses(tried)
    cancellation = (await api.found("task-2")).state.cancellation
    assert cancellation is not None
    assert (cancellation.reason, cancellation.requested_by) == ("wrong branch", "jane@example.org")
    assert statuses(await asked(api, CANCEL, selector=selector, reason="wrong branch")) == dict.fromkeys(
        ["task-1", "task-2"], 200
    )


async def test_nothing_is_done_to_what_the_person_does_not_see(make_api: Callable[..., Api]) -> None:
    api = make_api(visibility=Visibility({"my-org/*": ["john@example.org"]}))
    await failed(api, "secret", **JOHNS)
    await failed(api, "open", visibility={"responsibleUsers": []})
    await api.fail("no-row")
    assert statuses(await asked(api, RETRY, selector={"status": "Failed"})) == {"open": 202}
    found = await asked(api, RETRY, selector={"taskIds": ["secret", "no-row"]})
    assert {item["body"]["error"] for item in found["results"]} == {"execution not found"}
    assert [message["taskId"] for message in api.retries.sent] == ["open"]


async def test_many_are_done_page_by_page(api: Api) -> None:
    names = [f"task-{number:03}" for number in range(120)]
    await failed(api, *names)
    done, cursor = list[str](), None
    while True:
        found = await asked(api, RETRY, selector={"status": "Failed"}, limit=50, cursor=cursor)
        done += statuses(found)
        cursor = found["nextCursor"]
        if cursor is None:
            break
    assert done == names[::-1]
    assert len(api.retries.sent) == 120


async def test_what_was_not_come_to_in_time_is_named_and_nothing_was_done_with_it() -> None:
    begun = list[str]()

    async def slow(task_id: str) -> tuple[int, dict[str, Any]]:
        begun.append(task_id)
        await asyncio.sleep(0.1)
        return 202, {}

    results = await _each([f"task-{number}" for number in range(100)], slow, seconds=0.15)
    assert set(results) == set(begun)
    assert len(begun) == 16


async def test_an_outage_is_the_answer_of_those_it_met(api: Api) -> None:
    await failed(api, "task-1", "task-2")
    api.retries.unavailable = True
    found = await asked(api, RETRY, selector={"status": "Failed"})
    assert {item["body"]["error"] for item in found["results"]} == {"the retry could not be enqueued; try again"}
    assert set(statuses(found).values()) == {502}
    api.tasks.unavailable = True
    assert (await api.post(RETRY, json={"selector": {"status": "Failed"}})).status_code == 502


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "the field 'selector' is invalid: missing"),
        ({"selector": {}}, "the selector must name something"),
        ({"selector": {"taskIds": []}}, "the selector must name something"),
        ({"selector": {"stauts": "Failed"}}, "the field 'selector' is invalid: extra_forbidden"),
        ({"selector": {"status": "canary"}}, "the field 'selector' is invalid: string_pattern_mismatch"),
        ({"selector": {"text": ""}}, "the field 'selector' is invalid: string_too_short"),
        ({"selector": {"taskIds": ["x"] * 201}}, "the field 'selector' is invalid: too_long"),
        ({"selector": {"taskIds": "x"}}, "the field 'selector' is invalid: list_type"),
        ({"selector": {"status": "Failed"}, "dryRun": "true"}, "the field 'dryRun' is invalid: bool_type"),
        ({"selector": {"status": "Failed"}, "limit": 201}, "the field 'limit' is invalid: less_than_equal"),
        ({"selector": {"taskIds": ["x"]}, "cursor": "MTph"}, "a selector with taskIds has no cursor"),
    ],
)
async def test_a_selection_that_is_not_usable_is_refused(api: Api, body: dict[str, Any], error: str) -> None:
    for path in (RETRY, CANCEL):
        answer = await api.post(path, json={**body, "reason": "r"})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(error)


async def test_a_cancel_needs_a_reason_and_a_cursor_must_be_ours(api: Api) -> None:
    answer = await api.post(CANCEL, json={"selector": {"status": "Failed"}})
    assert answer.json() == {"error": "the field 'reason' is invalid: missing"}
    answer = await api.post(RETRY, json={"selector": {"status": "Failed"}, "cursor": "canary"})
    assert answer.status_code == 422
    assert (await api.send("POST", RETRY, json={"selector": {"status": "Failed"}})).status_code == 401
