"""Push hints: whoever hears that a worker changed makes the sweep look at it now instead of at its next pass.

A hint decides nothing and is not kept: one that is lost with the process costs time only, because the sweep looks at
every worker anyway. Hints come from ``ecs_hints`` and from launchers that watch their workers (``ports.Watching``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from controller.loops.sweep import LOOK_BATCH
from executions.errors import AlakaiError

_QUIET_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 3.0
_log = structlog.get_logger(__name__)


class Hints:
    """Calls ``look_at(task_ids)`` with full batches of noted tasks, fewer only when a burst is over."""

    def __init__(
        self,
        look_at: Callable[[Sequence[str]], Awaitable[None]],
        *,
        quiet_seconds: float = _QUIET_SECONDS,
        longest_wait_seconds: float = _LONGEST_WAIT_SECONDS,
    ) -> None:
        self._look_at = look_at
        self._quiet_seconds = quiet_seconds
        self._longest_wait_seconds = longest_wait_seconds
        self._noted: dict[str, None] = {}
        self._arrived = asyncio.Event()

    def note(self, task_id: str) -> None:
        """A worker of this task changed, somebody says."""
        self._noted[task_id] = None
        self._arrived.set()

    async def run(self) -> None:
        """Until cancelled."""
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
        while not self._noted:
            self._arrived.clear()
            await self._arrived.wait()
        last = loop.time() + self._longest_wait_seconds
        while len(self._noted) < LOOK_BATCH and loop.time() < last:
            self._arrived.clear()
            try:
                async with asyncio.timeout(min(self._quiet_seconds, last - loop.time())):
                    await self._arrived.wait()
            except TimeoutError:
                break
        task_ids = list(self._noted)[:LOOK_BATCH]
        for task_id in task_ids:
            del self._noted[task_id]
        return task_ids
