"""The live stream of a real API process: every event once for every reader, whatever ends meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from devstack.redis import RedisServer
from executions.adapters.redis_connection import connect
from tests.support.api_process import ApiProcess
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.memory_tracking import tracked
from tests.support.sse import Browser

READERS, EVENTS = 200, 1_000


@pytest.fixture
def api(redis_server: RedisServer, prefix: str, tmp_path: Path) -> Iterator[ApiProcess]:
    with ApiProcess(tmp_path, redis_server.url, prefix) as found:
        yield found


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = connect(redis_server.url)
    yield client
    await client.aclose()


@asynccontextmanager
async def reading(browsers: Sequence[Browser]) -> AsyncIterator[None]:
    """All pages are open, and have got what they start from."""
    tasks = [asyncio.create_task(browser.read()) for browser in browsers]
    try:
        await until(lambda: all(browser.events for browser in browsers), "every page has begun")
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool], about: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {about}"
        await asyncio.sleep(0.02)


async def all_have(ids: Sequence[str], browsers: Sequence[Browser]) -> None:
    """Each of these events, once, and no others."""
    await until(lambda: all(browser.ids[-1:] == [ids[-1]] for browser in browsers), "everybody has the last event")
    assert {tuple(browser.ids) for browser in browsers} == {tuple(ids)}


async def add(redis: Redis, stream: str, *names: str, **fields: object) -> list[str]:
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.xadd(stream, {"event": json.dumps(tracked(name, **fields))})
    return [entry_id.decode() for entry_id in await pipeline.execute()]


@pytest.mark.timeout(120)
async def test_200_readers_see_each_of_1000_events_once_although_the_server_is_killed_in_the_middle(
    api: ApiProcess, redis: Redis, prefix: str
) -> None:
    api.start()
    browsers = [Browser(api.port) for _ in range(READERS)]
    ids: list[str] = []
    async with reading(browsers):
        for at in range(0, EVENTS, 10):
            ids += await add(redis, f"{prefix}:events", *(f"e{number}" for number in range(at, at + 10)))
            if at == EVENTS // 2:
                await until(lambda: all(browser.ids for browser in browsers), "the middle is reached")
                await asyncio.to_thread(api.kill)
                api.start(wait=False)
            await asyncio.sleep(0.02)
        await asyncio.to_thread(api.wait)
        await until(lambda: all(len(browser.ids) >= EVENTS for browser in browsers), "everybody has everything")
        await asyncio.sleep(0.2)
    assert {tuple(browser.ids) for browser in browsers} == {tuple(ids)}
    assert {browser.connections for browser in browsers} == {2}
    assert {browser.resets for browser in browsers} == {1}


@pytest.mark.timeout(90)
async def test_a_reader_that_stops_reading_is_dropped_and_delays_nobody(
    api: ApiProcess, redis: Redis, prefix: str
) -> None:
    api.start()
    slow = Browser(api.port, buffer_bytes=4096)
    quick = [Browser(api.port) for _ in range(20)]
    async with reading([slow, *quick]):
        before = api.memory_bytes
        slow.is_reading.clear()
        ids, waited = list[str](), list[float]()
        for at in range(0, 3_000, 100):
            names = [f"e{number}" for number in range(at, at + 100)]
            ids += await add(redis, f"{prefix}:events", *names, filling="x" * 4_000)
            began = time.monotonic()
            await all_have(ids, quick)
            waited.append(time.monotonic() - began)
        await until(lambda: _dropped(api) == 1.0, "the slow one is dropped", 15)
        assert {tuple(browser.ids) for browser in quick} == {tuple(ids)}
        assert max(waited) < 8.0, "somebody waited for the one that is given up after 10 s"
        assert api.memory_bytes - before < 150e6, "12 MB of events were sent, and are not kept for anybody"
        # It comes back like any other, with what it missed.
        slow.is_reading.set()
        await until(lambda: slow.ids[-1:] == ids[-1:], "the slow one has caught up")
        assert slow.ids == ids


@pytest.mark.timeout(60)
async def test_a_place_that_was_trimmed_meanwhile_is_answered_with_a_new_beginning(
    api: ApiProcess, redis: Redis, prefix: str
) -> None:
    stream = f"{prefix}:events"
    ids = await add(redis, stream, *(f"e{number}" for number in range(30)))
    await redis.xtrim(stream, maxlen=10, approximate=False)
    api.start()
    old, recent = Browser(api.port), Browser(api.port)
    old.last_event_id, recent.last_event_id = ids[3], ids[25]
    async with reading([old, recent]):
        ids += await add(redis, stream, "next")
        await until(lambda: all(ids[-1] in browser.ids for browser in (old, recent)), "both are there")
    assert (old.resets, old.ids) == (1, ids[-1:])
    assert (recent.resets, recent.ids) == (0, ids[26:])


@pytest.mark.timeout(90)
async def test_a_redis_that_is_away_for_a_while_ends_no_stream_and_loses_no_event(
    redis_server: RedisServer, redis: Redis, prefix: str, tmp_path: Path
) -> None:
    assert redis_server.port is not None
    with (
        FaultProxy(redis_server.port) as proxy,
        ApiProcess(tmp_path, f"redis://127.0.0.1:{proxy.port}", prefix) as api,
    ):
        api.start()
        browsers = [Browser(api.port) for _ in range(20)]
        async with reading(browsers):
            ids = await add(redis, f"{prefix}:events", "before")
            await until(lambda: all(browser.ids for browser in browsers), "everybody follows")
            for fault in (Fault.CUT, Fault.BLACKHOLE):
                proxy.set(fault)
                ids += await add(redis, f"{prefix}:events", *(f"{fault.name}-{number}" for number in range(40)))
                await asyncio.sleep(1.5)
                proxy.set(Fault.NONE)
                await all_have(ids, browsers)
        assert {browser.connections for browser in browsers} == {1}


@pytest.mark.timeout(60)
async def test_a_stop_does_not_wait_for_readers(api: ApiProcess, redis: Redis, prefix: str) -> None:
    api.start()
    stalled = Browser(api.port, buffer_bytes=4096)
    browsers = [Browser(api.port) for _ in range(50)]
    async with reading([stalled, *browsers]):
        stalled.is_reading.clear()
        await add(redis, f"{prefix}:events", *(f"e{number}" for number in range(400)), filling="x" * 4_000)
        await until(lambda: all(len(browser.ids) == 400 for browser in browsers), "the others have it all")
        began = time.monotonic()
        assert await asyncio.to_thread(api.stop) == 0
        assert time.monotonic() - began < 4.0
    assert "ASGI" not in api.log.read_text()
    assert "unexpectedly" not in api.log.read_text()


@pytest.mark.timeout(60)
async def test_a_token_in_the_address_reaches_no_log(redis_server: RedisServer, prefix: str, tmp_path: Path) -> None:
    settings = {"TASK_DASHBOARD_GOOGLE_CLIENT_IDS": "dashboard", "LOG_LEVEL": "DEBUG", "ENV": "production"}
    with ApiProcess(tmp_path, redis_server.url, prefix, **settings) as api:
        api.start()
        async with httpx.AsyncClient(base_url=api.url, trust_env=False) as http:
            for token in ("canary", "canary.canary.canary", "%63anary", "canary%0d%0ax"):
                answer = await http.get(f"/dashboard/stream?authToken={token}")
                assert answer.status_code in (401, 503)
            assert (await http.get("/dashboard/tasks?authToken=canary")).status_code == 401
            assert (await http.get("/dashboard/nothing?authToken=canary")).status_code == 404
        assert api.stop() == 0
        assert "canary" not in api.log.read_text()


def _dropped(api: ApiProcess) -> float:
    found = re.findall(r'alakai_streams_dropped_total\{reason="(?:stalled|behind)"\} (\S+)', api.metrics())
    return sum(float(value) for value in found)
