"""The local launcher with real worker processes, and the launchers that others add."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from executions.adapters import local_processes
from executions.adapters.launchers import LauncherContext, open_launcher
from executions.adapters.local_launcher import KILL_AFTER_SECONDS, LOGS_VARIABLE, LocalLauncher, create, scenario_for
from executions.adapters.local_processes import live_workers
from executions.adapters.settings import Settings
from executions.errors import InvalidSettings, LaunchRefused, LaunchUnclear, StoreUnavailable
from executions.evidence import WorkerState
from executions.ports import Launcher, LaunchIntent
from tests.support.builders import task_document
from tests.support.callback_server import COMPLETE, CallbackServer, Scripted
from tests.support.launcher_contract import (
    GONE,
    LauncherContract,
    ListingContract,
    an_intent,
    an_order,
    state_of,
    stop_until_gone,
    until,
)


class Payloads:
    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, Any]] = {}
        self.is_away = False

    async def put(self, task_id: str, task: Mapping[str, Any]) -> None:
        if self.is_away:
            raise StoreUnavailable("Redis does not answer")
        self.kept[task_id] = task


class LocalWorld:
    """The local launcher, its workers, and a control plane that they call."""

    def __init__(self, server: CallbackServer, logs: Path, scenario: str = "hang:all") -> None:
        self.server = server
        self.payloads = Payloads()
        self.logs = logs
        self.scenario = scenario
        self.now_seconds = 0.0
        self.settings = Settings(callback_url=f"{server.url}{COMPLETE}", local_worker="succeed")
        self.launcher: Launcher = self.reopened()
        for number in range(1, 4):
            self.server.tasks[f"task-{number}"] = self.task()

    def reopened(self) -> Launcher:
        return LocalLauncher(
            self.settings, self.payloads, environment=os.environ, logs=self.logs, clock=lambda: self.now_seconds
        )

    def task(self) -> dict[str, Any]:
        document = task_document()
        return {**document, "payload": {**document["payload"], "scenario": self.scenario}}

    def pids(self, token: str) -> list[int]:
        return live_workers().get(token, [])

    async def workers(self, token: str) -> int:
        return len(self.pids(token))

    async def end(self, worker_id: str) -> None:
        """As a crash does, after the worker has begun."""

        async def has_begun() -> bool:
            return bool(self.server.claims)

        await until(has_begun, "the worker claims its launch")
        for pid in self.pids(worker_id.rpartition("/")[2]):
            os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """End what this test started and no other test's workers."""
        for pid in itertools.chain.from_iterable(live_workers().values()):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.environ().get("ALAKAI_CALLBACK_URL") == self.settings.callback_url:
                    process.kill()


@pytest.fixture
def server() -> Iterator[CallbackServer]:
    with CallbackServer() as server:
        yield server


@pytest.fixture
async def world(server: CallbackServer, tmp_path: Path) -> AsyncIterator[LocalWorld]:
    world = LocalWorld(server, tmp_path)
    yield world
    await world.launcher.close()
    world.kill_all()


class TestLocalProcesses(LauncherContract, ListingContract):
    """Real processes."""


async def test_a_manual_worker_is_no_process_and_runs_until_it_is_stopped(
    server: CallbackServer, tmp_path: Path
) -> None:
    world = LocalWorld(server, tmp_path, "manual")
    intent = an_intent(world)
    worker_id = (await world.launcher.launch(intent)).worker_id
    assert worker_id == f"arn:aws:ecs:local:000000000000:task/manual/{intent.order.token}"
    assert await world.launcher.find(intent) == worker_id, "there is nothing that could be missing"
    assert (await world.launcher.launch(intent)).worker_id == worker_id
    assert world.pids(intent.order.token) == []
    assert world.payloads.kept["task-1"] == intent.order.task
    for launcher in (world.launcher, world.reopened()):
        assert await state_of(launcher, worker_id) is WorkerState.RUNNING
    assert await world.launcher.stop(worker_id, "enough") is True
    assert await state_of(world.launcher, worker_id) is WorkerState.STOPPED


async def test_a_launch_lays_down_the_payload_and_names_the_mode_in_its_id(world: LocalWorld) -> None:
    intent = an_intent(world)
    assert intent.request == {"mode": "hang"}
    worker_id = (await world.launcher.launch(intent)).worker_id
    assert worker_id == f"arn:aws:ecs:local:000000000000:task/process/{intent.order.token}"
    assert world.payloads.kept["task-1"] == intent.order.task


async def test_a_launch_without_redis_is_unclear_and_starts_nothing(world: LocalWorld) -> None:
    world.payloads.is_away = True
    intent = an_intent(world)
    with pytest.raises(LaunchUnclear, match="Redis does not answer"):
        await world.launcher.launch(intent)
    assert await world.workers(intent.order.token) == 0


async def test_a_worker_gets_its_launch_and_no_credentials(
    server: CallbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REDIS_URL", "AWS_SECRET_ACCESS_KEY", "ALAKAI_SOMETHING_ELSE"):
        monkeypatch.setenv(name, "a-secret")
    world = LocalWorld(server, tmp_path)
    order = replace(an_order(world.task()), callback_token="t0ken")
    intent = LaunchIntent(order, world.launcher.prepare(order))
    try:
        await world.launcher.launch(intent)
        (pid,) = world.pids(intent.order.token)
        environment = psutil.Process(pid).environ()
        assert "a-secret" not in environment.values()
        assert environment["PATH"] == os.environ["PATH"]
        assert {name: value for name, value in environment.items() if name.startswith("ALAKAI_")} == {
            "ALAKAI_TASK_ID": "task-1",
            "ALAKAI_TASK_TYPE": "implementation",
            "ALAKAI_ATTEMPT": "1",
            "ALAKAI_LAUNCH_TRY": "1",
            "ALAKAI_CLAIM_URL": f"{server.url}/task-claim",
            "ALAKAI_CALLBACK_TOKEN": "t0ken",
            "ALAKAI_CALLBACK_URL": f"{server.url}/task-complete",
            "ALAKAI_TRACE_ID": "trace-task-1",
        }
        assert os.getsid(pid) == pid
        assert os.getsid(pid) != os.getsid(0)
    finally:
        await world.launcher.close()
        world.kill_all()


async def test_a_worker_reports_and_its_exit_code_is_seen(server: CallbackServer, tmp_path: Path) -> None:
    world = LocalWorld(server, tmp_path, "fail")
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id

    async def is_gone() -> bool:
        return await state_of(world.launcher, worker_id) in GONE

    await until(is_gone, "the worker ends")
    (outcome,) = server.outcomes
    assert outcome["result"]["status"] == "error"
    (observation,) = await world.launcher.observe([worker_id])
    assert observation.exit_code == 1
    assert "exit code 1" in observation.detail
    assert '"event": "coding.implementation"' in (tmp_path / "task-1.1.1.log").read_text()
    await world.launcher.close()


async def test_a_killed_worker_is_reaped_without_being_looked_at(world: LocalWorld) -> None:
    intent = an_intent(world)
    worker_id = (await world.launcher.launch(intent)).worker_id
    (pid,) = world.pids(intent.order.token)
    os.kill(pid, signal.SIGKILL)

    async def is_reaped() -> bool:
        return not psutil.pid_exists(pid)

    await until(is_reaped, "the zombie is reaped")
    (observation,) = await world.launcher.observe([worker_id])
    assert (observation.state, observation.exit_code) == (WorkerState.STOPPED, 137)


async def test_a_zombie_of_another_parent_counts_as_stopped(world: LocalWorld) -> None:
    token = an_order(world.task()).token
    script = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', '', 'alakai_worker', '--launch-token', '{token}'])\n"
        "print('started', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipe = asyncio.subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdin=pipe, stdout=pipe)
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"started\n"

    async def is_zombie() -> bool:
        return [child.status() for child in psutil.Process(parent.pid).children()] == [psutil.STATUS_ZOMBIE]

    await until(is_zombie, "the child is a zombie")
    worker_id = f"arn:aws:ecs:local:000000000000:task/process/{token}"
    assert await state_of(world.launcher, worker_id) is WorkerState.STOPPED
    assert await world.launcher.stop(worker_id, "it is gone") is True
    await asyncio.wait_for(parent.communicate(b"\n"), 10)


async def test_a_worker_outlives_the_controller_that_started_it(world: LocalWorld, tmp_path: Path) -> None:
    order = an_order(world.task())
    script = f"""
import asyncio, os, pathlib
from executions.adapters.local_launcher import LocalLauncher
from executions.adapters.settings import Settings
from executions.ports import LaunchIntent, LaunchOrder

class Payloads:
    async def put(self, task_id, task):
        pass

async def main():
    settings = Settings(callback_url={world.settings.callback_url!r})
    launcher = LocalLauncher(settings, Payloads(), environment=os.environ, logs=pathlib.Path({str(tmp_path)!r}))
    order = LaunchOrder({order.task_id!r}, "implementation", 1, 1, "trace", {order.token!r}, {{}})
    print((await launcher.launch(LaunchIntent(order, {{"mode": "hang"}}))).worker_id, flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    pipe, root = asyncio.subprocess.PIPE, Path(__file__).parents[2]
    controller = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=root, stdout=pipe, stderr=pipe)
    output, errors = await asyncio.wait_for(controller.communicate(), 60)
    assert controller.returncode == -signal.SIGKILL, errors.decode()
    worker_id = output.decode().strip()
    assert await state_of(world.launcher, worker_id) is WorkerState.RUNNING
    assert (await world.launcher.launch(LaunchIntent(order, {"mode": "hang"}))).worker_id == worker_id
    assert await world.workers(order.token) == 1
    await stop_until_gone(world.launcher, worker_id)


async def test_a_repeat_at_once_finds_the_process_that_has_no_arguments_yet(
    world: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen once in 40 starts on a busy machine: between the fork and the new program's arguments."""
    monkeypatch.setattr(local_processes, "_token_in", lambda _: None)
    intent = an_intent(world)
    first = await world.launcher.launch(intent)
    assert await world.launcher.launch(intent) == first
    assert await world.launcher.find(intent) == first.worker_id
    assert await state_of(world.launcher, first.worker_id) is WorkerState.RUNNING
    monkeypatch.undo()

    async def is_seen() -> bool:
        return await world.workers(intent.order.token) == 1

    await until(is_seen, "one process carries the token")


async def test_a_stopped_worker_says_so_before_it_ends(world: LocalWorld) -> None:
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id

    async def has_begun() -> bool:
        return bool(world.server.claims)

    await until(has_begun, "the worker claims its launch")
    await stop_until_gone(world.launcher, worker_id)
    (observation,) = await world.launcher.observe([worker_id])
    assert observation.exit_code == 143
    assert world.server.outcomes[0]["result"]["errorMessage"] == "stopped by signal SIGTERM"


async def test_a_worker_that_does_not_stop_is_killed(world: LocalWorld) -> None:
    # It cannot deliver its outcome and therefore does not end by itself.
    world.server.script[COMPLETE].extend([Scripted(503)] * 1000)
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id

    async def reports() -> bool:
        assert await world.launcher.stop(worker_id, "enough") is False
        return world.server.calls[COMPLETE] > 0

    async def has_begun() -> bool:
        return bool(world.server.claims)

    await until(has_begun, "the worker claims its launch")
    await until(reports, "the worker tries to report")
    assert await state_of(world.launcher, worker_id) is WorkerState.RUNNING
    world.now_seconds = KILL_AFTER_SECONDS
    await stop_until_gone(world.launcher, worker_id)
    (observation,) = await world.launcher.observe([worker_id])
    assert observation.exit_code == 137


async def test_a_machine_without_room_for_a_process_refuses_for_now(world: LocalWorld, tmp_path: Path) -> None:
    world.logs = tmp_path / "missing" / "folder"
    launcher = world.reopened()
    with pytest.raises(LaunchRefused, match="No such file") as refused:
        await launcher.launch(an_intent(world))
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_CAPACITY", False)
    await launcher.close()


async def test_a_trace_id_that_no_process_can_carry_is_refused_for_good(world: LocalWorld) -> None:
    order = an_order(world.task())
    hostile = LaunchIntent(
        type(order)(order.task_id, order.task_type, 1, 1, "trace\0id", order.token, order.task), {"mode": "succeed"}
    )
    with pytest.raises(LaunchRefused) as refused:
        await world.launcher.launch(hostile)
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_REJECTED", True)


async def test_an_unreadable_process_table_is_no_evidence(world: LocalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    worker_id = (await world.launcher.launch(an_intent(world))).worker_id

    def fail(_attributes: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "process_iter", fail)
    with pytest.raises(LaunchUnclear):
        await world.launcher.observe([worker_id])
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("scenario", "default", "plays"),
    [
        (None, "manual", "manual manual manual manual"),
        ("", "slow", "slow slow slow slow"),
        ("manual", "fail", "manual manual manual manual"),
        ("succeed", "fail", "succeed succeed succeed succeed"),
        ("slow", "manual", "slow slow slow slow"),
        ("fail", "manual", "fail succeed succeed succeed"),
        ("transient", "manual", "transient succeed succeed succeed"),
        ("die", "manual", "die succeed succeed succeed"),
        ("hang", "manual", "hang succeed succeed succeed"),
        ("die:3", "manual", "die die die succeed"),
        ("fail:2", "manual", "fail fail succeed succeed"),
        ("die:all", "manual", "die die die die"),
        (None, "die:2", "die die succeed succeed"),
    ],
)
def test_what_each_attempt_plays(scenario: str | None, default: str, plays: str) -> None:
    payload = {} if scenario is None else {"scenario": scenario}
    assert [scenario_for(payload, attempt, default) for attempt in range(1, 5)] == plays.split()


@pytest.mark.parametrize(
    "scenario", ["explode", "die:0", "die:", "die:x", "die: 3", "succeed:2", "Die", "die\n", 3, ["die"]]
)
def test_an_unknown_scenario_is_refused_for_good_with_the_allowed_ones(world: LocalWorld, scenario: object) -> None:
    order = an_order({**task_document(), "payload": {"scenario": scenario}})
    with pytest.raises(LaunchRefused, match="manual, succeed, slow, fail, transient, die, hang") as refused:
        world.launcher.prepare(order)
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_REJECTED", True)


def test_a_task_without_a_payload_plays_the_default(world: LocalWorld) -> None:
    assert world.launcher.prepare(an_order({"taskType": "digest"})) == {"mode": "succeed"}
    assert world.launcher.prepare(an_order({"taskType": "digest", "payload": ["odd"]})) == {"mode": "succeed"}


@pytest.fixture
def context() -> LauncherContext:
    return LauncherContext(Settings(), Payloads())


@pytest.fixture
def installed(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example launcher and some others, as if their packages were installed."""
    example = (repository / "examples/launcher/pyproject.toml").read_text()
    assert 'spool = "spool_launcher:SpoolLauncher"' in example
    information = tmp_path / "some_launchers-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: some-launchers\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[alakai.launchers]\n"
        "spool = spool_launcher:SpoolLauncher\n"
        "local = executions.adapters.local_launcher:create\n"
        "broken = no_such_module_at_all:create\n"
        "misspelt = spool_launcher:SpoolLaunch\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(repository / "examples/launcher")
    monkeypatch.setenv("SPOOL_FOLDER", str(tmp_path / "spool"))
    yield
    sys.modules.pop("spool_launcher", None)


@pytest.mark.usefixtures("installed")
class TestOpenLauncher:
    """Launchers are found by their entry points."""

    def test_the_local_launcher_and_a_third_party_one_are_found(self, context: LauncherContext) -> None:
        assert isinstance(open_launcher("local", context), LocalLauncher)
        assert open_launcher("spool", context).name == "spool"

    def test_an_unknown_name_is_answered_with_the_installed_ones(self, context: LauncherContext) -> None:
        with pytest.raises(InvalidSettings, match=r"'nomad'.*installed: broken, .*local, .*spool"):
            open_launcher("nomad", context)

    @pytest.mark.parametrize("name", ["broken", "misspelt"])
    def test_a_launcher_that_cannot_be_loaded_is_named(self, context: LauncherContext, name: str) -> None:
        with pytest.raises(InvalidSettings, match=f"'{name}' cannot be loaded"):
            open_launcher(name, context)

    def test_a_folder_for_output_that_cannot_be_made_stops_the_start(
        self, context: LauncherContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv(LOGS_VARIABLE, str(tmp_path / "file" / "folder"))
        with pytest.raises(InvalidSettings, match=LOGS_VARIABLE):
            create(context)


class SpoolWorld:
    """The example launcher; here the pool of workers behind the folder does nothing."""

    def __init__(self, context: LauncherContext, folder: Path) -> None:
        self._context = context
        self.folder = folder
        self.launcher = self.reopened()

    def reopened(self) -> Launcher:
        return open_launcher("spool", self._context)

    def task(self) -> dict[str, Any]:
        return task_document()

    async def workers(self, token: str) -> int:
        return len([*self.folder.glob(f"{token}.new"), *self.folder.glob(f"{token}.taken")])

    async def end(self, worker_id: str) -> None:
        (self.folder / f"{worker_id}.new").rename(self.folder / f"{worker_id}.done")


@pytest.mark.usefixtures("installed")
class TestExampleLauncher(LauncherContract):
    """The example in the repository keeps the contract too."""

    @pytest.fixture
    def world(self, context: LauncherContext, tmp_path: Path, installed: None) -> SpoolWorld:
        return SpoolWorld(context, tmp_path / "spool")

    async def test_a_taken_launch_is_not_stopped_by_force(self, world: SpoolWorld) -> None:
        worker_id = (await world.launcher.launch(an_intent(world))).worker_id
        (world.folder / f"{worker_id}.new").rename(world.folder / f"{worker_id}.taken")
        assert await state_of(world.launcher, worker_id) is WorkerState.RUNNING
        assert await world.launcher.stop(worker_id, "enough") is False
