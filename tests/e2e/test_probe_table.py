"""The probe table: what each trouble makes of `/livez` and `/readyz`, one test per row, for controller and API.

    frozen, blackholed        not live, told within 1.5 s
    killed, then back         not live; live again without a restart
    loading                   live, not ready
    fifty probes at once      one ping
    all connections in use    live: the probes have their own
    closed                    not live
    loop blocked              controller: told by the probes' own thread; API: no answer, which the kubelet counts too

The upper rows ask real processes, behind a Redis of their own. The lower ones need a hand inside: they run what the
processes are made of. What a single answer is made of is in the unit tests of `api/probes.py` and
`controller/probes.py`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import uvicorn
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.context import open_context
from api.main import create_app
from controller.probes import LOOP_LAG_SECONDS, Probes
from devstack import binaries
from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.ports import HOST
from devstack.redis import RedisServer
from executions.adapters.redis_store import RedisStore, open_store
from executions.adapters.settings import Settings
from executions.adapters.store_probe import open_store_probe
from tests.e2e.installation import Installation, Running, at_once
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.waiting import until

TOLD_SECONDS = 1.5
REMEMBERED_SECONDS = 1.1
"""A look at the store counts for a second; after it the next probe asks anew."""
KUBELET_SECONDS = 3.0
"""What the chart gives a probe."""
BLOCKED_SECONDS = 15.0
BOTH = {"controller", "api"}


@dataclass(frozen=True, slots=True)
class Probed:
    """What one probe was told, and after how long. Status 0 is no answer."""

    status: int
    failed: frozenset[str]
    seconds: float


def probed(port: int, path: str = "/livez", *, timeout: float = 10.0) -> Probed:
    began = time.monotonic()
    status, body = 0, {}
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=timeout) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, json.load(error)
    except OSError:
        pass
    return Probed(status, frozenset(body.get("failed", ())), time.monotonic() - began)


class Site:
    """Both processes, and the Redis between which and them anything may happen."""

    def __init__(self, installation: Installation, server: RedisServer, proxy: FaultProxy) -> None:
        self.installation, self.server, self.proxy = installation, server, proxy
        self.processes: dict[str, Running] = {}

    def ask(self, path: str) -> dict[str, Probed]:
        """Both at once."""
        answers = at_once([lambda port=running.port: probed(port, path) for running in self.processes.values()])  # type: ignore[misc]
        return dict(zip(self.processes, answers, strict=True))

    def statuses(self, path: str) -> dict[str, int]:
        return {name: answer.status for name, answer in self.ask(path).items()}

    def becomes(self, path: str, status: int, seconds: float = 20.0) -> None:
        about = f"{path} of both is {status}"
        self.installation.wait_until(lambda: self.statuses(path) == dict.fromkeys(BOTH, status), seconds, about)

    def told_in_time(self) -> None:
        """Both say within the time that Redis does not answer; of three tries, because others use this machine too."""
        late: set[str] = set(BOTH)
        for _ in range(3):
            time.sleep(REMEMBERED_SECONDS)
            answers = self.ask("/livez")
            assert {name: (answer.status, answer.failed) for name, answer in answers.items()} == dict.fromkeys(
                BOTH, (503, frozenset({"store"}))
            )
            late -= {name for name, answer in answers.items() if answer.seconds < TOLD_SECONDS}
            if not late:
                return
        raise AssertionError(f"told too late: {answers}")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        process = self.server.daemon.process()
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def site(aws: AwsServer, kube: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("probed")
    server = RedisServer.start(folder / "redis")
    try:
        with FaultProxy(server.port or 0) as proxy:
            to_redis = f"redis://{HOST}:{proxy.port}"
            with Installation(server, aws, kube, folder, REDIS_URL=to_redis) as installation:
                found = Site(installation, server, proxy)
                controller, api = installation.start_both()
                found.processes = {"controller": controller, "api": api}
                yield found
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def _no_restart(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a row does, the same processes are live afterwards."""
    site: Site | None = request.getfixturevalue("site") if "site" in request.fixturenames else None
    yield
    if site is not None:
        site.becomes("/livez", 200)
        assert [running.process.poll() for running in site.processes.values()] == [None, None]


# Rows of the real processes


def test_frozen_not_live_told_within_a_second_and_a_half(site: Site) -> None:
    with site.frozen():
        site.told_in_time()


def test_blackholed_not_live_told_within_a_second_and_a_half(site: Site) -> None:
    site.proxy.set(Fault.BLACKHOLE)
    try:
        site.told_in_time()
    finally:
        site.proxy.set(Fault.NONE)


def test_fifty_probes_at_once_one_ping(site: Site) -> None:
    with redis.Redis(host=HOST, port=site.server.port or 0) as client:

        def pings() -> int:
            found = client.info("commandstats")
            return int(found.get("cmdstat_ping", {}).get("calls", 0))

        time.sleep(REMEMBERED_SECONDS)
        for running in site.processes.values():
            before, began = pings(), time.monotonic()
            answers = at_once([lambda port=running.port: probed(port) for _ in range(50)])  # type: ignore[misc]
            took = time.monotonic() - began
            assert {answer.status for answer in answers} == {200}
            # One more for each whole second that a busy machine needs to send fifty requests.
            assert 1 <= pings() - before <= 1 + int(took), running.name


def test_killed_not_live_then_loading_live_and_not_ready_then_back_all_without_a_restart(site: Site) -> None:
    with redis.Redis(host=HOST, port=site.server.port or 0) as client, client.pipeline(transaction=False) as filler:
        for number in range(LOADED_SLOWLY):
            filler.set(f"filler:{number % 64}", number)
        filler.execute()
    site.server.kill()
    site.becomes("/livez", 503)
    site.becomes("/readyz?exclude=store", 503)  # the controller compares epochs every five seconds
    _start_slowly(site.server)
    site.becomes("/livez", 200)
    assert site.statuses("/readyz") == dict.fromkeys(BOTH, 503)
    once = Retry(NoBackoff(), 0)
    with redis.Redis(host=HOST, port=site.server.port, retry=once) as client, pytest.raises(redis.BusyLoadingError):
        client.get("x")  # it was loading all the time
    site.server.daemon.wait_until(site.server.is_ready)
    site.becomes("/readyz", 200)


LOADED_SLOWLY = 50_000
"""Commands in the append-only file; between 1,024 of them Redis has an ear for others."""


def _start_slowly(server: RedisServer) -> None:
    """Start it so that it loads for some seconds, and do not wait for that."""
    command: list[str | Path] = [binaries.redis()["redis-server"], "--bind", HOST, "--port", str(server.port)]
    command += ["--dir", str(server.data_dir), "--appendonly", "yes", "--save", "", "--key-load-delay", "1"]
    server.daemon.start(command, port=server.port or 0)


# Rows of what the processes are made of


@pytest.fixture
def settings(redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return Settings(redis_url=redis_server.url, executions_redis_key_prefix=prefix, sqs_queue_url="http://nowhere/q")


@asynccontextmanager
async def controller_side(settings: Settings) -> AsyncIterator[tuple[Probes, int]]:
    """The controller's probes as `App.run` has them, and their port."""
    probe = open_store_probe(settings)
    probes = Probes(probe.answers)
    try:
        yield probes, probes.start(HOST, 0)
    finally:
        probes.stop()
        await probe.close()


@asynccontextmanager
async def all_in_use(store: RedisStore) -> AsyncIterator[None]:
    """No connection of the store is free for as long as that."""
    pool: Any = store.redis.connection_pool
    takers = [asyncio.create_task(store.redis.blpop(["nothing"], 20)) for _ in range(pool.max_connections)]  # type: ignore[arg-type]
    try:
        await until(lambda: len(pool._in_use_connections) == pool.max_connections)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await store.now_ms()
        yield
    finally:
        for taker in takers:
            taker.cancel()
        await asyncio.gather(*takers, return_exceptions=True)


async def test_all_connections_in_use_live(settings: Settings) -> None:
    context, store = open_context(settings), open_store(settings)
    assert isinstance(context.store, RedisStore)
    async with (
        controller_side(settings) as (_, port),
        context.resources(),
        all_in_use(store),
        all_in_use(context.store),
    ):
        answer = await asyncio.to_thread(probed, port)
        assert (answer.status, answer.failed) == (200, frozenset())
        assert await context.health.liveness_problems() == {}
    await store.close()


async def test_closed_not_live(settings: Settings) -> None:
    """redis-py connects again after it was closed: that we are closed is for us to know."""
    context = open_context(settings)
    app = httpx.ASGITransport(app=create_app(context))
    async with httpx.AsyncClient(transport=app, base_url="http://api.test") as http:
        async with context.resources():
            assert (await http.get("/livez")).status_code == 200
        answer = await http.get("/livez")
        assert (answer.status_code, answer.json()["failed"]) == (503, {"store": "closed"})
    async with controller_side(settings) as (probes, port):
        assert (await asyncio.to_thread(probed, port)).status == 200
    assert probes.answer("/livez") == (503, {"ok": False, "failed": {"store": "closed"}})
    assert (await asyncio.to_thread(probed, port)).status == 0


@contextmanager
def api_on_a_thread(settings: Settings) -> Iterator[tuple[asyncio.AbstractEventLoop, int]]:
    """The API served on a loop of its own, and its port."""
    config = uvicorn.Config(create_app(open_context(settings)), host=HOST, port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield loop, int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)
        loop.close()


async def test_loop_blocked_controller_told_by_the_thread_api_no_answer(settings: Settings) -> None:
    """With the true limit of ten seconds."""
    with api_on_a_thread(settings) as (api_loop, api_port):
        async with controller_side(settings) as (_, port):

            async def are_live() -> bool:
                found = await asyncio.gather(*(asyncio.to_thread(probed, it) for it in (port, api_port)))
                return all(answer.status == 200 for answer in found)

            assert await are_live()
            told: list[Probed] = []
            of_the_api: list[Probed] = []
            seen, go_on = threading.Event(), threading.Event()

            def ask_until_told() -> None:
                deadline = time.monotonic() + BLOCKED_SECONDS
                while not seen.is_set() and time.monotonic() < deadline:
                    answer = probed(port, "/livez?exclude=store")
                    if answer.status == 503:
                        told.append(answer)
                        seen.set()
                    time.sleep(0.05)

            def ask_the_api() -> None:
                of_the_api.append(probed(api_port, timeout=KUBELET_SECONDS))

            api_loop.call_soon_threadsafe(go_on.wait, BLOCKED_SECONDS)
            asking = [threading.Thread(target=ask) for ask in (ask_until_told, ask_the_api)]
            for thread in asking:
                thread.start()
            began = time.monotonic()
            assert seen.wait(BLOCKED_SECONDS)  # on the loop's own thread: it does not turn until the probe has said so
            assert time.monotonic() - began > LOOP_LAG_SECONDS - 1
            for thread in asking:
                thread.join()
            assert told[0].failed == {"loop"}
            assert told[0].seconds < TOLD_SECONDS
            assert of_the_api[0].status == 0
            go_on.set()
            await until(are_live, seconds=10)
