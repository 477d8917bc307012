"""What people read: rows in pages, one row, one execution in full; who sees what; Redis away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from executions.admission import BreakerRule, Hold, Slots, Standing
from executions.execution_view import overview_shown
from executions.lifecycle import ended, hindered
from executions.moment import iso_from_ms
from executions.ports import Identity
from executions.record import Evidence, LateResult, Status, Waiting
from executions.rows import STATES
from executions.visibility import Visibility
from tests.support.builders import NOW_MS, POLICY, a_task, pending, running
from tests.support.memory_tracking import tracked
from tests.unit.api.harness import Api

TASKS = "/dashboard/tasks"
EVERYBODYS: dict[str, Any] = {"visibility": {"responsibleUsers": []}}
JOHNS: dict[str, Any] = {"visibility": {"responsibleUsers": ["john@example.org"]}}


async def listed(api: Api, query: str = "", **arguments: Any) -> list[str]:
    answer = await api.get(f"{TASKS}{query}", **arguments)
    assert answer.status_code == 200, answer.text
    return [row["executionId"] for row in answer.json()["tasks"]]


async def test_rows_come_from_the_newest_on_page_by_page(api: Api) -> None:
    api.tasks.put(*(tracked(f"e{number:03}", at_ms=NOW_MS + number // 3) for number in range(130)))
    found: list[str] = []
    cursor, pages = "", 0
    while True:
        page = (await api.get(f"{TASKS}?limit=40{cursor}")).json()
        found += [row["executionId"] for row in page["tasks"]]
        pages += 1
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert found == [f"e{number:03}" for number in sorted(range(130), key=lambda n: (n // 3, n), reverse=True)]
    assert pages == 4


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["c", "b", "a"]),
        ("?project=my-org/my-repo", ["c", "a"]),
        ("?status=error", ["b"]),
        ("?status=Running", ["c", "a"]),
        ("?actor=jane%20dev", ["c"]),
        ("?text=FIX%20the", ["a"]),
        ("?project=my-org/my-repo&actor=u1", ["c"]),
        ("?project=nobody/has-this", []),
    ],
)
async def test_rows_are_filtered(api: Api, query: str, expected: list[str]) -> None:
    api.tasks.put(
        tracked("a", at_ms=NOW_MS, taskName="Fix the widget"),
        tracked("b", at_ms=NOW_MS + 1, project="other/repo", status="error", phase="Failed"),
        tracked("c", at_ms=NOW_MS + 2, actor={"provider": "slack", "id": "U1", "display": "Jane Dev"}),
    )
    assert await listed(api, query) == expected


async def test_the_work_for_one_request_is_bounded_and_it_says_where_to_go_on(api: Api) -> None:
    api.tasks.put(*(tracked(f"e{number:05}", at_ms=NOW_MS + number) for number in range(5_000)))
    api.tasks.put(tracked("old", at_ms=NOW_MS - 1, project="other/repo", taskName="needle"))
    found, cursor, requests = list[str](), "", 0
    while True:
        before = api.tasks.read_ids
        page = (await api.get(f"{TASKS}?text=needle{cursor}")).json()
        assert api.tasks.read_ids - before <= 2_000
        found += [row["executionId"] for row in page["tasks"]]
        requests += 1
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert (found, requests) == (["old"], 3)


@pytest.mark.parametrize(
    "query",
    [
        *("?limit=0", "?limit=201", "?limit=x", "?status=canary", "?status=", "?project=", f"?text={'x' * 257}"),
        *("?cursor=canary", "?cursor=", f"?cursor={'A' * 3000}", "?cursor=%00"),
    ],
)
async def test_a_parameter_that_is_not_usable_is_refused_by_name(api: Api, query: str) -> None:
    answer = await api.get(f"{TASKS}{query}")
    assert answer.status_code == 422
    assert query[1:].split("=")[0] in answer.json()["error"]
    assert "canary" not in answer.text


@pytest.mark.parametrize("state", STATES)
async def test_each_status_and_phase_may_be_asked_for(api: Api, state: str) -> None:
    assert await listed(api, f"?status={state}") == []


async def test_nobody_sees_rows_that_are_for_others(api: Api) -> None:
    api.identity.people["johns"] = Identity("1002", "John@Example.org")
    api.tasks.put(
        tracked("secret", at_ms=NOW_MS + 2, **JOHNS),
        tracked("unreadable", at_ms=NOW_MS + 1, visibility={"responsibleUsers": "jane@example.org"}),
        tracked("open", visibility={"responsibleUsers": []}),
    )
    assert await listed(api) == ["open"]
    assert await listed(api, person="johns") == ["secret", "open"]
    assert (await api.get(f"{TASKS}/secret", person="johns")).status_code == 200
    for name in ("secret", "unreadable", "never-there"):
        answer = await api.get(f"{TASKS}/{name}")
        assert (answer.status_code, answer.json()) == (404, {"error": "task not found"})


async def test_rows_that_tell_nothing_of_visibility_are_seen_as_the_file_says(make_api: Callable[..., Api]) -> None:
    api = make_api(visibility=Visibility({"my-org/*": ["john@example.org"]}))
    api.tasks.put(tracked("hidden"), tracked("open", project="other/repo"))
    assert await listed(api) == ["open"]


async def test_one_row_is_found_by_whatever_upstream_named_it(api: Api) -> None:
    for name in ("impl-1", "my-org/my-repo#12", "with space/and?", "ü"):
        api.tasks.put(tracked(name))
        answer = await api.get(f"{TASKS}/{quote(name, safe='')}")
        assert (answer.status_code, answer.json()["executionId"]) == (200, name)


async def test_rows_that_others_spoiled_are_left_out(api: Api) -> None:
    api.tasks.put(tracked("good"), tracked("bad"))
    api.tasks.fields["bad"] = {"executionId": "bad"}
    assert await listed(api) == ["good"]
    assert (await api.get(f"{TASKS}/bad")).status_code == 404


async def detail(api: Api, task_id: str = "task-1") -> dict[str, Any]:
    answer = await api.get(f"/dashboard/executions/{task_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_failed_execution_in_full(api: Api) -> None:
    seen = Evidence(source="ecs:DescribeTasks", observed_at=NOW_MS, detail="STOPPED, exit code 137", code="WORKER_OOM")
    lost = ended(
        running(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_OOM", message="token=hush-hush1", evidence=[seen]
    )
    late = LateResult(succeeded=True, received_at=NOW_MS + 5, pull_request_url="https://github.com/o/r/pull/7")
    await api.keep(lost.with_latest(late_results=[late]))
    found = await detail(api)
    assert (found["taskId"], found["executionId"], found["project"]) == ("task-1", "task-1", "my-org/my-repo")
    assert (found["phase"], found["status"], found["reason"]) == ("Failed", "error", "WorkerOom")
    assert found["next"] == "annotate alakai.dev/retry to retry"
    assert (found["retriesLeft"], found["canRetry"], found["retryRefusal"], found["canCancel"]) == (
        1,
        True,
        None,
        False,
    )
    (attempt,) = found["attempts"]
    assert (attempt["status"], attempt["errorCode"], attempt["workerId"]) == (
        "failed",
        "WORKER_OOM",
        "worker-of-task-1",
    )
    assert attempt["evidence"][0]["detail"] == "STOPPED, exit code 137"
    assert attempt["lateResults"] == [
        {
            "status": "success",
            "receivedAt": iso_from_ms(NOW_MS + 5),
            "message": None,
            "pullRequestUrl": "https://github.com/o/r/pull/7",
        }
    ]
    assert "hush-hush1" not in orjson.dumps(found).decode()


async def test_neither_payload_nor_launch_nor_token_is_told(api: Api) -> None:
    await api.keep(running())
    text = orjson.dumps(await detail(api)).decode()
    for secret in ("add retries", "callbacks", "issueNumber", "t" * 64, "request", "taskSnapshot"):
        assert secret not in text


async def test_what_waits_says_for_what_and_names_no_other_task(api: Api) -> None:
    await api.keep(running("task-of-others"))
    waiting = Waiting(reason="SlotUnavailable", message="no slot is free", since=NOW_MS)
    await api.keep(hindered(pending(), 1, waiting))
    await api.store.hold(Hold("jane", "the provider is down", NOW_MS))
    found = await detail(api)
    assert (found["phase"], found["reason"], found["next"]) == (
        "Pending",
        "SlotUnavailable",
        "launch, once a slot is free",
    )
    assert [item["what"] for item in found["obstacles"]] == ["on hold", "slots"]
    assert "task-of-others" not in orjson.dumps(found).decode()
    assert (found["canRetry"], found["retryRefusal"], found["canCancel"]) == (False, "not_failed", True)


@pytest.mark.parametrize(("attempts", "left"), [(1, 1), (2, 0)])
async def test_what_is_left_of_the_budget(api: Api, attempts: int, left: int) -> None:
    await api.keep(running().with_latest(status=Status.FAILED, number=attempts, error_message="boom"))
    found = await detail(api)
    assert (found["retriesLeft"], found["canRetry"]) == (left, left > 0)
    assert found["retryRefusal"] == (None if left else "budget_exhausted")


async def test_every_attempt_of_a_long_record_is_told_up_to_a_hundred(api: Api) -> None:
    execution = running()
    for number in range(2, 131):
        execution = execution.with_attempt(execution.latest.model_copy(update={"number": number}))
    await api.keep(execution)
    assert [item["attempt"] for item in (await detail(api))["attempts"]] == list(range(31, 131))


@pytest.mark.parametrize(
    ("case", "row", "file", "status"),
    [
        ("its row is for others", tracked("task-1", **JOHNS), Visibility(), 404),
        (
            "its row is for all, the file is not asked",
            tracked("task-1", visibility={"responsibleUsers": []}),
            None,
            200,
        ),
        ("no row yet: the file says it is for others", None, None, 404),
        ("no row yet, and nothing in the file", None, Visibility(), 200),
        (
            "the row is another task's: the file",
            tracked("task-1", taskId="x", visibility={"responsibleUsers": []}),
            None,
            404,
        ),
        ("its row cannot be read", tracked("task-1", visibility="x"), Visibility(), 404),
    ],
)
async def test_who_sees_an_execution(
    make_api: Callable[..., Api], case: str, row: dict[str, Any] | None, file: Visibility | None, status: int
) -> None:
    api = make_api(visibility=Visibility({"my-org/*": ["john@example.org"]}) if file is None else file)
    await api.keep(running())
    if row is not None:
        api.tasks.put(row)
    answer = await api.get("/dashboard/executions/task-1")
    assert answer.status_code == status
    if status == 404:
        assert answer.json() == {"error": "execution not found"}


async def test_the_row_is_looked_up_by_the_name_that_upstream_gave(api: Api) -> None:
    snapshot = a_task("task-1", metadata={"executionId": "row-7"}).snapshot()
    await api.keep(running().with_latest(task_snapshot=snapshot))
    api.tasks.put(tracked("row-7", taskId="task-1", **JOHNS))
    assert (await api.get("/dashboard/executions/task-1")).status_code == 404


async def test_there_is_no_such_execution(api: Api) -> None:
    assert (await api.get("/dashboard/executions/task-1")).status_code == 404
    assert (await api.get("/dashboard/executions/-bad")).status_code == 400


@pytest.mark.parametrize("path", [TASKS, f"{TASKS}/task-1", "/dashboard/executions/task-1"])
async def test_redis_is_away(api: Api, path: str) -> None:
    await api.keep(running())
    api.tasks.unavailable = True
    answer = await api.get(path)
    assert (answer.status_code, answer.json()) == (
        502,
        {"error": "the execution store cannot be used right now; try again"},
    )


@pytest.mark.parametrize("path", [TASKS, f"{TASKS}/task-1", "/dashboard/executions/task-1"])
async def test_nobody_reads_without_signing_in(api: Api, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer canary"}, {"x-dev-user": "jane@example.org"}):
        assert (await api.send("GET", path, headers=headers)).status_code == 401


def test_slots_are_told_in_all_and_by_type_also_of_types_that_nobody_uses() -> None:
    policy = replace(POLICY, slots=Slots(10, {"digest": 2}))
    found = overview_shown(NOW_MS, None, [], Standing({"implementation": 3}, {"implementation": 1, "bug": 2}), policy)
    assert found["slots"] == {"limit": 10, "live": 3, "waiting": 3}
    assert {item.pop("taskType"): item for item in found["types"]} == {
        "bug": {"limit": None, "live": 0, "waiting": 2},
        "digest": {"limit": 2, "live": 0, "waiting": 0},
        "implementation": {"limit": None, "live": 3, "waiting": 1},
    }


async def test_the_installation_at_a_glance(api: Api) -> None:
    empty = (await api.get("/dashboard/overview")).json()
    assert (empty["hold"], empty["breakers"]) == (None, [])
    assert empty["slots"] == {"limit": None, "live": 0, "waiting": 0}
    await api.keep(running("one"))
    await api.keep(pending("two"))
    await api.store.hold(Hold("jane", "the cluster moves", NOW_MS))
    found = (await api.get("/dashboard/overview")).json()
    assert found["now"] == iso_from_ms(api.store.now)
    assert found["hold"] == {"by": "jane", "reason": "the cluster moves", "since": iso_from_ms(NOW_MS)}
    assert found["maxRetries"] == POLICY.max_retries
    # Of other people's tasks there are figures, and no name.
    assert not {"one", "two"} & set(orjson.dumps(found).decode().split('"'))


async def test_an_open_breaker_is_seen(api: Api) -> None:
    rule = BreakerRule(failures=1)
    assert await api.store.count_launch_failure("ecs", "digest", "WORKER_NEVER_STARTED", key="one", rule=rule)
    (breaker,) = (await api.get("/dashboard/overview")).json()["breakers"]
    assert (breaker["launcher"], breaker["taskType"], breaker["code"]) == ("ecs", "digest", "WORKER_NEVER_STARTED")
    assert breaker["openedAt"] < breaker["probeAt"]


async def test_the_overview_is_not_told_without_redis_or_to_nobody(api: Api) -> None:
    assert (await api.send("GET", "/dashboard/overview")).status_code == 401
    api.store.unavailable = True
    assert (await api.get("/dashboard/overview")).status_code == 502
