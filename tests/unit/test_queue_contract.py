"""The queue in memory keeps the queue's contract, so that unit tests may trust it."""

from __future__ import annotations

import pytest

from executions.errors import QueueUnavailable, QueueUnclear
from tests.support.memory_queue import MemoryQueue
from tests.support.queue_contract import MAX_RECEIVES, QueueContract, received


class MemoryWorld:
    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue

    async def put(self, body: str) -> str:
        return await self._queue.put(body)

    async def dead_letters(self) -> list[str]:
        return self._queue.dead


class TestMemoryQueue(QueueContract):
    SECOND = 0.1

    @pytest.fixture
    def queue(self) -> MemoryQueue:
        return MemoryQueue(visibility_seconds=self.SECOND, max_receives=MAX_RECEIVES)

    @pytest.fixture
    def world(self, queue: MemoryQueue) -> MemoryWorld:
        return MemoryWorld(queue)


async def test_an_unavailable_queue_does_nothing() -> None:
    queue = MemoryQueue()
    queue.unavailable = True
    with pytest.raises(QueueUnavailable):
        await queue.send({"a": 1})
    with pytest.raises(QueueUnavailable):
        await queue.receive(wait_seconds=0)
    assert (queue.sent, queue.entries) == ([], [])


async def test_an_unclear_send_has_arrived() -> None:
    queue = MemoryQueue()
    queue.unclear = True
    with pytest.raises(QueueUnclear):
        await queue.send({"a": 1})
    assert queue.sent == [{"a": 1}]
    assert [message.body for message in await received(queue, 1)] == ['{"a":1}']


async def test_an_old_receipt_deletes_nothing() -> None:
    queue = MemoryQueue(visibility_seconds=0.01)
    await queue.put("x")
    (first,) = await received(queue, 1)
    (second,) = await received(queue, 1)
    assert await queue.delete([first]) == []
    assert len(queue.entries) == 1
    queue.undeletable.add(second.message_id)
    assert await queue.delete([second]) == [second]
    assert len(queue.entries) == 1
