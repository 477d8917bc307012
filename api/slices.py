"""One summary event per request that did something, joined by ``trace_id`` with what the other components say.

The event's shape is ``executions.summary``'s; here is only when it is written and what it is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from api.dependencies import Context
from api.errors import STORE_ERRORS
from executions.errors import AlakaiError, InvalidTask, QueueUnavailable, QueueUnclear, StoreUnavailable
from executions.outcome import Agent
from executions.record import Execution
from executions.summary import Slice, SliceOutcome
from executions.task import task_from_document


class Work:
    """The slice of work of one request: ``async with Work(…)``, steps, one ``conclude``; an exception concludes too."""

    def __init__(self, context: Context, operation: str, task_id: str) -> None:
        self._context = context
        self._task_id = task_id
        self._slice = Slice("core", operation, task_id, context.clock_ms(), task_id=task_id)
        self._outcome: SliceOutcome = "error"
        self._final_status = "unfinished"
        self._error: Exception | None = None
        self._store_is_away = False
        self._agent: Agent | None = None
        self._pull_request_url: str | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step that is ``error`` when an exception leaves it."""
        try:
            yield
        except Exception as error:
            self._slice.failed(name)
            self._store_is_away |= isinstance(error, StoreUnavailable)
            raise
        self._slice.ok(name)

    def ok(self, step: str) -> None:
        self._slice.ok(step)

    def failed(self, step: str) -> None:
        self._slice.failed(step)

    def left_out(self, step: str) -> None:
        self._slice.left_out(step)

    def tells(self, *, agent: Agent | None, pull_request_url: str | None) -> None:
        """What a worker's outcome adds to the event."""
        self._agent = agent
        self._pull_request_url = pull_request_url

    def conclude(self, outcome: SliceOutcome, final_status: str) -> None:
        self._outcome, self._final_status = outcome, final_status

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._error = error
            self.conclude("error", _final_status(error))
        # A store that was just seen to be away is not waited for a second time only to name the task.
        if not self._store_is_away:
            await self._describe()
        event = self._slice.event(
            self._outcome,
            self._final_status,
            now_ms=self._context.clock_ms(),
            error_type=type(self._error).__name__ if self._error else None,
            error_message=str(self._error) if self._error else None,
            agent=self._agent,
            pull_request_url=self._pull_request_url,
        )
        self._context.emit(event)

    async def _describe(self) -> None:
        try:
            execution = (await self._context.store.read(self._task_id)).execution
        except AlakaiError:
            return
        if execution is not None:
            self._slice = _about(execution, self._slice)


def _about(execution: Execution, slice_: Slice) -> Slice:
    """The same slice with what the record tells about the task."""
    latest = execution.latest
    trace_id = latest.trace_id or execution.task_id
    try:
        told = Slice.of_task("core", task_from_document(latest.task_snapshot), slice_.started_ms)
    except InvalidTask:
        told = Slice("core", latest.task_type, trace_id, slice_.started_ms, execution.task_id, latest.task_type)
    told.trace_id = latest.trace_id or told.trace_id
    told.steps = slice_.steps
    return told


def _final_status(error: Exception) -> str:
    if isinstance(error, QueueUnavailable | QueueUnclear):
        return "queue_unavailable"
    return "store_unavailable" if isinstance(error, STORE_ERRORS) else "internal_error"
