"""``POST /task-complete`` and ``POST /task-claim``: what workers are told, also while the store is away."""

from __future__ import annotations

from typing import Any

import pytest

from executions.record import Status
from tests.support.builders import intended, pending, running, task_document
from tests.unit.api.harness import Api

SUCCESS = {"taskId": "task-1", "result": {"status": "success", "pullRequestUrl": "https://github.com/x/y/pull/7"}}
FAILURE = {"taskId": "task-1", "result": {"status": "error", "errorMessage": "codex provider timed out"}}
CANONICAL = {
    "taskId": "task-1",
    "taskType": "digest",
    "status": "failure",
    "error": {"message": "no feed", "code": "FEED_EMPTY"},
}
CLAIM = {"taskId": "task-1", "attempt": 1, "launchTry": 1, "claimId": "instance-1"}


async def complete(api: Api, body: Any) -> tuple[int, Any]:
    response = await api.send("POST", "/task-complete", json=body)
    return response.status_code, response.json()


async def claim(api: Api, **changes: Any) -> tuple[int, Any]:
    response = await api.send("POST", "/task-claim", json={**CLAIM, **changes})
    return response.status_code, response.json()


@pytest.mark.parametrize(
    ("body", "status", "message", "code"),
    [
        (SUCCESS, Status.SUCCEEDED, None, None),
        (FAILURE, Status.FAILED, "codex provider timed out", None),
        (CANONICAL, Status.FAILED, "no feed", "FEED_EMPTY"),
        ({"taskId": "task-1", "status": "success"}, Status.SUCCEEDED, None, None),
        ({**FAILURE, "attempt": 1, "unknown": {"a": [1, None]}}, Status.FAILED, "codex provider timed out", None),
    ],
)
@pytest.mark.parametrize("live", [running, intended])
async def test_the_first_outcome_of_a_live_attempt_decides_it(
    api: Api, live: Any, body: dict[str, Any], status: Status, message: str | None, code: str | None
) -> None:
    await api.keep(live())
    document = {"recorded": True, "taskId": "task-1", "attempt": 1, "status": status.value}
    assert await complete(api, body) == (200, document)
    latest = (await api.found("task-1")).latest
    assert (latest.status, latest.error_message, latest.error_code) == (status, message, code)


async def test_a_repeat_changes_nothing(api: Api) -> None:
    await api.keep(running())
    await complete(api, SUCCESS)
    before = api.store.records["task-1"]
    for body in (SUCCESS, FAILURE):
        assert await complete(api, body) == (200, {"recorded": False, "reason": "already_finished"})
    assert api.store.records["task-1"] == before


@pytest.mark.parametrize("attempt", [2, 1000])
async def test_an_outcome_for_another_attempt_changes_nothing(api: Api, attempt: int) -> None:
    await api.keep(running())
    assert await complete(api, {**SUCCESS, "attempt": attempt}) == (200, {"recorded": False, "reason": "superseded"})
    assert (await api.found("task-1")).latest.status is Status.RUNNING


async def test_an_attempt_that_was_never_launched_has_no_outcome(api: Api) -> None:
    await api.keep(pending())
    assert await complete(api, SUCCESS) == (200, {"recorded": False, "reason": "superseded"})


async def test_an_unknown_task(api: Api) -> None:
    assert await complete(api, SUCCESS) == (404, {"error": "execution not found"})


@pytest.mark.parametrize("path", ["/task-complete", "/task-claim"])
async def test_an_empty_body_with_a_json_content_type(api: Api, path: str) -> None:
    response = await api.send("POST", path, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["code"] == "FST_ERR_CTP_EMPTY_JSON_BODY"


async def test_while_redis_is_away_the_outcome_is_kept_with_the_time_of_receipt(api: Api) -> None:
    api.store.unavailable = True
    body = {**CANONICAL, "unknown": {"a": [1.5, None, "ä"]}, "token": "t"}
    assert await complete(api, body) == (202, {"recorded": False, "queued": True})
    del body["token"]  # a secret, and there is nothing here to check it with
    assert api.outcomes.sent == [{"receivedAtMs": api.store.now, "outcome": body}]
    assert api.retries.sent == []


@pytest.mark.parametrize("fault", ["unavailable", "unclear"])
async def test_when_nobody_has_kept_the_outcome_the_worker_is_sent_away(api: Api, fault: str) -> None:
    api.store.unavailable = True
    setattr(api.outcomes, fault, True)
    response = await api.send("POST", "/task-complete", json=SUCCESS)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "recorded" not in response.json()


async def test_an_outcome_for_a_record_that_cannot_be_read_is_not_lost(api: Api) -> None:
    api.store.records["task-1"] = {"1": b"not json"}
    response = await api.send("POST", "/task-complete", json=SUCCESS)
    assert response.status_code == 503
    assert "retry-after" in response.headers
    assert api.store.records["task-1"] == {"1": b"not json"}


WRONG_OUTCOMES: dict[str, Any] = {
    "no task id": {"result": {"status": "success"}},
    "task id that is a number": {**SUCCESS, "taskId": 1},
    "task id that is null": {**SUCCESS, "taskId": None},
    "task id that is a list": {**SUCCESS, "taskId": ["task-1"]},
    "empty task id": {**SUCCESS, "taskId": ""},
    "task id of 129 characters": {**SUCCESS, "taskId": "c" * 129},
    "task id of 60,000 characters": {**SUCCESS, "taskId": "canary" * 10_000},
    "task id with NUL": {**SUCCESS, "taskId": "canary\0"},
    "task id with a newline at its end": {**SUCCESS, "taskId": "task-1\n"},
    "task id with a slash": {**SUCCESS, "taskId": "../canary"},
    "task id with a star": {**SUCCESS, "taskId": "*"},
    "task id with a full-width digit": {**SUCCESS, "taskId": "task-\uff11"},
    "task id with a right-to-left mark": {**SUCCESS, "taskId": "task\u202e1"},
    "neither result nor status": {"taskId": "task-1"},
    "result that is text": {"taskId": "task-1", "result": "success"},
    "result that is a list": {"taskId": "task-1", "result": []},
    "result that is null": {"taskId": "task-1", "result": None},
    "result without a status": {"taskId": "task-1", "result": {}},
    "result with the other shape's status": {"taskId": "task-1", "result": {"status": "failure"}},
    "status of the other shape": {"taskId": "task-1", "status": "error"},
    "status in capitals": {"taskId": "task-1", "status": "SUCCESS"},
    "status that is true": {"taskId": "task-1", "status": True},
    "status that is a list": {"taskId": "task-1", "status": ["success"]},
    "error that is text": {"taskId": "task-1", "status": "failure", "error": "canary"},
    "error message that is a number": {"taskId": "task-1", "result": {"status": "error", "errorMessage": 5}},
    "error message that is an object": {"taskId": "task-1", "result": {"status": "error", "errorMessage": {}}},
    "error code that is a number": {"taskId": "task-1", "status": "failure", "error": {"code": 5}},
    "error code of 300 characters": {"taskId": "task-1", "status": "failure", "error": {"code": "c" * 300}},
    "attempt 0": {**SUCCESS, "attempt": 0},
    "attempt -1": {**SUCCESS, "attempt": -1},
    "attempt 1001": {**SUCCESS, "attempt": 1001},
    "attempt 2^63": {**SUCCESS, "attempt": 2**63},
    "attempt 2^70": {**SUCCESS, "attempt": 2**70},
    "attempt as text": {**SUCCESS, "attempt": "1"},
    "attempt as a float": {**SUCCESS, "attempt": 1.0},
    "attempt as true": {**SUCCESS, "attempt": True},
    "attempt as a list": {**SUCCESS, "attempt": [1]},
    "launch try 0": {**SUCCESS, "launchTry": 0},
    "launch try as text": {**SUCCESS, "launchTry": "1"},
    "error family that is a list": {**FAILURE, "errorFamily": []},
    "retry time that is an object": {**FAILURE, "retryNotBefore": {}},
    "retry time that is true": {**FAILURE, "retryNotBefore": True},
    "agent that is text": {**SUCCESS, "agent": "canary"},
    "agent provider that is a number": {**SUCCESS, "agent": {"provider": 1}},
    "token that is a number": {**SUCCESS, "token": 1},
    "token of 2,000 characters": {**SUCCESS, "token": "canary" * 400},
    "pull request that is a list": {"taskId": "task-1", "result": {"status": "success", "pullRequestUrl": []}},
    "pull request of 3,000 characters": {"taskId": "task-1", "status": "success", "pullRequestUrl": "c" * 3000},
}


@pytest.mark.parametrize("body", WRONG_OUTCOMES.values(), ids=WRONG_OUTCOMES.keys())
async def test_an_outcome_that_says_nothing_usable(api: Api, body: Any) -> None:
    await api.keep(running())
    status, answer = await complete(api, body)
    assert status == 400
    assert "canary" not in str(answer)
    assert (await api.found("task-1")).latest.status is Status.RUNNING


@pytest.mark.parametrize("message", ["a\0b", "\u202e", "x" * 50_000, "\x1b[31m", "💥"])
async def test_an_error_text_of_any_kind_does_not_cost_the_outcome(api: Api, message: str) -> None:
    await api.keep(running())
    body = {"taskId": "task-1", "result": {"status": "error", "errorMessage": message}}
    assert (await complete(api, body))[0] == 200
    assert (await api.found("task-1")).latest.error_message == message[:4096]


async def test_the_first_claim_gets_the_work_and_its_repeats_too(api: Api) -> None:
    await api.keep(intended())
    order = {
        "taskId": "task-1",
        "taskType": "implementation",
        "attempt": 1,
        "launchTry": 1,
        "run": 1,
        "traceId": "trace-task-1",
        "task": task_document("task-1"),
        "retry": {},
    }
    for _ in range(3):
        assert await claim(api, token="t") == (200, order)
    assert (await claim(api, claimId="instance-2"))[0] == 409


@pytest.mark.parametrize("changes", [{"attempt": 2}, {"launchTry": 2}])
async def test_a_claim_of_another_launch_is_refused(api: Api, changes: dict[str, Any]) -> None:
    await api.keep(intended())
    status, answer = await claim(api, **changes)
    assert (status, list(answer)) == (409, ["error"])
    assert (await claim(api))[0] == 200


async def test_a_claim_of_a_finished_attempt_is_refused(api: Api) -> None:
    await api.fail("task-1")
    assert (await claim(api))[0] == 409


async def test_a_claim_of_an_unknown_task(api: Api) -> None:
    assert await claim(api) == (404, {"error": "execution not found"})


async def test_a_claim_whose_payload_is_lost(api: Api) -> None:
    await api.keep(intended().with_latest(task_snapshot=None))
    assert await claim(api) == (409, {"error": "the task payload is lost"})


async def test_a_claim_while_redis_is_away(api: Api) -> None:
    api.store.unavailable = True
    response = await api.send("POST", "/task-claim", json=CLAIM)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert api.outcomes.sent == []


WRONG_CLAIMS: dict[str, Any] = {
    "nothing": {},
    "no task id": {**CLAIM, "taskId": None},
    "task id with NUL": {**CLAIM, "taskId": "canary\0"},
    "task id with a slash": {**CLAIM, "taskId": "a/canary"},
    "task id too long": {**CLAIM, "taskId": "canary" * 1000},
    "task id that is a list": {**CLAIM, "taskId": ["task-1"]},
    "attempt 0": {**CLAIM, "attempt": 0},
    "attempt as text": {**CLAIM, "attempt": "1"},
    "attempt as a float": {**CLAIM, "attempt": 1.0},
    "attempt as true": {**CLAIM, "attempt": True},
    "attempt 2^70": {**CLAIM, "attempt": 2**70},
    "launch try -1": {**CLAIM, "launchTry": -1},
    "launch try missing": {**CLAIM, "launchTry": None},
    "claim id empty": {**CLAIM, "claimId": ""},
    "claim id with a newline": {**CLAIM, "claimId": "canary\n"},
    "claim id with a space": {**CLAIM, "claimId": "can ary"},
    "claim id too long": {**CLAIM, "claimId": "c" * 129},
    "claim id that is a number": {**CLAIM, "claimId": 5},
    "token that is a list": {**CLAIM, "token": []},
    "token too long": {**CLAIM, "token": "canary" * 200},
}


@pytest.mark.parametrize("body", WRONG_CLAIMS.values(), ids=WRONG_CLAIMS.keys())
async def test_a_claim_that_says_nothing_usable(api: Api, body: Any) -> None:
    await api.keep(intended())
    response = await api.send("POST", "/task-claim", json=body)
    assert response.status_code == 400
    assert "canary" not in response.text
    launch = (await api.found("task-1")).latest.launch
    assert launch is not None
    assert launch.claim_id is None
