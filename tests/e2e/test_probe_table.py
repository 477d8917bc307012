"""The probe table: what each trouble makes of `/livez` and `/readyz`, one test per row, for controller and API.

    frozen, blackholed        not live, told within 1.5 s
    killed, then back         not live; live again without a restart
    loading                   live, not ready
    fifty probes at once      one ping
    all connections in use    live: the probes have their own
    closed                    not live
    loop blocked              not live, told by the probes' own thread
    stopping                  live, not ready, told until the end (by the API; the controller stops too soon for a look)

Both are asked where the kubelet asks them, and the API also on its main port, which a loop that is blocked leaves
without an answer. The upper rows ask real processes, behind a Redis of their own. The lower ones need a hand inside:
they run what the processes are made of. What a single answer is made of is in `tests/unit/test_health.py`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
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
import uvloop
from redis.backoff import NoBackoff
from redis.retry import Retry

from api.context import open_context
from api.main import create_app
from devstack import binaries
from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.ports import HOST
from devstack.redis import RedisServer
from executions.adapters.health import LOOP_LAG_SECONDS, Health
from executions.adapters.probes import answer, serve_probes
from executions.adapters.redis_store import RedisStore, open_store
from executions.adapters.settings import Settings
from executions.adapters.store_probe import open_store_probe
from tests.e2e.installation import STOP_SECONDS, Installation, Running, at_once
from tests.e2e.test_losses import told_port
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.waiting import until

TOLD_SECONDS = 1.5
REMEMBERED_SECONDS = 1.1
"""A look at the store counts for a second; after it the next probe asks anew."""
KUBELET_SECONDS = 3.0
"""What the chart gives a probe."""
BLOCKED_SECONDS = 15.0
ALL = ("controller", "API", "main port of the API")


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
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=timeout) as found:
            status = found.status
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
        self.processes: tuple[Running, ...] = installation.start_both()
        controller, api = self.processes
        self.ports = dict(zip(ALL, (controller.port, told_port(api, "probes_port"), api.port), strict=True))

    def ask(self, path: str) -> dict[str, Probed]:
        """All at once."""
        answers = at_once([lambda port=port: probed(port, path) for port in self.ports.values()])  # type: ignore[misc]
        return dict(zip(self.ports, answers, strict=True))

    def statuses(self, path: str) -> dict[str, int]:
        return {name: found.status for name, found in self.ask(path).items()}

    def becomes(self, path: str, status: int, seconds: float = 20.0) -> None:
        about = f"{path} of all is {status}"
        self.installation.wait_until(lambda: self.statuses(path) == dict.fromkeys(ALL, status), seconds, about)

    def told_in_time(self) -> None:
        """All say within the time that Redis does not answer; of three tries, because others use this machine too."""
        late: set[str] = set(ALL)
        for _ in range(3):
            time.sleep(REMEMBERED_SECONDS)
            answers = self.ask("/livez")
            assert {name: (found.status, found.failed) for name, found in answers.items()} == dict.fromkeys(
                ALL, (503, frozenset({"store"}))
            )
            late -= {name for name, found in answers.items() if found.seconds < TOLD_SECONDS}
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
                yield Site(installation, server, proxy)
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def _no_restart(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a row does, the same processes are live afterwards."""
    site: Site | None = request.getfixturevalue("site") if "site" in request.fixturenames else None
    yield
    if site is not None:
        site.becomes("/livez", 200)
        assert [running.process.poll() for running in site.processes] == [None, None]


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

        for name, port in site.ports.items():
            time.sleep(REMEMBERED_SECONDS)
            before, began = pings(), time.monotonic()
            answers = at_once([lambda port=port: probed(port) for _ in range(50)])  # type: ignore[misc]
            took = time.monotonic() - began
            assert {found.status for found in answers} == {200}
            # One more for each whole second that a busy machine needs to send fifty requests.
            assert 1 <= pings() - before <= 1 + int(took), name


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
    assert site.statuses("/readyz") == dict.fromkeys(ALL, 503)
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


def test_stopping_live_and_not_ready_told_until_the_end(site: Site) -> None:
    """Also while the main port takes no more connections, and for as long as somebody is still being answered."""
    api = site.installation.start_api()
    port = told_port(api, "probes_port")
    assert probed(port, "/readyz").status == 200
    with socket.create_connection((HOST, api.port)) as unfinished:
        unfinished.sendall(b"POST /task-complete HTTP/1.1\r\nhost: api\r\ncontent-length: 2\r\n\r\n")
        time.sleep(0.2)  # until it has begun to be served
        api.process.terminate()
        wait_until = site.installation.wait_until
        wait_until(lambda: probed(port, "/readyz").failed == {"draining"}, 10, "the API is draining")
        wait_until(lambda: probed(api.port).status == 0, 10, "nobody is let in any more")
        assert probed(port, "/readyz").failed == {"draining"}
        assert probed(port, "/livez").status == 200
        assert api.process.poll() is None
        unfinished.sendall(b"{}")
        assert unfinished.recv(1000).startswith(b"HTTP/1.1 4"), "it was answered, though not to its liking"
    assert api.process.wait(STOP_SECONDS) == 0
    assert probed(port).status == 0


# Rows of what the processes are made of


@pytest.fixture
def settings(redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return Settings(redis_url=redis_server.url, executions_redis_key_prefix=prefix, sqs_queue_url="http://nowhere/q")


@contextmanager
def served(health: Health) -> Iterator[int]:
    """Its probes as both processes have them; the port."""
    server = serve_probes(health, 0, variable="A_PORT", host=HOST)
    try:
        yield server.port
    finally:
        server.stop()


@asynccontextmanager
async def controller_side(settings: Settings) -> AsyncIterator[Health]:
    """The controller's checks as `App.run` has them."""
    probe = open_store_probe(settings)
    health = Health(probe.answers)
    heart = asyncio.create_task(health.beat())
    await asyncio.sleep(0)  # Before its first beat nobody can be asked on this loop.
    try:
        yield health
    finally:
        health.is_closed = True
        await probe.close()
        heart.cancel()


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
    app = create_app(context)
    async with (
        controller_side(settings) as of_controller,
        app.router.lifespan_context(app),
        all_in_use(store),
        all_in_use(context.store),
    ):
        for health in (of_controller, context.health):
            with served(health) as port:
                found = await asyncio.to_thread(probed, port)
                assert (found.status, found.failed) == (200, frozenset())
    await store.close()


async def test_closed_not_live(settings: Settings) -> None:
    """redis-py connects again after it was closed: that we are closed is for us to know."""
    context = open_context(settings)
    app = create_app(context)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api.test") as http:
        with served(context.health) as port:
            async with app.router.lifespan_context(app):
                assert (await http.get("/livez")).status_code == 200
                assert (await asyncio.to_thread(probed, port)).status == 200
            found = await http.get("/livez")
            assert (found.status_code, found.json()["failed"]) == (503, {"store": "closed"})
            assert (await asyncio.to_thread(probed, port)).failed == {"store"}
        async with controller_side(settings) as health:
            with served(health) as port:
                assert (await asyncio.to_thread(probed, port)).status == 200
    assert answer(health, "/livez") == (503, {"ok": False, "failed": {"store": "closed"}})
    assert (await asyncio.to_thread(probed, port)).status == 0


@dataclass(frozen=True, slots=True)
class OnThread:
    """An API on a loop of its own."""

    loop: asyncio.AbstractEventLoop
    port: int
    probes_port: int


@contextmanager
def api_on_a_thread(settings: Settings) -> Iterator[OnThread]:
    """Its loop is of the kind that the API runs on."""
    context = open_context(settings)
    config = uvicorn.Config(create_app(context), host=HOST, port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        with served(context.health) as port:
            yield OnThread(loop, int(server.servers[0].sockets[0].getsockname()[1]), port)
    finally:
        server.should_exit = True
        thread.join(20)
        loop.close()


async def test_loop_blocked_told_by_the_thread(settings: Settings) -> None:
    """With the true limit of ten seconds."""
    with api_on_a_thread(settings) as api:
        async with controller_side(settings) as health:
            with served(health) as port:
                ports = dict(zip(ALL, (port, api.probes_port, api.port), strict=True))

                async def are_live() -> bool:
                    found = await asyncio.gather(*(asyncio.to_thread(probed, it) for it in ports.values()))
                    return all(answered.status == 200 for answered in found)

                assert await are_live()
                told: dict[str, Probed] = {}

                def ask_until_told(name: str) -> None:
                    deadline = time.monotonic() + BLOCKED_SECONDS
                    while name not in told and time.monotonic() < deadline:
                        found = probed(ports[name], "/livez?exclude=store", timeout=KUBELET_SECONDS)
                        if found.status != 200:
                            told[name] = found
                        time.sleep(0.05)

                go_on = threading.Event()
                api.loop.call_soon_threadsafe(go_on.wait, 2 * BLOCKED_SECONDS)
                began = time.monotonic()
                asking = {name: threading.Thread(target=ask_until_told, args=(name,)) for name in ports}
                for thread in asking.values():
                    thread.start()
                for thread in asking.values():
                    thread.join()  # on the loop's own thread: it does not turn until all have been told
                assert LOOP_LAG_SECONDS - 1 < time.monotonic() - began < BLOCKED_SECONDS
                kubelets = {name: probed(ports[name], "/livez?latch=1") for name in ("controller", "API")}
                go_on.set()
                for name, found in kubelets.items():
                    for answered in (told[name], found):
                        assert (answered.status, answered.failed) == (503, {"loop"}), name
                        assert answered.seconds < TOLD_SECONDS, name
                assert told["main port of the API"].status == 0
                await until(are_live, seconds=10)
