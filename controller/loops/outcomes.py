"""Outcomes that were kept on a queue of their own while the store was away, applied when it is back.

Runs on every replica, also while nothing else is received. The API writes them (``POST /task-complete``) as
``executions.kept_outcome`` says. Never judges a worker: that is ``sweep``, which waits until nothing is kept any more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from controller.loops.polling import WAIT_SECONDS, Poller, RecentKeys, Turn
from executions.answer import Reply
from executions.errors import QueueUnavailable
from executions.kept_outcome import kept_outcome_from_body
from executions.operations.commands import Commands
from executions.ports import Message, Operation, Queue, Store

_EMPTY_POLLS = 2
_PATIENCE_SECONDS = 600.0
"""After the last outage of the store, for messages that lie there and never come: twice what brings an unreadable one
to the dead letters where we made the queue (10 receives, 30 s apart)."""
_log = structlog.get_logger(__name__)


class Outcomes:
    """Reads the outcomes queue, and knows when it is drained.

    A worker must not be judged lost while its outcome may still lie in the queue: wait for ``drained_at_ms`` and the
    grace period after it.
    """

    def __init__(
        self,
        queue: Queue,
        store: Store,
        commands: Commands,
        *,
        wait_seconds: float = WAIT_SECONDS,
        heartbeat: Callable[[], None] = lambda: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._store = store
        self._commands = commands
        self._empty_polls = 0
        self._has_read_one = False
        """Whether this turn brought an outcome that can be read."""
        self._patient_until: float | None = None
        """By the loop's clock; None before the store has answered."""
        self._drained_at_ms: int | None = None
        self._reported = RecentKeys()
        self._poller = Poller(
            queue,
            store,
            self._handle,
            name="outcomes",
            wait_seconds=wait_seconds,
            reason_to_wait=self._note_when_drained,
            on_turn=self._count,
            heartbeat=heartbeat,
            draw=draw,
        )

    @property
    def drained_at_ms(self) -> int | None:
        """Since when, by the store's clock, nothing has been waiting; None while something may be.

        That is: two long polls in a row brought none since the last outcome, the last outage of the store, the start,
        and the queue counts none that somebody has received and could not apply yet: such a one is hidden from polls
        until its visibility time-out. What lies there for ten minutes all the same can be applied by nobody.
        """
        return self._drained_at_ms

    @property
    def is_drained(self) -> bool:
        return self._drained_at_ms is not None

    async def run(self) -> None:
        """Read until ``stop`` or cancelled."""
        await self._poller.run()

    def stop(self) -> None:
        self._poller.stop()

    async def _handle(self, message: Message) -> None:
        kept = kept_outcome_from_body(message.body)
        self._has_read_one = True
        outcome, operation = kept.outcome, Operation(f"outcome:{message.message_id}")
        answer = await self._commands.complete(
            outcome, received_ms=kept.received_ms, operation=operation, proof=kept.proof
        )
        say = _log.warning if answer.reply is Reply.NOT_FOUND else _log.info
        say("Kept outcome applied", task_id=outcome.task_id, attempt=outcome.attempt, reply=answer.reply.value)

    def _count(self, turn: Turn) -> None:
        has_read_one, self._has_read_one = self._has_read_one, False
        match turn:
            case Turn.EMPTY:
                self._empty_polls += 1
            case Turn.HANDLED if not has_read_one:
                # What nobody can read comes again and again, and is no outcome that a worker waits for.
                self._empty_polls += 1
            case Turn.QUEUE_AWAY if self.is_drained:
                # Outcomes are only kept while the store is away, and then this is reset anyway.
                return
            case _:
                self._empty_polls = 0
                self._drained_at_ms = None
                if turn is not Turn.HANDLED:
                    self._patient_until = None

    async def _note_when_drained(self) -> None:
        """Nothing is a reason to wait: what is kept is applied under a hold, too."""
        now = asyncio.get_running_loop().time()
        if self._patient_until is None:
            self._patient_until = now + _PATIENCE_SECONDS
        if self._empty_polls >= _EMPTY_POLLS and self._drained_at_ms is None:
            if await self._lie_there():
                if now < self._patient_until:
                    return
                _log.warning("Outcomes lie in their queue and cannot be had; lost workers are told all the same")
            self._drained_at_ms = await self._store.now_ms()

    async def _lie_there(self) -> bool:
        """Whether the queue counts messages that polls do not bring, or does not say."""
        try:
            return await self._queue.waiting() > 0
        except QueueUnavailable as error:
            if self._reported.add(str(error)):
                _log.warning("The outcomes queue does not say what it holds", reason=str(error))
            return True
