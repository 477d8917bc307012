"""``/health``, ``/livez``, ``/readyz`` among the API's routes. The same on a thread: ``tests/unit/test_probes.py``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from executions.adapters.health import Health
from executions.adapters.probes import PATHS
from executions.errors import StoreUnavailable
from tests.unit.api.harness import ROUTES, Api

LIVE, READY = ["/livez", "/v0/livez"], ["/readyz", "/v0/healthz"]


async def probe(api: Api, path: str) -> tuple[int, Any]:
    response = await api.send("GET", path)
    return response.status_code, response.json()


def test_the_paths_are_those_that_the_thread_answers() -> None:
    assert {"/health", *PATHS} == {route.path for route in ROUTES if "health" in route.tags}


@pytest.mark.parametrize("path", ["/health", *PATHS])
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
