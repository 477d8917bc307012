"""A queue in memory that behaves like SQS: visibility, receive counts, receipts, dead letters."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from executions.errors import QueueUnavailable, QueueUnclear
from executions.ports import Message

_SHORTEST_SECONDS = 1e-6
"""A shorter wait than the clock of a test's loop can tell would never pass."""


@dataclass(slots=True)
class _Entry:
    message_id: str
    body: str
    sent_ms: int
    receive_count: int = 0
    visible_at: float = 0.0
    receipt: str | None = None


class MemoryQueue:
    """``ports.Queue`` for unit tests; time is the running loop's.

    ``unavailable`` makes every call fail; ``unclear`` makes each send arrive and its answer be lost; messages whose id
    is in ``undeletable`` are what a deletion reports as failed.
    """

    def __init__(self, *, visibility_seconds: float = 30.0, max_receives: int | None = None) -> None:
        self.visibility_seconds = visibility_seconds
        self.max_receives = max_receives
        self.unavailable = False
        self.unclear = False
        self.undeletable: set[str] = set()
        self.sent: list[dict[str, Any]] = []
        self.receives = 0
        """How often somebody asked for messages."""
        self.dead: list[str] = []
        """Bodies of messages that were received too often."""
        self.entries: list[_Entry] = []
        """What is in the queue, visible or not."""
        self._closed = False
        self._numbers = itertools.count(1)
        self._changed = asyncio.Condition()

    async def put(self, body: str, *, message_id: str | None = None) -> str:
        """Put a body as an upstream service does. The same ``message_id`` again is a duplicate delivery."""
        entry = _Entry(message_id or f"message-{next(self._numbers)}", body, time.time_ns() // 1_000_000)
        async with self._changed:
            self.entries.append(entry)
            self._changed.notify_all()
        return entry.message_id

    async def receive(self, *, maximum: int = 10, wait_seconds: float = 20) -> list[Message]:
        self._check()
        self.receives += 1
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        async with self._changed:
            while True:
                taken = self._take(min(maximum, 10), loop.time())
                left = deadline - loop.time()
                if taken or left < _SHORTEST_SECONDS:
                    return taken
                # Also wakes for what becomes visible by itself.
                soonest = min((item.visible_at for item in self.entries), default=deadline)
                pause = min(left, max(soonest - loop.time(), 0.001))
                try:
                    await asyncio.wait_for(self._changed.wait(), pause)
                except TimeoutError:
                    continue
                finally:
                    self._check()

    async def delete(self, messages: Sequence[Message]) -> list[Message]:
        self._check()
        kept = [item for item in messages if item.message_id in self.undeletable]
        receipts = {item.receipt for item in messages if item not in kept}
        # An old receipt deletes nothing and is not told so.
        self.entries = [item for item in self.entries if item.receipt not in receipts]
        return kept

    async def release(self, messages: Sequence[Message]) -> None:
        self._check()
        receipts = {item.receipt for item in messages}
        async with self._changed:
            for entry in self.entries:
                if entry.receipt in receipts:
                    entry.visible_at = 0.0
            self._changed.notify_all()

    async def waiting(self) -> int:
        self._check()
        return len(self.entries)

    async def send(self, document: Mapping[str, Any]) -> str:
        self._check()
        self.sent.append(dict(document))
        message_id = await self.put(orjson.dumps(document).decode())
        if self.unclear:
            raise QueueUnclear("the answer was lost (test)")
        return message_id

    async def close(self) -> None:
        self._closed = True

    def _take(self, maximum: int, now: float) -> list[Message]:
        taken: list[Message] = []
        for entry in list(self.entries):
            if entry.visible_at > now or len(taken) == maximum:
                continue
            if self.max_receives is not None and entry.receive_count >= self.max_receives:
                self.entries.remove(entry)
                self.dead.append(entry.body)
                continue
            entry.receive_count += 1
            entry.visible_at = now + self.visibility_seconds
            entry.receipt = f"receipt-{next(self._numbers)}"
            taken.append(Message(entry.message_id, entry.body, entry.receipt, entry.receive_count, entry.sent_ms))
        return taken

    def _check(self) -> None:
        if self._closed or self.unavailable:
            raise QueueUnavailable("the queue is away (test)")
