"""Push hints: events that say a worker changed make the sweep look at it now instead of at its next pass.

An event decides nothing and is not kept: it is deleted once its task is noted for a look, and a hint that is lost with
the process costs time only, because the sweep looks at every worker anyway.

Runs on the leader only, who alone can look. Messages that arrive while leadership ends are given back to the queue;
those that nobody leads to read wait there, and the next leader's first sweep looks at everything.

Events of others (another service, another kind, tasks that are not ours) are deleted: a rule for a whole cluster brings
many. What is no event at all is left to the queue's dead-letter policy and logged, without its content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from controller.loops.polling import Poller
from controller.loops.sweep import LOOK_BATCH
from executions.ecs_events import WorkerChanged, worker_changed_from_body
from executions.errors import AlakaiError
from executions.ports import Message, Queue, Store

_WAIT_SECONDS = 1.0
"""One long poll: short, because the end of leadership waits for it."""
_QUIET_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 3.0
_VERSIONS_KEPT = 10_000
_log = structlog.get_logger(__name__)


class Hints:
    """Reads the events queue and calls ``look_at(task_ids)`` with full batches, fewer only when a burst is over."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        look_at: Callable[[Sequence[str]], Awaitable[None]],
        *,
        wait_seconds: float = _WAIT_SECONDS,
        quiet_seconds: float = _QUIET_SECONDS,
        longest_wait_seconds: float = _LONGEST_WAIT_SECONDS,
        versions_kept: int = _VERSIONS_KEPT,
    ) -> None:
        self._look_at = look_at
        self._quiet_seconds = quiet_seconds
        self._longest_wait_seconds = longest_wait_seconds
        self._versions_kept = versions_kept
        self._versions: dict[str, int] = {}
        """The newest by worker; an older or repeated event is no news. The workers heard of last come last."""
        self._hinted: dict[str, None] = {}
        self._arrived = asyncio.Event()
        self._poller = Poller(queue, store, self._handle, name="hints", wait_seconds=wait_seconds)

    async def run(self) -> None:
        """Until cancelled, which waits for the long poll under way and gives back what it brings."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poller.run())
            group.create_task(self._look_on())

    async def _handle(self, message: Message) -> None:
        changed = worker_changed_from_body(message.body)
        if changed is not None and self._is_news(changed):
            self._hinted[changed.task_id] = None
            self._arrived.set()

    def _is_news(self, changed: WorkerChanged) -> bool:
        known = self._versions.pop(changed.worker_id, None)
        self._versions[changed.worker_id] = changed.version if known is None else max(known, changed.version)
        if len(self._versions) > self._versions_kept:
            del self._versions[next(iter(self._versions))]
        return known is None or changed.version > known

    async def _look_on(self) -> None:
        while True:
            task_ids = await self._gathered()
            try:
                await self._look_at(task_ids)
            except AlakaiError as error:
                _log.warning("A hinted look failed; the sweep will look", tasks=len(task_ids), reason=str(error))
            except Exception:
                _log.exception("A hinted look failed; the sweep will look", tasks=len(task_ids))

    async def _gathered(self) -> list[str]:
        """The tasks of one look. Waits until one launcher call is full, or until no more events arrive."""
        loop = asyncio.get_running_loop()
        while not self._hinted:
            self._arrived.clear()
            await self._arrived.wait()
        last = loop.time() + self._longest_wait_seconds
        while len(self._hinted) < LOOK_BATCH and loop.time() < last:
            self._arrived.clear()
            try:
                async with asyncio.timeout(min(self._quiet_seconds, last - loop.time())):
                    await self._arrived.wait()
            except TimeoutError:
                break
        task_ids = list(self._hinted)[:LOOK_BATCH]
        for task_id in task_ids:
            del self._hinted[task_id]
        return task_ids
