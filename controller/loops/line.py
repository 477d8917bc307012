"""The line of attempts that wait for a slot: wakes those whose turn it is when a slot became free or a hold ended.

Whether they may begin is decided by the commit of their launch (``executions.admission``); here they are only woken, so
a mistake here delays a launch and never starts one too many. Also tells the metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from controller.breakers import Breakers
from executions.adapters.metrics import tell_admission
from executions.admission import Hold, Slots, next_in_line
from executions.errors import StoreUnavailable
from executions.index import Index
from executions.ports import Store

_HEADS = 64
"""More than become free at once; the rest is woken by the turn that follows."""
_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 0.05
"""Between two turns: what becomes free in a burst is given away in one."""
_EVERYTHING = 1_000_000
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Line:
    """``nudge`` says that somebody may have become free; ``run`` also looks once a second for the end of a hold."""

    store: Store
    slots: Slots
    breakers: Breakers
    wake: Callable[[str], None]
    _nudged: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _hold: Hold | None = field(default=None, init=False)

    def nudge(self) -> None:
        if self.slots.is_limited:
            self._nudged.set()

    async def run(self) -> None:
        """For ever; an outage of the store is waited out."""
        while True:
            try:
                await self.turn()
            except StoreUnavailable as error:
                _log.warning("The line could not be looked at", reason=str(error))
            self._nudged.clear()
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._nudged.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_PAUSE_SECONDS)

    async def turn(self) -> None:
        """Wake who is next. Raises StoreUnavailable."""
        before, self._hold = self._hold, await self.store.held()
        closed = await self.breakers.refresh()
        standing, now_ms = await self.store.standing(heads=_HEADS), await self.store.now_ms()
        tell_admission(standing, self.slots, is_held=self._hold is not None, breakers=self.breakers.open.values())
        if self._hold is not None:
            if before != self._hold:
                _log.warning("On hold: nothing is taken in and nothing is launched", by=self._hold.by)
            return
        if before is not None:
            _log.info("The hold has ended")
        barred = {item.task_type for item in self.breakers.open.values() if item.probe_at_ms > now_ms}
        if self.slots.is_limited:
            woken = next_in_line(standing, self.slots, barred)
        else:
            woken = await self.store.members(Index.WAITING, limit=_EVERYTHING) if before is not None or closed else []
        due = {task_type for _, task_type in self.breakers.open} - barred
        woken += [task_id for task_type in due for _, task_id in list(standing.heads.get(task_type, ()))[:1]]
        for task_id in woken:
            self.wake(task_id)
