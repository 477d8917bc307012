"""Cancel, done and assign over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from executions.record import Schedule, Status
from tests.support.builders import NOW_MS, pending, running
from tests.unit.api.harness import Api

BODIES: dict[str, dict[str, Any]] = {
    "cancel": {"reason": "wrong branch"},
    "done": {"reason": "solved by hand"},
    "assign": {"assignee": "jane"},
}
CONTROLS = list(BODIES)


def path(control: str, task_id: str = "task-1") -> str:
    return f"/dashboard/executions/{task_id}/{control}"


async def scheduled(api: Api) -> None:
    """A failed execution whose automatic retry waits for John."""
    await api.fail("task-1")
    schedule = Schedule(attempt=2, due_at=NOW_MS + 60_000, reason="transient", assignee="john")
    await api.keep((await api.found("task-1")).with_state(schedule=schedule, assignee="john"))


async def test_cancelling_a_running_attempt_leaves_the_end_to_the_reconciler(api: Api) -> None:
    await api.keep(running())
    response = await api.post(path("cancel"), json={"reason": "wrong branch"})
    assert (response.status_code, response.json()) == (202, {"taskId": "task-1", "attempt": 1, "status": "running"})
    cancellation = (await api.found("task-1")).state.cancellation
    assert cancellation is not None
    assert (cancellation.reason, cancellation.requested_by) == ("wrong branch", "jane@example.org")


async def test_cancelling_a_waiting_attempt_ends_it(api: Api) -> None:
    await api.keep(pending())
    response = await api.post(path("cancel"), json={"reason": "wrong branch"})
    assert (response.status_code, response.json()["status"]) == (202, "cancelled")
    assert (await api.found("task-1")).latest.status is Status.CANCELLED


# A new assignee does not wait: the failed task is claimed for them at once.
AFTER: dict[str, dict[str, Any]] = {control: {"attempt": 1, "status": "failed"} for control in CONTROLS}
AFTER["assign"] = {"attempt": 2, "status": "pending"}


@pytest.mark.parametrize("control", CONTROLS)
async def test_a_scheduled_retry_is_dropped(api: Api, control: str) -> None:
    await scheduled(api)
    response = await api.post(path(control), json=BODIES[control])
    assert (response.status_code, response.json()) == (202, {"taskId": "task-1", **AFTER[control]})
    schedule = (await api.found("task-1")).state.schedule
    assert schedule is not None
    assert schedule.outcome == "dropped"


@pytest.mark.parametrize("control", CONTROLS)
async def test_a_second_time_nothing_is_left_to_do(api: Api, control: str) -> None:
    await scheduled(api)
    await api.post(path(control), json=BODIES[control])
    response = await api.post(path(control), json=BODIES[control])
    assert (response.status_code, response.json()) == (200, {"taskId": "task-1", **AFTER[control]})


async def test_done_leaves_a_live_worker_alone(api: Api) -> None:
    await api.keep(running())
    response = await api.post(path("done"), json={"reason": "x"})
    assert (response.status_code, response.json()["status"]) == (200, "running")


async def test_work_can_be_for_nobody(api: Api) -> None:
    await scheduled(api)
    assert (await api.post(path("assign"), json={"assignee": None})).status_code == 202
    assert (await api.found("task-1")).state.assignee is None


@pytest.mark.parametrize("control", CONTROLS)
async def test_refusals_that_all_controls_share(api: Api, control: str) -> None:
    body = BODIES[control]
    unauthorized = await api.send("POST", path(control), json=body)
    assert (unauthorized.status_code, unauthorized.json()) == (401, {"error": "dashboard_unauthorized"})
    unknown = await api.post(path(control), json=body)
    assert (unknown.status_code, unknown.json()) == (404, {"error": "execution not found"})
    api.store.unavailable = True
    away = await api.post(path(control), json=body)
    assert away.status_code == 502
    assert "store" in away.json()["error"]


WRONG: dict[str, list[dict[str, Any]]] = {
    "reason": [
        {},
        {"reason": None},
        {"reason": ""},
        {"reason": 1},
        {"reason": True},
        {"reason": ["canary"]},
        {"reason": {"canary": 1}},
        {"reason": "canary" * 200},
        {"reason": "canary\0"},
        {"reason": "canary\nline"},
        {"Reason": "canary"},
    ],
    "assignee": [
        {},
        {"assignee": ""},
        {"assignee": 1},
        {"assignee": False},
        {"assignee": ["canary"]},
        {"assignee": {"canary": 1}},
        {"assignee": "c" * 257},
        {"assignee": "canary\x1b[31m"},
    ],
}


@pytest.mark.parametrize(
    ("control", "body"),
    [
        (control, body)
        for control, fieldname in (("cancel", "reason"), ("done", "reason"), ("assign", "assignee"))
        for body in WRONG[fieldname]
    ],
)
async def test_a_field_that_is_wrong_is_named_and_not_repeated(api: Api, control: str, body: dict[str, Any]) -> None:
    await api.keep(running())
    before = await api.found("task-1")
    response = await api.post(path(control), json=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith("the field 'assignee'" if control == "assign" else "the field 'reason'")
    assert "canary" not in response.text
    assert (await api.found("task-1")).state == before.state


@pytest.mark.parametrize("control", CONTROLS)
async def test_a_dry_run_tells_what_would_happen_and_does_nothing(api: Api, control: str) -> None:
    await scheduled(api)
    before = await api.found("task-1")
    tried = await api.post(path(control) + "?dryRun=true", json=BODIES[control])
    assert await api.found("task-1") == before
    assert api.events[-1]["outcome"] == "skipped"
    assert api.events[-1]["final_status"] == "dry_run"
    done = await api.post(path(control), json=BODIES[control])
    assert (tried.status_code, tried.json()) == (done.status_code, done.json())
    assert await api.found("task-1") != before
