"""The controller's probes as the kubelet sees them: over a socket, from a thread of their own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from controller import probes as module
from controller.probes import PING_SECONDS, Probes
from devstack.redis import RedisServer
from executions.adapters.redis_connection import connect
from executions.adapters.redis_epoch import create_epoch
from executions.adapters.redis_store import RedisStore
from executions.errors import StoreUnavailable
from tests.support.waiting import until


class FakeStore:
    """Answers a ping as it is told to."""

    def __init__(self) -> None:
        self.pings = 0
        self.problem: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def ping(self) -> None:
        self.pings += 1
        await self.answers.wait()
        if self.problem is not None:
            raise self.problem


class Served:
    """Probes on a port of their own."""

    def __init__(self, probes: Probes) -> None:
        self.probes = probes
        self.port = probes.start("127.0.0.1", 0)

    def get(self, path: str) -> tuple[int, dict[str, object]]:
        """Blocks; for threads other than the loop's."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    async def ask(self, path: str) -> tuple[int, dict[str, object]]:
        return await asyncio.to_thread(self.get, path)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def served(store: FakeStore) -> AsyncIterator[Served]:
    found = Served(Probes(store.ping))
    yield found
    found.probes.stop()


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every probe asks anew."""

    def anew(probes: Probes, excluded: set[str]) -> str | None:
        probes._last_ping = (float("-inf"), None)
        return remembered(probes, excluded)

    remembered = Probes._store_problem
    monkeypatch.setattr(Probes, "_store_problem", anew)


async def test_all_is_well(served: Served) -> None:
    served.probes.is_trusted = True
    for path in ("/health", "/startupz", "/livez", "/v0/livez", "/readyz", "/v0/healthz"):
        assert await served.ask(path) == (200, {"ok": True})
    assert (await served.ask("/"))[0] == 404


@pytest.mark.usefixtures("no_memory")
async def test_a_store_that_fails_and_comes_back(served: Served, store: FakeStore) -> None:
    store.problem = StoreUnavailable("Redis did not do as asked (ConnectionError)")
    status, body = await served.ask("/livez")
    assert (status, body["failed"]) == (503, {"store": "Redis did not do as asked (ConnectionError)"})
    assert (await served.ask("/readyz"))[0] == 503
    assert (await served.ask("/livez?exclude=store"))[0] == 200
    store.problem = None
    assert (await served.ask("/livez"))[0] == 200


async def test_a_store_that_hangs_is_answered_for_in_time(served: Served, store: FakeStore) -> None:
    store.answers.clear()
    began = time.monotonic()
    status, body = await served.ask("/livez")
    assert (status, body["failed"]) == (503, {"store": "no answer within 1 s"})
    assert time.monotonic() - began < PING_SECONDS + 1


async def test_many_probes_at_once_are_one_ping(
    served: Served, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 30.0)  # "at once" takes a while on a busy machine
    with ThreadPoolExecutor(50) as pool:
        loop = asyncio.get_running_loop()
        answers = await asyncio.gather(*(loop.run_in_executor(pool, served.get, "/livez") for _ in range(50)))
    assert {status for status, _ in answers} == {200}
    assert store.pings == 1


async def test_a_stuck_loop_is_told_by_the_thread(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOP_LAG_SECONDS", 0.2)
    assert (await served.ask("/livez"))[0] == 200
    told: list[dict[str, object]] = []
    seen = threading.Event()

    def ask_until_told() -> None:
        deadline = time.monotonic() + 20
        while not seen.is_set() and time.monotonic() < deadline:
            status, body = served.get("/livez?exclude=store")
            if status == 503:
                told.append(body)
                seen.set()

    asking = threading.Thread(target=ask_until_told)
    asking.start()
    assert seen.wait(20)  # on the loop's own thread: the loop does not turn until the probe has said so
    asking.join()
    assert "loop" in told[0]["failed"]  # type: ignore[operator]

    async def is_well() -> bool:
        return (await served.ask("/livez?exclude=store"))[0] == 200

    await until(is_well)


async def test_probes_that_are_stopped_answer_nobody(store: FakeStore) -> None:
    found = Served(Probes(store.ping))
    found.probes.stop()
    with pytest.raises(urllib.error.URLError):
        await found.ask("/livez")


@pytest.mark.usefixtures("no_memory")
async def test_a_frozen_redis_and_one_that_lost_its_epoch(redis_server: RedisServer, prefix: str) -> None:
    store = RedisStore(connect(redis_server.url), prefix)
    served = Served(Probes(store.ping))
    try:
        await create_epoch(store.redis, prefix)
        assert (await served.ask("/livez"))[0] == 200
        await store.redis.client_pause(1500)
        status, body = await served.ask("/livez")
        assert (status, body["failed"]) == (503, {"store": "no answer within 1 s"})

        async def is_well() -> bool:
            return (await served.ask("/livez"))[0] == 200

        await until(is_well)
        await store.redis.delete(store.keys.epoch)
        status, body = await served.ask("/livez")
        assert status == 503
        assert "no epoch" in str(body["failed"])
    finally:
        served.probes.stop()
        await store.close()
