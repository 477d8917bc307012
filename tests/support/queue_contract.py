"""What every queue does, in memory or on SQS. Subclasses provide the fixtures ``queue`` and ``world``.

The queue gives a message again ``SECOND`` after it was received, and after ``MAX_RECEIVES`` receives to the dead
letters. Waits are long polls, so nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

import orjson
import pytest

from executions.errors import QueueUnavailable
from executions.ports import Message, Queue

MAX_RECEIVES = 2


class World(Protocol):
    """What others do with the queue behind its reader's back."""

    async def put(self, body: str) -> str:
        """Put a body as it is; returns its MessageId."""
        ...

    async def dead_letters(self) -> list[str]:
        """Bodies that went to the dead letters."""
        ...


async def received(queue: Queue, count: int, *, seconds: float = 20.0) -> list[Message]:
    """Exactly ``count`` messages: SQS may need several receives for them."""
    messages: list[Message] = []
    deadline = time.monotonic() + seconds
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages came"
        messages += await queue.receive(wait_seconds=1)
    assert len(messages) == count
    return messages


def ids(messages: Sequence[Message]) -> set[str]:
    return {message.message_id for message in messages}


class QueueContract:
    """One test per promise of ``ports.Queue``."""

    SECOND = 1.0
    """The shortest time that the queue knows: of SQS a second, of the fake less."""

    async def test_what_is_sent_is_received(self, queue: Queue) -> None:
        before_ms = time.time_ns() // 1_000_000
        message_id = await queue.send({"taskId": "täsk-1", "list": [], "number": 2**53 + 1})
        (message,) = await received(queue, 1)
        assert message.message_id == message_id
        assert orjson.loads(message.body) == {"taskId": "täsk-1", "list": [], "number": 2**53 + 1}
        assert message.receive_count == 1
        assert message.sent_ms is not None
        assert abs(message.sent_ms - before_ms) < 60_000
        assert message.receipt not in repr(message)

    async def test_a_body_arrives_as_it_was_put(self, queue: Queue, world: World) -> None:
        message_id = await world.put("no {json} \u2028 ü")
        (message,) = await received(queue, 1)
        assert (message.message_id, message.body) == (message_id, "no {json} \u2028 ü")

    async def test_an_empty_queue_gives_nothing_after_the_wait(self, queue: Queue) -> None:
        started = time.monotonic()
        assert await queue.receive(wait_seconds=self.SECOND) == []
        assert time.monotonic() - started >= 0.9 * self.SECOND

    async def test_a_long_poll_ends_when_a_message_comes(self, queue: Queue, world: World) -> None:
        started = time.monotonic()
        poll = asyncio.ensure_future(queue.receive(wait_seconds=20))
        await asyncio.sleep(0)
        message_id = await world.put("x")
        assert ids(await poll) == {message_id}
        assert time.monotonic() - started < 15

    async def test_no_more_come_than_were_asked_for(self, queue: Queue, world: World) -> None:
        put = {await world.put(str(number)) for number in range(3)}
        first = await queue.receive(maximum=2, wait_seconds=self.SECOND)
        assert 1 <= len(first) <= 2
        rest = await received(queue, 3 - len(first))
        assert ids(first) | ids(rest) == put

    async def test_a_received_message_is_invisible_for_a_while_and_then_comes_again(
        self, queue: Queue, world: World
    ) -> None:
        await world.put("x")
        (first,) = await received(queue, 1)
        assert await queue.receive(wait_seconds=0) == []
        (second,) = await received(queue, 1)
        assert second.message_id == first.message_id
        assert (first.receive_count, second.receive_count) == (1, 2)
        assert first.receipt != second.receipt

    async def test_a_released_message_comes_again_at_once(self, queue: Queue, world: World) -> None:
        await world.put("x")
        started = time.monotonic()
        (first,) = await received(queue, 1)
        await queue.release([first])
        (second,) = await queue.receive(wait_seconds=0)
        assert time.monotonic() - started < self.SECOND
        assert (second.message_id, second.receive_count) == (first.message_id, 2)

    async def test_deleted_messages_never_come_again(self, queue: Queue, world: World) -> None:
        put = {await world.put(str(number)) for number in range(12)}
        messages = await received(queue, 12)
        assert ids(messages) == put
        assert await queue.delete(messages) == []
        assert await queue.receive(wait_seconds=2 * self.SECOND) == []

    async def test_it_counts_what_is_there_hidden_or_not(self, queue: Queue, world: World) -> None:
        assert await queue.waiting() == 0
        for body in ("x", "y"):
            await world.put(body)
        assert await queue.waiting() == 2
        (first,) = await queue.receive(maximum=1, wait_seconds=self.SECOND)
        assert await queue.waiting() == 2
        await queue.delete([first])
        assert await queue.waiting() == 1

    async def test_deleting_and_releasing_nothing_is_nothing(self, queue: Queue) -> None:
        assert await queue.delete([]) == []
        await queue.release([])

    async def test_a_message_received_too_often_goes_to_the_dead_letters(self, queue: Queue, world: World) -> None:
        await world.put("poison")
        for count in range(1, MAX_RECEIVES + 1):
            (message,) = await received(queue, 1)
            assert message.receive_count == count
            await queue.release([message])
        assert await queue.receive(wait_seconds=self.SECOND) == []
        assert await world.dead_letters() == ["poison"]

    async def test_a_closed_queue_is_unavailable(self, queue: Queue) -> None:
        await queue.close()
        with pytest.raises(QueueUnavailable):
            await queue.receive(wait_seconds=0)
        with pytest.raises(QueueUnavailable):
            await queue.send({})
