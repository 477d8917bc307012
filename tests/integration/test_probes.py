"""The controller's probes over a socket. What each trouble makes of them: ``tests/e2e/test_probe_table.py``."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import pytest

from controller.probes import Probes
from executions.errors import StoreUnavailable


class FakeStore:
    """Answers a ping as it is told to."""

    def __init__(self) -> None:
        self.problem: Exception | None = None

    async def ping(self) -> None:
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


async def test_probes_that_are_stopped_answer_nobody(store: FakeStore) -> None:
    found = Served(Probes(store.ping))
    found.probes.stop()
    with pytest.raises(urllib.error.URLError):
        await found.ask("/livez")
