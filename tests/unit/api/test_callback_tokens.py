"""Callbacks with a token: it decides which launch speaks, whatever the body says, and before the store is asked."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from executions.adapters.callback_keys import CallbackKeys
from executions.lifecycle import ended, intend_launch, launched
from executions.record import Execution, Status
from executions.submission import submit
from tests.support.builders import NOW_MS, POLICY, a_task, pending
from tests.unit.api.harness import Api

SUCCESS = {"taskId": "task-1", "result": {"status": "success"}}
FAILURE = {"taskId": "task-1", "taskType": "digest", "status": "failure", "error": {"message": "no"}}
UNAUTHORIZED = (401, {"error": "callback_unauthorized"})
KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def keys(tmp_path: Path) -> CallbackKeys:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"current": "a", "keys": {"a": KEY}}))
    return CallbackKeys(path, "alakai-executions")


@pytest.fixture
def make(make_api: Callable[..., Api], keys: CallbackKeys) -> Callable[..., Api]:
    """An application that knows the keys; ``required`` closes it to callbacks without a token."""
    return lambda required=False: make_api(callback_keys=keys, callback_token_required=required)


@pytest.fixture
def api(make: Callable[..., Api]) -> Api:
    return make()


def at_work(execution: Execution, token: str, key: str | None = "a") -> Execution:
    """The latest attempt with a worker whose launch has this idempotency token."""
    number = execution.latest.number
    intent = intend_launch(execution, number, token=token, request={}, now_ms=NOW_MS, policy=POLICY, callback_key=key)
    launch_try = intent.latest.launch_tries
    return launched(intent, number, launch_try, worker_id=f"worker-{token[0]}", now_ms=NOW_MS)


def first() -> Execution:
    return at_work(pending(), "1" * 64)


def second() -> Execution:
    """Attempt 1 was lost, attempt 2 is at work."""
    lost = ended(first(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="gone")
    again = submit(lost, a_task(), now_ms=NOW_MS, policy=POLICY, launcher="local", incarnation="unused").execution
    assert again is not None
    return at_work(again, "2" * 64)


def token(keys: CallbackKeys, execution: Execution, attempt: int = 1) -> str:
    found = execution.attempt(attempt)
    assert found is not None
    assert found.launch is not None
    made = keys.ring.token("task-1", attempt, found.launch)
    assert made is not None
    return made


async def complete(api: Api, body: dict[str, Any]) -> tuple[int, Any]:
    response = await api.send("POST", "/task-complete", json=body)
    return response.status_code, response.json()


async def claim(api: Api, **fields: Any) -> int:
    body = {"taskId": "task-1", "attempt": 1, "launchTry": 1, "claimId": "instance-1", **fields}
    return (await api.send("POST", "/task-claim", json=body)).status_code


@pytest.mark.parametrize("required", [False, True])
async def test_a_worker_with_its_token_claims_and_reports(
    make: Callable[..., Api], keys: CallbackKeys, required: bool
) -> None:
    api = make(required)
    await api.keep(first())
    mine = token(keys, first())
    assert await claim(api, token=mine) == 200
    assert await claim(api, token=mine, claimId="instance-2") == 409
    status, body = await complete(api, {**SUCCESS, "token": mine})
    assert (status, body["recorded"], body["status"]) == (200, True, "succeeded")


@pytest.mark.parametrize(("required", "status"), [(False, 200), (True, 401)])
async def test_without_a_token_it_depends_on_whether_one_is_asked_for(
    make: Callable[..., Api], required: bool, status: int
) -> None:
    api = make(required)
    await api.keep(first())
    assert await claim(api) == status
    assert (await complete(api, SUCCESS))[0] == status


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"), id="forged"),
        pytest.param(lambda token: token.replace(".1.1.", ".2.1."), id="for another attempt than it was made for"),
        pytest.param(lambda token: token.replace("v1.a.", "v1.b."), id="an unknown key"),
        pytest.param(lambda _: "nonsense", id="nonsense"),
        pytest.param(lambda _: "", id="empty"),
    ],
)
async def test_a_bad_token_is_worse_than_none(api: Api, keys: CallbackKeys, change: Callable[[str], str]) -> None:
    await api.keep(first())
    bad = change(token(keys, first()))
    with capture_logs() as logs:
        assert await complete(api, {**SUCCESS, "token": bad}) == UNAUTHORIZED
        assert await claim(api, token=bad) == 401
    assert [line["event"] for line in logs] == ["A callback was refused"] * 2
    assert not bad or bad not in str(logs)
    assert (await api.found("task-1")).latest.status is Status.RUNNING
    assert api.events == []


async def test_an_expired_token(api: Api, keys: CallbackKeys) -> None:
    await api.keep(first())
    mine = token(keys, first())
    api.store.now += 31 * 24 * 3600 * 1000
    assert await complete(api, {**SUCCESS, "token": mine}) == UNAUTHORIZED


async def test_a_token_of_another_task(api: Api, keys: CallbackKeys) -> None:
    await api.keep(first())
    assert await complete(api, {**SUCCESS, "taskId": "task-2", "token": token(keys, first())}) == UNAUTHORIZED


@pytest.mark.parametrize("contradiction", [{"attempt": 2}, {"launchTry": 2}])
async def test_a_body_that_contradicts_its_token(api: Api, keys: CallbackKeys, contradiction: dict[str, int]) -> None:
    await api.keep(first())
    mine = token(keys, first())
    assert await complete(api, {**SUCCESS, **contradiction, "token": mine}) == UNAUTHORIZED
    assert await claim(api, token=mine, **contradiction) == 401


async def test_the_token_of_an_earlier_attempt_never_decides_a_later_one(api: Api, keys: CallbackKeys) -> None:
    await api.keep(second())
    late = token(keys, second(), 1)
    assert await complete(api, {**SUCCESS, "token": late}) == (200, {"recorded": False, "reason": "superseded"})
    found = await api.found("task-1")
    assert (found.latest.number, found.latest.status) == (2, Status.RUNNING)
    lost = found.attempt(1)
    assert lost is not None
    assert [result.succeeded for result in lost.late_results] == [True]
    status, body = await complete(api, {**FAILURE, "token": token(keys, second(), 2)})
    assert (status, body["attempt"], body["status"]) == (200, 2, "failed")


async def test_the_token_of_an_earlier_incarnation_is_good_for_nothing(api: Api, keys: CallbackKeys) -> None:
    earlier = token(keys, first())
    await api.keep(at_work(pending(), "9" * 64))
    assert await complete(api, {**SUCCESS, "token": earlier}) == (200, {"recorded": False, "reason": "superseded"})
    assert await claim(api, token=earlier) == 409
    assert (await api.found("task-1")).latest.status is Status.RUNNING


async def test_a_record_edited_by_hand_still_knows_its_worker(api: Api, keys: CallbackKeys) -> None:
    await api.keep(first())
    api.store.records["task-1"]["1"] = api.store.records["task-1"]["1"].replace(b'"run":1', b'"run":7')
    assert (await api.found("task-1")).state.incarnation != "incarnation-1"
    assert (await complete(api, {**SUCCESS, "token": token(keys, first())}))[1]["recorded"] is True


async def test_while_the_store_is_away_the_launch_is_kept_and_not_its_token(api: Api, keys: CallbackKeys) -> None:
    await api.keep(first())
    api.store.unavailable = True
    mine = token(keys, first())
    assert (await complete(api, {**SUCCESS, "token": mine}))[0] == 202
    assert await complete(api, {**SUCCESS, "token": mine + "x"}) == UNAUTHORIZED
    (kept,) = api.outcomes.sent
    assert kept["launch"] == {"attempt": 1, "launchTry": 1, "id": "1" * 32}
    assert mine not in json.dumps(kept)


async def test_without_keys_a_token_says_nothing(make_api: Callable[..., Api]) -> None:
    api = make_api()
    await api.keep(first())
    assert (await complete(api, {**SUCCESS, "token": "whatever"}))[1]["recorded"] is True
