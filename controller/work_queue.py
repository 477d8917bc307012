"""A queue of ids of which each stands for "look at this again": coalescing, one at a time per id, with back-off.

What is to be done is never in the queue, only what it is to be done for; the handler looks at the present state. Used
by the mirror and by the reconciler. Forgets everything with the process: whatever must survive is in the store, and
``loops`` find it there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from executions.adapters.metrics import WORK_QUEUE_FAILURES, WORK_QUEUE_WAIT
from executions.errors import AlakaiError

_log = structlog.get_logger(__name__)


class WorkQueue:
    """Runs ``handle(key)`` for each added key on ``workers`` workers, while ``run`` runs.

    A key that is added while it waits is handled once; one that is added while it is handled is handled once more.
    A failed key is tried again after a pause that doubles from ``first_pause_seconds`` to ``longest_pause_seconds``,
    with jitter, or that the error asks for (its attribute ``retry_after_seconds``).
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[str], Awaitable[None]],
        *,
        workers: int = 8,
        first_pause_seconds: float = 0.2,
        longest_pause_seconds: float = 30.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._handle = handle
        self._workers = workers
        self._first_pause_seconds = first_pause_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._jitter = jitter
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._since: dict[str, float] = {}
        """Waiting keys, and since when: in ``_ready``, or in ``_running`` and to be handled once more."""
        self._running: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self.handled = 0
        self.failed = 0

    @property
    def depth(self) -> int:
        """How many keys wait to be handled now; not those that wait for their time."""
        return len(self._since)

    @property
    def keys(self) -> set[str]:
        """Every key that waits, is being handled, or waits for its time."""
        return {*self._since, *self._running, *self._timers}

    @property
    def postponed(self) -> int:
        """How many keys wait for their time: pauses after failures included."""
        return len(self._timers)

    @property
    def oldest_age_seconds(self) -> float:
        """For how long the key that waits longest has waited."""
        return asyncio.get_running_loop().time() - next(iter(self._since.values())) if self._since else 0.0

    @property
    def is_idle(self) -> bool:
        return not self._since and not self._running

    def add(self, key: str) -> None:
        """Handle the key as soon as a worker is free."""
        if key in self._since:
            return
        self._since[key] = asyncio.get_running_loop().time()
        if key not in self._running:
            self._ready.put_nowait(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Handle the key in so many seconds; of several times the earliest counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(seconds, 0)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._now_due, key)

    async def run(self) -> None:
        """Work until cancelled; then the keys that wait are forgotten."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self.name}-{number}")
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            self._since.clear()
            self._failures.clear()
            self._ready = asyncio.Queue()

    def _now_due(self, key: str) -> None:
        del self._timers[key]
        self.add(key)

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            waited = asyncio.get_running_loop().time() - self._since.pop(key)
            WORK_QUEUE_WAIT.labels(self.name).observe(waited)
            self._running.add(key)
            try:
                await self._handle(key)
            except Exception as error:
                self._fail(key, error)
            else:
                self.handled += 1
                self._failures.pop(key, None)
            finally:
                self._running.discard(key)
                if key in self._since:
                    self._ready.put_nowait(key)

    def _fail(self, key: str, error: Exception) -> None:
        self.failed += 1
        WORK_QUEUE_FAILURES.labels(self.name).inc()
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(self._first_pause_seconds * 2 ** min(failures - 1, 16), self._longest_pause_seconds)
        pause = max(pause * (0.5 + self._jitter() / 2), float(getattr(error, "retry_after_seconds", 0.0)))
        if not isinstance(error, AlakaiError):
            _log.error("A defect, tried again", queue=self.name, key=key, failures=failures, exc_info=error)
        elif failures & (failures - 1) == 0:  # the 1st, 2nd, 4th, 8th…: an outage fails every key many times
            _log.warning("Tried again later", queue=self.name, key=key, failures=failures, reason=str(error))
        self.add_after(key, pause)
