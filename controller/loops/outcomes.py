"""Outcomes that were kept on a queue of their own while the store was away, applied when it is back.

Runs on every replica, also while nothing else is received. The API writes them (``POST /task-complete``) as
``executions.kept_outcome`` says. Never judges a worker: that is ``sweep``, which waits until nothing is kept any more.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import structlog

from controller.loops.polling import WAIT_SECONDS, Poller, Turn
from executions.answer import Reply
from executions.kept_outcome import kept_outcome_from_body
from executions.operations.commands import Commands
from executions.ports import Message, Operation, Queue, Store

_EMPTY_POLLS = 2
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
        self._store = store
        self._commands = commands
        self._empty_polls = 0
        self._drained_at_ms: int | None = None
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

        That is: two long polls in a row were empty since the last message, the last outage of the store, the start.
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
        outcome, operation = kept.outcome, Operation(f"outcome:{message.message_id}")
        answer = await self._commands.complete(
            outcome, received_ms=kept.received_ms, operation=operation, proof=kept.proof
        )
        say = _log.warning if answer.reply is Reply.NOT_FOUND else _log.info
        say("Kept outcome applied", task_id=outcome.task_id, attempt=outcome.attempt, reply=answer.reply.value)

    def _count(self, turn: Turn) -> None:
        match turn:
            case Turn.EMPTY:
                self._empty_polls += 1
            case Turn.QUEUE_AWAY if self.is_drained:
                # Outcomes are only kept while the store is away, and then this is reset anyway.
                return
            case _:
                self._empty_polls = 0
                self._drained_at_ms = None

    async def _note_when_drained(self) -> None:
        """Nothing is a reason to wait: what is kept is applied under a hold, too."""
        if self._empty_polls >= _EMPTY_POLLS and self._drained_at_ms is None:
            self._drained_at_ms = await self._store.now_ms()
