"""Who asks too often waits, and keeps nobody else waiting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.errors import Refused
from api.limits import RateLimit
from api.main import bind
from tests.support.fake_identity import JANES_TOKEN
from tests.unit.api.harness import Api

AUTHORIZED = {"authorization": f"Bearer {JANES_TOKEN}"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(limit: RateLimit, key: str, times: int) -> int:
    """How many of so many requests in a row are let through."""
    through = 0
    for _ in range(times):
        try:
            limit.take(key)
        except Refused:
            continue
        through += 1
    return through


def test_a_burst_is_let_through_and_then_so_many_per_second() -> None:
    clock = Clock()
    limit = RateLimit(2, 5, clock=clock)
    assert taken(limit, "jane", 20) == 5
    assert taken(limit, "joe", 20) == 5, "each has a bucket of their own"
    clock.now += 1
    assert taken(limit, "jane", 20) == 2
    clock.now += 60
    assert taken(limit, "jane", 20) == 5, "and never more than a burst"


def test_the_refusal_says_when_to_come_again() -> None:
    clock = Clock()
    limit = RateLimit(0.1, 1, clock=clock)
    limit.take("jane")
    clock.now += 2.5
    with pytest.raises(Refused) as refused:
        limit.take("jane")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "8"})
    clock.now += 8
    limit.take("jane")


def test_without_a_rate_there_is_no_limit() -> None:
    assert taken(RateLimit(0, 1), "jane", 1000) == 1000


def test_callers_with_ever_new_names_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.limits._KEYS_KEPT", 10)
    limit = RateLimit(1, 1, clock=Clock())
    for number in range(1000):
        limit.take(f"key-{number}")
    assert len(limit._full_at) == 10


def limited(api: Api, **limits: RateLimit) -> Api:
    bind(api.app, replace(api.context, **limits))
    return api


async def test_a_person_who_clicks_too_often_is_told_so_before_anything_is_verified(api: Api) -> None:
    limited(api, per_person=RateLimit(0.01, 4))
    await api.fail("task-1")
    answers = [await api.send("POST", "/dashboard/executions/task-1/retry", headers=AUTHORIZED) for _ in range(6)]
    assert [item.status_code for item in answers] == [202, 202, 202, 202, 429, 429]
    assert answers[-1].json() == {"error": "too many requests; try again later"}
    assert int(answers[-1].headers["retry-after"]) > 0
    assert len(api.identity.asked) == 4


async def test_the_workers_of_one_task_keep_no_other_waiting(api: Api) -> None:
    limited(api, per_task=RateLimit(0.01, 2))
    for task_id in ("task-1", "task-2"):
        await api.fail(task_id)

    async def reported(task_id: str) -> int:
        body = {"taskId": task_id, "result": {"status": "success"}}
        return (await api.send("POST", "/task-complete", json=body)).status_code

    assert [await reported("task-1") for _ in range(3)] == [200, 200, 429]
    assert await reported("task-2") == 200
    claim = {"taskId": "task-1", "attempt": 1, "launchTry": 1, "claimId": "one"}
    assert (await api.send("POST", "/task-claim", json=claim)).status_code == 429
