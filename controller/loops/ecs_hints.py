"""Hints from ECS: EventBridge's events that say a task changed.

An event decides nothing and is not kept: it is deleted once its task is noted for a look. Runs on the leader only, who
alone can look. Messages that arrive while leadership ends are given back to the queue; those that nobody leads to read
wait there, and the next leader's first sweep looks at everything.

Events of others (another service, another kind, tasks that are not ours) are deleted: a rule for a whole cluster brings
many. What is no event at all is left to the queue's dead-letter policy and logged, without its content.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.loops.polling import Poller
from executions.ecs_events import WorkerChanged, worker_changed_from_body
from executions.ports import Message, Queue, Store

_WAIT_SECONDS = 1.0
"""One long poll: short, because the end of leadership waits for it."""
_VERSIONS_KEPT = 10_000


class EcsHints:
    """Reads the events queue and calls ``note(task_id)`` for each event that is news."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        note: Callable[[str], None],
        *,
        wait_seconds: float = _WAIT_SECONDS,
        versions_kept: int = _VERSIONS_KEPT,
    ) -> None:
        self._note = note
        self._versions_kept = versions_kept
        self._versions: dict[str, int] = {}
        """The newest by worker; an older or repeated event is no news. The workers heard of last come last."""
        self._poller = Poller(queue, store, self._handle, name="hints", wait_seconds=wait_seconds)

    async def run(self) -> None:
        """Until cancelled, which waits for the long poll under way and gives back what it brings."""
        await self._poller.run()

    async def _handle(self, message: Message) -> None:
        changed = worker_changed_from_body(message.body)
        if changed is not None and self._is_news(changed):
            self._note(changed.task_id)

    def _is_news(self, changed: WorkerChanged) -> bool:
        known = self._versions.pop(changed.worker_id, None)
        self._versions[changed.worker_id] = changed.version if known is None else max(known, changed.version)
        if len(self._versions) > self._versions_kept:
            del self._versions[next(iter(self._versions))]
        return known is None or changed.version > known
