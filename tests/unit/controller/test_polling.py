"""What the queue readers have in common, where no reader shows it."""

from __future__ import annotations

import asyncio

import pytest

from controller.loops.polling import Poller, RecentKeys, Turn, backoff_seconds
from executions.ports import Message
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.support.waiting import until


def test_recent_keys_are_new_once_and_bounded() -> None:
    keys = RecentKeys(limit=2)
    assert [keys.add(key) for key in ("a", "b", "a", "c", "a", "c")] == [True, True, False, True, True, False]


async def test_receivers_take_batches_side_by_side() -> None:
    queue, busy, go_on = MemoryQueue(), set[str](), asyncio.Event()

    async def handle(message: Message) -> None:
        busy.add(message.message_id)
        await go_on.wait()

    poller = Poller(queue, MemoryStore(), handle, name="test", receivers=3, wait_seconds=0.05)
    for number in range(40):
        await queue.put(str(number))
    task = asyncio.create_task(poller.run())
    await until(lambda: len(busy) == 30)
    poller.stop()
    go_on.set()
    await asyncio.wait_for(task, 5)
    assert len(queue.entries) == 10


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [(0.0, [0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5]), (1.0, [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])],
)
def test_back_offs_double_up_to_five_seconds(drawn: float, expected: list[float]) -> None:
    assert [backoff_seconds(failures, drawn) for failures in range(7)] == pytest.approx(expected)
    assert backoff_seconds(10_000, drawn) == expected[-1]


@pytest.mark.looptime
async def test_a_turn_that_went_well_begins_the_back_off_anew() -> None:
    store, turns = MemoryStore(), list[Turn]()

    def note(turn: Turn) -> None:
        turns.append(turn)
        # Away for one turn in two, 0.1 s each; were the waits not begun anew, these would last 3 s and more.
        store.unavailable = len(turns) % 2 == 1

    async def handle(message: Message) -> None:
        raise AssertionError("nothing is there to receive")

    poller = Poller(MemoryQueue(), store, handle, name="test", wait_seconds=0.01, on_turn=note, draw=lambda: 0.0)
    task = asyncio.create_task(poller.run())
    await until(lambda: len(turns) >= 12, seconds=2)
    poller.stop()
    await asyncio.wait_for(task, 5)
    assert turns[:4] == [Turn.EMPTY, Turn.STORE_AWAY, Turn.EMPTY, Turn.STORE_AWAY]


async def test_a_second_cancellation_does_not_wait() -> None:
    queue, never = MemoryQueue(), asyncio.Event()

    async def handle(message: Message) -> None:
        await never.wait()

    poller = Poller(queue, MemoryStore(), handle, name="test", wait_seconds=0.05)
    await queue.put("x")
    task = asyncio.create_task(poller.run())
    await until(lambda: queue.entries[0].receive_count == 1)
    task.cancel()
    await asyncio.wait([task], timeout=0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert len(queue.entries) == 1
