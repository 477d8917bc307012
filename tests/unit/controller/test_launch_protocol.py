"""The launch-intent protocol under trouble: launches that grew old, controllers that stood still, answers that came
too late. That a crash between any two actions changes nothing is in ``test_reconciler``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from executions.control import suspend
from executions.errors import LaunchRefused, LaunchUnclear
from executions.lifecycle import ended, is_orphan, launch_failed, launched
from executions.operations.commands import Commands
from executions.operations.transact import alter
from executions.plan import REPLAY_LIMIT_MS
from executions.ports import Launched, LaunchIntent, Snapshot
from executions.record import Execution, Rung, Status
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_store import MemoryStore
from tests.unit.controller.test_reconciler import (
    WAYS,
    Fault,
    FaultyStore,
    Way,
    World,
    essence,
    token,
)
from tests.unit.domain.states import cancelling, claimed_again, outcome, reported


@pytest.fixture
def world() -> World:
    return World()


def said(execution: Execution) -> list[str]:
    return [item.detail for item in execution.latest.evidence]


# Which rung decided


async def test_the_rung_that_decided_is_kept_on_the_attempt(world: World) -> None:
    await world.put(pending())
    latest = (await world.reconcile()).latest
    assert latest.launch is not None
    assert (latest.launch.rung, latest.evidence) == (Rung.SENT, [])


async def test_what_stood_against_a_worker_is_kept_as_evidence(world: World) -> None:
    class Doubtful(FakeLauncher):
        async def launch(self, intent: LaunchIntent) -> Launched:
            worker_id = (await super().launch(intent)).worker_id
            return Launched(worker_id, Rung.VERIFIED, "refused, but it is listed")

    world.launcher = Doubtful()
    await world.put(pending())
    latest = (await world.reconcile()).latest
    assert latest.launch is not None
    assert latest.launch.rung is Rung.VERIFIED
    assert [(item.source, item.detail, item.observed_at) for item in latest.evidence] == [
        ("fake:launch", "refused, but it is listed", NOW_MS)
    ]


async def test_a_refusal_is_kept_as_evidence_also_after_the_next_try_succeeded(world: World) -> None:
    world.launcher.refuse(times=2)
    await world.put(pending())
    found = await world.settle()
    assert (found.latest.status, found.latest.launch_tries) == (Status.RUNNING, 3)
    assert said(found) == ["no room", "no room"]


# Launches that are too old to be sent


async def unanswered(world: World, *, is_started: bool = True) -> str:
    """A launch whose answer was lost, as old as its token lives; returns the token. A replay would start a second."""
    (world.launcher.lose_reply if is_started else world.launcher.lose_request)()
    await world.put(pending())
    with pytest.raises(LaunchUnclear):
        await world.reconcile()
    world.store.now += REPLAY_LIMIT_MS
    world.launcher.forget(token())
    world.launcher.calls.clear()
    return token()


async def test_a_launch_that_is_too_old_to_be_sent_is_looked_for_and_adopted(world: World) -> None:
    used = await unanswered(world)
    latest = (await world.settle()).latest
    assert (latest.status, latest.worker_id) == (Status.RUNNING, FakeLauncher.worker_of(used))
    assert latest.launch is not None
    assert latest.launch.rung is Rung.LISTED
    assert world.launcher.calls == [("find", used)]
    assert world.launcher.starts == {used: 1}
    assert world.events[-1]["final_status"] == "launched"


async def test_a_launch_that_can_no_longer_be_proven_safe_is_never_sent(world: World) -> None:
    used = await unanswered(world, is_started=False)
    found = await world.settle()
    assert (found.latest.status, found.latest.error_code) == (Status.FAILED, "START_TIMEOUT")
    assert found.latest.error_message == (
        "the launch could not be proven: it was written down 50 min ago, it was never answered, no worker of it "
        "is found, and sent again it could start a second one; retry the task"
    )
    assert said(found) == [found.latest.error_message]
    assert world.launcher.calls == [("find", used)]
    assert world.launcher.starts == {}


async def test_one_millisecond_earlier_it_is_sent(world: World) -> None:
    used = await unanswered(world, is_started=False)
    world.store.now -= 1
    assert (await world.settle()).latest.status is Status.RUNNING
    assert world.launcher.calls == [("launch", used)]


async def test_who_cannot_be_looked_for_is_neither_sent_nor_given_up(world: World) -> None:
    used = await unanswered(world)
    world.launcher.is_blind = True
    for _ in range(3):
        with pytest.raises(LaunchUnclear):
            await world.reconcile()
    assert (await world.found()).latest.status is Status.PENDING
    world.launcher.is_blind = False
    assert (await world.settle()).latest.worker_id == FakeLauncher.worker_of(used)
    assert world.launcher.starts == {used: 1}


async def test_a_launcher_without_a_limit_is_sent_the_launch_after_any_time(world: World) -> None:
    world.launcher.replay_limit_ms = None
    world.launcher.lose_request()
    await world.put(pending())
    with pytest.raises(LaunchUnclear):
        await world.reconcile()
    world.store.now += 100 * REPLAY_LIMIT_MS
    assert (await world.settle()).latest.status is Status.RUNNING


async def test_a_launcher_that_names_no_limit_gets_the_safe_one(world: World) -> None:
    used = await unanswered(world)
    del world.launcher.replay_limit_ms
    await world.settle()
    assert world.launcher.calls == [("find", used)]


@pytest.mark.parametrize("is_started", [True, False])
async def test_an_old_launch_that_is_to_be_cancelled_is_found_and_stopped(world: World, is_started: bool) -> None:
    await unanswered(world, is_started=is_started)
    await world.put(cancelling(await world.found()))
    assert (await world.settle()).latest.status is Status.CANCELLED
    assert "launch" not in {call[0] for call in world.launcher.calls}
    assert world.launcher.alive == set()


async def test_an_old_launch_is_found_also_when_its_payload_is_lost(world: World) -> None:
    used = await unanswered(world)
    await world.put((await world.found()).with_latest(task_snapshot=None))
    assert (await world.settle()).latest.worker_id == FakeLauncher.worker_of(used)


class FaultyFinder(FakeLauncher):
    fault: Fault | None = None

    async def find(self, intent: LaunchIntent) -> str | None:
        async def find() -> str | None:
            return await FakeLauncher.find(self, intent)

        return await (self.fault.around(find, LaunchUnclear) if self.fault else find())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_started", [True, False])
async def test_a_crash_while_an_old_launch_is_looked_for_changes_nothing(is_started: bool, way: Way) -> None:
    async def played(fault: Fault) -> tuple[World, Execution]:
        store, launcher = FaultyStore(), FaultyFinder()
        world = World(store=store, launcher=launcher)
        await unanswered(world, is_started=is_started)
        store.fault = launcher.fault = fault
        return world, await world.settle()

    calm = Fault(0, way)
    _, expected = await played(calm)
    assert calm.actions == 2, "one look and one commit"
    for at in range(1, calm.actions + 1):
        fault = Fault(at, way)
        world, found = await played(fault)
        assert fault.struck
        assert essence(found) == essence(expected)
        assert set(world.launcher.starts.values()) <= {1}


# A controller that stood still


class StandingStill(MemoryStore):
    """The process is stopped right after a read: what it read is served to it later, when everything else went on."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def read(self, task_id: str) -> Snapshot:
        snapshot = await super().read(task_id)
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            await happens()
        return snapshot


async def test_a_controller_that_wakes_up_after_the_deadline_sends_nothing() -> None:
    """Failure: it read an intent, stood still for an hour, and sends what was given up and forgotten meanwhile."""
    store = StandingStill()
    world = World(store=store)
    seconds = 0.0
    await world.put(intended())

    async def an_hour_passes() -> None:
        nonlocal seconds
        seconds += 3600
        store.now += 3_600_000
        await world.put(
            ended(await world.found(), 1, Status.FAILED, now_ms=store.now, code="START_TIMEOUT", message="given up")
        )

    store.meanwhile = an_hour_passes
    reconciler = world.reconciler()
    reconciler.clock = lambda: seconds
    await reconciler.reconcile("task-1")
    assert world.launcher.calls == []
    assert (await world.found()).latest.error_message == "given up"


async def test_a_controller_that_stood_still_looks_again_and_then_sends() -> None:
    store = StandingStill()
    world = World(store=store)
    seconds = 0.0
    await world.put(intended())

    async def a_minute_passes() -> None:
        nonlocal seconds
        seconds += 60
        store.now += 60_000

    store.meanwhile = a_minute_passes
    reconciler = world.reconciler()
    reconciler.clock = lambda: seconds
    await reconciler.reconcile("task-1")
    assert (await world.found()).latest.status is Status.RUNNING
    assert len(world.launcher.calls) == 1


# Answers that come too late


def answered_late(world: World, change: Callable[[], Awaitable[object]]) -> None:
    """The launch starts its worker; before the answer arrives something else happens."""

    class Late(FakeLauncher):
        async def launch(self, intent: LaunchIntent) -> Launched:
            answer = await super().launch(intent)
            if len(self.intents) == 1:
                await change()
            return answer

    world.launcher = Late()


async def altered(world: World, change: Callable[[Execution], Execution]) -> None:
    await alter(world.store, "task-1", lambda found, _: change(found))


def given_up(found: Execution) -> Execution:
    return ended(found, 1, Status.FAILED, now_ms=NOW_MS, code="START_TIMEOUT", message="given up")


def relaunched(found: Execution) -> Execution:
    return launch_failed(found, 1, 1, code="X", message="x", permanent=False, now_ms=NOW_MS, policy=POLICY)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(given_up, id="the attempt was given up"),
        pytest.param(lambda found: claimed_again(given_up(found)), id="the next attempt began"),
        pytest.param(lambda found: claimed_again(reported(found)), id="it reported and the next attempt began"),
        pytest.param(relaunched, id="another launch try began"),
        pytest.param(
            lambda found: launched(found, 1, 1, worker_id="fake/other", now_ms=NOW_MS), id="another worker is known"
        ),
    ],
)
async def test_a_worker_whose_launch_is_answered_too_late_is_stopped(
    world: World, change: Callable[[Execution], Execution]
) -> None:
    answered_late(world, lambda: altered(world, change))
    world.launcher.stop_calls_needed = 2
    await world.put(pending())
    reconciler = world.reconciler()
    await reconciler.reconcile("task-1")
    first = (await world.found()).attempts[0]
    while world.wakes and FakeLauncher.worker_of(token()) in world.launcher.alive:
        world.wakes.clear()
        await reconciler.reconcile("task-1")
    assert FakeLauncher.worker_of(token()) not in world.launcher.alive
    stops = [call for call in world.launcher.calls if call[0] == "stop"]
    assert stops[0] == ("stop", FakeLauncher.worker_of(token()), "its launch was answered too late")
    assert (await world.found()).attempts[0] == first, "what the record says of it was settled before"


async def test_a_worker_of_a_record_that_was_removed_is_stopped(world: World) -> None:
    async def remove() -> None:
        world.store.records.pop("task-1")

    answered_late(world, remove)
    await world.put(pending())
    await world.reconciler().reconcile("task-1")
    assert world.launcher.alive == set()


async def test_an_orphan_that_cannot_be_stopped_now_is_stopped_later_and_holds_up_nothing(world: World) -> None:
    answered_late(world, lambda: altered(world, lambda found: claimed_again(given_up(found))))
    stop = world.launcher.stop

    async def unreachable(worker_id: str, reason: str) -> bool:
        raise LaunchUnclear("no answer")

    world.launcher.stop = unreachable  # type: ignore[method-assign]
    await world.put(pending())
    reconciler = world.reconciler()
    await reconciler.reconcile("task-1")
    assert (await world.found()).latest.status is Status.RUNNING, "attempt 2 has its worker"
    assert ("task-1", 30.0) in world.wakes
    world.launcher.stop = stop  # type: ignore[method-assign]
    await reconciler.reconcile("task-1")
    assert world.launcher.alive == {FakeLauncher.worker_of(token(attempt=2))}


async def test_a_fast_worker_that_reported_before_its_answer_is_left_to_end_by_itself(world: World) -> None:
    async def report() -> None:
        await Commands(world.store, world.queue, POLICY, "local").complete(outcome(succeeded=True))

    answered_late(world, report)
    await world.put(pending())
    assert (await world.reconcile()).latest.status is Status.SUCCEEDED
    assert [call[0] for call in world.launcher.calls] == ["launch"]


async def test_a_refusal_takes_no_worker_away_that_another_controller_was_told_of(world: World) -> None:
    class Refused(FakeLauncher):
        async def launch(self, intent: LaunchIntent) -> Launched:
            await altered(world, lambda found: launched(found, 1, 1, worker_id="fake/first", now_ms=NOW_MS))
            raise LaunchRefused("no room", code="LAUNCH_CAPACITY", permanent=False)

    world.launcher = Refused()
    await world.put(pending())
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.worker_id, latest.launch_tries) == (Status.RUNNING, "fake/first", 1)


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        pytest.param(None, True, id="of a record that is gone"),
        pytest.param(running(), False, id="that is the live one"),
        pytest.param(intended(), False, id="that is not noted yet: the next replay adopts it"),
        pytest.param(suspend(running(), suspended=True), False, id="of a suspended execution"),
        pytest.param(cancelling(running()), False, id="that is to be cancelled: it is stopped as such"),
        pytest.param(running().with_latest(worker_id="other"), True, id="beside another one"),
        pytest.param(pending(), True, id="of a launch that was given up"),
        pytest.param(given_up(running()), True, id="of an attempt that was ended without it"),
        pytest.param(reported(running()), False, id="that reported by itself"),
        pytest.param(claimed_again(reported(running())), True, id="of an earlier attempt"),
    ],
)
def test_a_worker_is_an_orphan(execution: Execution | None, expected: bool) -> None:
    assert is_orphan(execution, "t" * 64, "worker-of-task-1") is expected


# After Redis lost its data


@pytest.mark.parametrize("was_started", [True, False])
async def test_a_launch_whose_payload_is_lost_is_looked_for_and_never_sent(world: World, was_started: bool) -> None:
    if was_started:
        world.launcher.lose_reply()
        await world.put(pending())
        with pytest.raises(LaunchUnclear):
            await world.reconcile()
    else:
        await world.put(intended())
    world.launcher.calls.clear()
    await world.put((await world.found()).with_latest(task_snapshot=None))
    latest = (await world.settle()).latest
    assert [call[0] for call in world.launcher.calls] == ["find"]
    if was_started:
        assert (latest.status, latest.worker_id) == (Status.RUNNING, FakeLauncher.worker_of(token()))
    else:
        assert (latest.status, latest.error_code) == (Status.FAILED, "PAYLOAD_LOST")
        assert latest.error_message == "the task's payload is lost"
