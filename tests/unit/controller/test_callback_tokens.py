"""The token that a launch hands to its worker: the same at every replay, never stored, never another one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from executions.callback_token import KeyRing
from executions.errors import LaunchUnclear
from executions.record import Rung, Status
from tests.support.builders import pending
from tests.unit.controller.test_reconciler import World

KEYS = KeyRing("a", {"a": b"a" * 32}, "prefix")
ROTATED = replace(KEYS, current="b", keys={**KEYS.keys, "b": b"b" * 32})
WITHOUT_THE_OLD_ONE = replace(ROTATED, keys={"b": b"b" * 32})


@pytest.fixture
def world() -> World:
    return World(callback_keys=KEYS)


async def test_a_worker_is_handed_the_token_of_its_launch_and_the_record_does_not_hold_it(world: World) -> None:
    await world.put(pending())
    latest = (await world.reconcile()).latest
    (intent,) = world.launcher.intents
    handed = intent.order.callback_token
    assert latest.launch is not None
    assert handed == KEYS.token("task-1", 1, latest.launch)
    assert handed is not None
    assert all(handed.encode() not in value for value in world.store.records["task-1"].values())
    assert handed not in repr(intent)
    assert handed not in str(world.events)


async def test_without_keys_there_is_none(world: World) -> None:
    world.callback_keys = None
    await world.put(pending())
    await world.reconcile()
    assert [intent.order.callback_token for intent in world.launcher.intents] == [None]


async def test_a_replay_hands_over_the_same_token_whatever_key_is_current_by_then(world: World) -> None:
    world.launcher.lose_reply()
    await world.put(pending())
    with pytest.raises(LaunchUnclear):
        await world.reconcile()
    world.callback_keys = ROTATED
    assert (await world.settle()).latest.status is Status.RUNNING
    first, second = world.launcher.intents
    assert first == second


@pytest.mark.parametrize("was_started", [True, False])
async def test_a_launch_whose_key_is_gone_is_found_or_given_up_and_never_sent_with_another_token(
    world: World, was_started: bool
) -> None:
    (world.launcher.lose_reply if was_started else world.launcher.lose_request)()
    await world.put(pending())
    with pytest.raises(LaunchUnclear):
        await world.reconcile()
    world.callback_keys = WITHOUT_THE_OLD_ONE
    latest = (await world.settle()).latest
    assert len(world.launcher.intents) == 1
    assert latest.launch is not None
    if was_started:
        assert (latest.status, latest.launch.rung) == (Status.RUNNING, Rung.LISTED)
    else:
        assert (latest.status, latest.error_code) == (Status.FAILED, "START_TIMEOUT")
        assert "its callback token's key is gone" in (latest.error_message or "")


async def test_a_launch_that_was_intended_before_there_were_keys_is_sent_as_it_was(world: World) -> None:
    world.callback_keys = None
    world.launcher.lose_request()
    await world.put(pending())
    with pytest.raises(LaunchUnclear):
        await world.reconcile()
    world.callback_keys = KEYS
    assert (await world.settle()).latest.status is Status.RUNNING
    assert [intent.order.callback_token for intent in world.launcher.intents] == [None, None]
