"""The launcher in memory keeps the launcher's contract, so that unit tests may trust it."""

from __future__ import annotations

from typing import Any

import pytest

from executions.errors import LaunchRefused, LaunchUnclear
from executions.evidence import WorkerState
from executions.ports import Launcher, LaunchIntent, LaunchOrder
from tests.support.builders import task_document
from tests.support.fake_launcher import FakeLauncher
from tests.support.launcher_contract import LauncherContract, an_order, state_of


class FakeWorld:
    def __init__(self) -> None:
        self.fake = FakeLauncher()
        self.launcher: Launcher = self.fake

    def reopened(self) -> Launcher:
        return self.fake

    def task(self) -> dict[str, Any]:
        return task_document()

    async def workers(self, token: str) -> int:
        return int(FakeLauncher.worker_of(token) in self.fake.alive)

    async def end(self, worker_id: str) -> None:
        self.fake.end(worker_id)


class TestFakeLauncher(LauncherContract):
    @pytest.fixture
    def world(self) -> FakeWorld:
        return FakeWorld()


@pytest.fixture
def fake() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def order() -> LaunchOrder:
    return an_order(task_document())


async def test_a_lost_reply_leaves_a_worker_and_a_lost_request_none(fake: FakeLauncher, order: LaunchOrder) -> None:
    intent = LaunchIntent(order, fake.prepare(order))
    fake.lose_request()
    fake.lose_reply()
    with pytest.raises(LaunchUnclear):
        await fake.launch(intent)
    assert fake.starts[order.token] == 0
    with pytest.raises(LaunchUnclear):
        await fake.launch(intent)
    assert fake.starts[order.token] == 1
    assert (await fake.launch(intent)).worker_id == fake.worker_of(order.token)
    assert fake.starts[order.token] == 1
    assert fake.calls == [("launch", order.token)] * 3


async def test_a_refused_launch_starts_nothing(fake: FakeLauncher, order: LaunchOrder) -> None:
    fake.refuse("LAUNCH_REJECTED", permanent=True)
    with pytest.raises(LaunchRefused) as refused:
        await fake.launch(LaunchIntent(order, {}))
    assert (refused.value.code, refused.value.permanent) == ("LAUNCH_REJECTED", True)
    assert not fake.alive
    fake.order_refusal = refused.value
    with pytest.raises(LaunchRefused):
        fake.prepare(order)


async def test_a_replay_with_another_request_is_a_bug_of_the_caller(fake: FakeLauncher, order: LaunchOrder) -> None:
    await fake.launch(LaunchIntent(order, {}))
    with pytest.raises(AssertionError, match="the very same"):
        await fake.launch(LaunchIntent(order, {"image": "other"}))


async def test_looks_show_what_was_told(fake: FakeLauncher, order: LaunchOrder) -> None:
    worker_id = (await fake.launch(LaunchIntent(order, {}))).worker_id
    fake.see(worker_id, WorkerState.STOPPED, "no image", never_started=True)
    (observation,) = await fake.observe([worker_id])
    assert (observation.detail, observation.never_started) == ("no image", True)
    fake.overlook(worker_id)
    assert await fake.observe([worker_id]) == []
    fake.overlook(worker_id, overlooked=False)
    assert await state_of(fake, worker_id) is WorkerState.STOPPED
    fake.is_blind = True
    with pytest.raises(LaunchUnclear):
        await fake.observe([worker_id])


async def test_a_worker_may_take_several_requests_to_stop(fake: FakeLauncher, order: LaunchOrder) -> None:
    fake.stop_calls_needed = 3
    worker_id = (await fake.launch(LaunchIntent(order, {}))).worker_id
    assert [await fake.stop(worker_id, "enough") for _ in range(4)] == [False, False, False, True]
    assert not fake.alive
    assert fake.calls[-1] == ("stop", worker_id, "enough")
