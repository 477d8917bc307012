"""``/health``, ``/livez``, ``/readyz``: what each looks at, and how little a probe may cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)

from api.probes import Health, Look
from executions.adapters.store_probe import RedisProbe
from executions.errors import StoreUnavailable
from tests.unit.api.harness import Api, FakeProbe

LIVE, READY = ["/livez", "/v0/livez"], ["/readyz", "/v0/healthz"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def probe(api: Api, path: str) -> tuple[int, Any]:
    response = await api.send("GET", path)
    return response.status_code, response.json()


@pytest.mark.parametrize("path", ["/health", *LIVE, *READY])
async def test_all_is_well(api: Api, path: str) -> None:
    assert await probe(api, path) == (200, {"ok": True})


@pytest.mark.parametrize("path", [*LIVE, *READY])
async def test_the_store_does_not_answer(api: Api, path: str) -> None:
    api.probe.error = StoreUnavailable("Redis did not do as asked (ConnectionError)")
    status, body = await probe(api, path)
    assert (status, body["ok"]) == (503, False)
    assert body["failed"]["store"] == "Redis did not do as asked (ConnectionError)"
    assert (await probe(api, "/health"))[0] == 200


@pytest.mark.parametrize("path", [*LIVE, *READY])
async def test_the_store_is_closed(api: Api, path: str) -> None:
    api.context.health.is_closed = True
    status, body = await probe(api, path)
    assert (status, body["failed"]["store"]) == (503, "closed")


async def test_a_store_that_lost_its_data_makes_us_unready_and_not_dead(api: Api) -> None:
    api.probe.trust_error = StoreUnavailable("this Redis has no epoch")
    for path in READY:
        assert await probe(api, path) == (503, {"ok": False, "failed": {"trust": "this Redis has no epoch"}})
    for path in LIVE:
        assert await probe(api, path) == (200, {"ok": True})


async def test_stopping_makes_us_unready_and_not_dead(api: Api) -> None:
    api.context.health.is_draining = True
    for path in READY:
        assert await probe(api, path) == (503, {"ok": False, "failed": {"draining": "shutting down"}})
    for path in LIVE:
        assert await probe(api, path) == (200, {"ok": True})


async def test_an_operator_can_leave_a_check_out(api: Api) -> None:
    api.probe.error = StoreUnavailable("away")
    assert await probe(api, "/livez?exclude=store") == (200, {"ok": True})
    assert await probe(api, "/readyz?exclude=store&exclude=trust") == (200, {"ok": True})
    assert (await probe(api, "/livez?exclude=trust&exclude=canary"))[0] == 503
    assert api.probe.asked == 1


@pytest.mark.parametrize("query", ["exclude=" + "c" * 65, "&".join(["exclude=a"] * 17)])
async def test_an_exclusion_without_measure(api: Api, query: str) -> None:
    assert (await probe(api, f"/livez?{query}"))[0] == 422


async def test_an_error_that_is_not_ours_is_named_by_its_kind_only(api: Api) -> None:
    api.probe.error = RuntimeError("redis://:canary@host")
    assert await probe(api, "/livez") == (503, {"ok": False, "failed": {"store": "RuntimeError"}})


async def test_an_event_loop_that_does_not_turn() -> None:
    clock = Clock()
    health = Health(FakeProbe(), clock=clock)
    clock.now += 9
    assert await health.liveness_problems() == {}
    clock.now += 3
    said = {"loop": "the event loop has not turned for 12 s"}
    assert await health.liveness_problems() == await health.readiness_problems() == said
    heart = asyncio.create_task(health.beat())
    await asyncio.sleep(0)
    assert await health.liveness_problems() == {}
    heart.cancel()


async def test_the_heart_beats_while_the_application_serves(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    beating = asyncio.Event()
    stopped = asyncio.Event()

    async def beat(_: Health) -> None:
        beating.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    monkeypatch.setattr(Health, "beat", beat)
    async with asyncio.timeout(5), api.app.router.lifespan_context(api.app):
        await beating.wait()
    async with asyncio.timeout(5):
        await stopped.wait()


async def test_fifty_probes_at_once_are_one_look() -> None:
    asked = 0
    go_on = asyncio.Event()

    async def ask() -> None:
        nonlocal asked
        asked += 1
        await go_on.wait()

    look = Look(ask)
    waiting = [asyncio.create_task(look.problem()) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    go_on.set()
    assert await asyncio.gather(*waiting[1:]) == [None] * 49
    assert asked == 1


async def test_a_look_is_used_for_a_second_and_then_repeated() -> None:
    clock, fake = Clock(), FakeProbe()
    look = Look(fake.answers, clock=clock)
    assert [await look.problem() for _ in range(3)] == [None] * 3
    fake.error = StoreUnavailable("away")
    clock.now += 0.9
    assert await look.problem() is None
    clock.now += 0.2
    assert await look.problem() == "away"
    fake.error = None
    clock.now += 1.1
    assert await look.problem() is None
    assert fake.asked == 3


async def test_a_store_that_hangs_is_waited_for_no_longer_than_said() -> None:
    async def ask() -> None:
        await asyncio.Event().wait()

    assert await Look(ask, seconds=0.02).problem() == "no answer within 0.02 s"


class FakeRedis:
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def ping(self) -> bool:
        if self.error:
            raise self.error
        return True

    def register_script(self, script: str) -> None:
        """The store registers its scripts when it is made."""


def redis_probe(error: Exception | None) -> RedisProbe:
    return RedisProbe(FakeRedis(error), "prefix")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        None,
        BusyLoadingError("LOADING"),
        ReadOnlyError("READONLY"),
        AuthenticationError("NOAUTH"),
        AuthorizationError("NOPERM"),
        OutOfMemoryError("OOM"),
        ResponseError("BUSY"),
    ],
)
async def test_a_redis_that_refuses_has_answered(error: Exception | None) -> None:
    assert await Look(redis_probe(error).answers).problem() is None


@pytest.mark.parametrize("error", [ConnectionError("gone"), TimeoutError("late"), OSError("no route")])
async def test_a_redis_that_is_gone_has_not(error: Exception) -> None:
    assert await Look(redis_probe(error).answers).problem() is not None


async def test_a_store_that_was_never_there_is_no_reason_for_a_restart() -> None:
    """The liveness probe of the chart; for anybody else the store counts from the beginning on."""
    probe = FakeProbe()
    probe.error = StoreUnavailable("away")
    clock = iter(range(0, 1000, 10))
    health = Health(probe, clock=lambda: float(next(clock)))

    async def problems(*, latch: bool) -> set[str]:
        return set(await health.liveness_problems(["loop"], latch=latch))

    assert await problems(latch=True) == set()
    assert await problems(latch=False) == {"store"}
    probe.error = None
    assert await problems(latch=True) == set()
    probe.error = StoreUnavailable("away")
    assert await problems(latch=True) == {"store"}
    health.is_closed = True
    assert await problems(latch=True) == {"store"}
