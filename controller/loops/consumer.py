"""The consumer: each message of the task queue becomes a dispatch, and a summary event says what became of it.

Never launches a worker and never waits for one: a message is deleted as soon as its claim is durable. What is claimed
is launched by the reconciler. How and when messages are taken is in ``polling``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import orjson
import structlog

from controller.loops.polling import WAIT_SECONDS, LeftToDeadLetters, Poller, RecentKeys
from executions.adapters.logging import emit_summary
from executions.answer import Answer, Reply
from executions.errors import AlakaiError, InvalidTask, StoreUnavailable, TooMuchContention
from executions.index import Index
from executions.names import checked_task_id
from executions.operations.commands import Commands
from executions.ports import Message, Queue, Store
from executions.record import RecordUnreadable
from executions.summary import Slice, SliceOutcome
from executions.task import Task, task_from_body

_STATUS_OF_ERROR: dict[type[Exception], str] = {
    InvalidTask: "invalid_message",
    LeftToDeadLetters: "out_of_order",
    RecordUnreadable: "record_unreadable",
    StoreUnavailable: "store_unavailable",
    TooMuchContention: "contention",
}
_log = structlog.get_logger(__name__)


def wall_clock_ms() -> int:
    """For the times in logs only; deadlines go by the store's clock."""
    return time.time_ns() // 1_000_000


class Consumer:
    """Reads the task queue. ``pending_max`` waiting attempts are enough: nothing more is received until some started.

    ``concurrency`` receivers take up to ten messages each; ``heartbeat`` is called at each turn of one of them.
    """

    def __init__(
        self,
        queue: Queue,
        store: Store,
        commands: Commands,
        *,
        pending_max: int,
        concurrency: int = 2,
        wait_seconds: float = WAIT_SECONDS,
        emit: Callable[[dict[str, Any]], None] = emit_summary,
        heartbeat: Callable[[], None] = lambda: None,
        clock_ms: Callable[[], int] = wall_clock_ms,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._commands = commands
        self._pending_max = pending_max
        self._emit = emit
        self._clock_ms = clock_ms
        self._said = RecentKeys()
        self._poller = Poller(
            queue,
            store,
            self._handle,
            name="tasks",
            receivers=concurrency,
            wait_seconds=wait_seconds,
            reason_to_wait=self._reason_to_wait,
            heartbeat=heartbeat,
            draw=draw,
        )

    async def run(self) -> None:
        """Consume until ``stop`` or cancelled; either way what is under way is finished first."""
        await self._poller.run()

    def stop(self) -> None:
        self._poller.stop()

    async def _reason_to_wait(self) -> str | None:
        hold = await self._store.held()
        if hold is not None:
            return f"on hold by {hold.by}"
        if await self._store.count(Index.WAITING) >= self._pending_max:
            return "enough attempts are waiting already (PENDING_MAX)"
        return None

    async def _handle(self, message: Message) -> None:
        piece = Slice("orchestrator", "invalid_message", message.message_id, self._clock_ms())
        try:
            task = task_from_body(message.body)
            piece = Slice.of_task("orchestrator", task, piece.started_ms)
            piece.ok("parse")
            answer = await self._commands.dispatch(task, message_id=message.message_id)
            piece.ok("claim")
            self._conclude(message, piece, task, answer)
        except Exception as error:
            piece.failed("claim" if "parse" in piece.steps else "parse")
            piece.task_id = piece.task_id or _readable_task_id(message.body)
            status = _STATUS_OF_ERROR.get(type(error), "unexpected_error")
            self._say(message, piece, "error", status, error)
            raise

    def _conclude(self, message: Message, piece: Slice, task: Task, answer: Answer) -> None:
        match answer.reply:
            case Reply.OUT_OF_ORDER:
                latest = "no record" if answer.attempt is None else f"attempt {answer.attempt} ({answer.status})"
                raise LeftToDeadLetters(f"attempt {task.attempt} of task {task.task_id} cannot follow {latest}")
            case Reply.CLAIMED:
                self._say(message, piece, "success", answer.reply.value)
            case _:
                if self._say(message, piece, "skipped", answer.reply.value) and answer.reply is Reply.OVER_BUDGET:
                    _log.warning("Dropping over-budget dispatch", task_id=task.task_id, attempt=task.attempt)

    def _say(
        self, message: Message, piece: Slice, outcome: SliceOutcome, status: str, error: Exception | None = None
    ) -> bool:
        """Emit the summary event, once per message and status: redeliveries would be counted as work otherwise."""
        if not self._said.add((message.message_id, status)):
            return False
        text = str(error) if isinstance(error, AlakaiError) else "see the log line of this message"
        self._emit(
            piece.event(
                outcome,
                status,
                now_ms=self._clock_ms(),
                error_type=type(error).__name__ if error else None,
                error_message=text if error else None,
            )
        )
        return True


def _readable_task_id(body: str) -> str | None:
    """The task id of a message that is otherwise wrong, so that its sender can be found."""
    try:
        document = orjson.loads(body)
        return checked_task_id(document.get("taskId")) if isinstance(document, dict) else None
    except (ValueError, InvalidTask):
        return None
