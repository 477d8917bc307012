"""Circuit breakers of launches: one for each launcher and task type, kept in Redis, so that a new leader finds them.

The same launch failure again and again opens one: further launches of that class wait, until a single one, let through
after a pause, shows that launches work again. What is let through is decided by the commit of the launch
(``executions.admission``, ``commit.lua``); here failures are counted and successes close.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from executions.admission import Breaker, BreakerRule
from executions.ports import Store
from executions.record import Attempt

FAILURES = frozenset({"IMAGE_ERROR", "LAUNCH_CAPACITY", "LAUNCH_REJECTED", "START_TIMEOUT", "WORKER_NEVER_STARTED"})
"""Launch failures: the task was never at fault, because it never began."""
_REFUSALS = frozenset({"LAUNCH_CAPACITY", "LAUNCH_REJECTED"})
"""Those that a launcher tells at once: a launch that it accepts shows that they are over."""
_log = structlog.get_logger(__name__)


async def tell_nobody(*_: object) -> None:
    """For those that work without breakers."""


@dataclass(slots=True)
class Breakers:
    """The leader's. ``open`` is what was open when it was last looked at."""

    store: Store
    rule: BreakerRule
    open: dict[tuple[str, str], Breaker] = field(default_factory=dict, init=False)

    async def refresh(self) -> list[Breaker]:
        """Look which are open; returns those that have closed since the last look. Raises StoreUnavailable."""
        before, found = self.open, await self.store.breakers()
        self.open = {(item.launcher, item.task_type): item for item in found}
        return [item for key, item in before.items() if key not in self.open]

    async def launch_failed(self, attempt: Attempt, code: str) -> None:
        """Count a launch that gave no worker. Raises StoreUnavailable."""
        if code not in FAILURES or attempt.launcher is None or attempt.launch is None:
            return
        opened = await self.store.count_launch_failure(
            attempt.launcher, attempt.task_type, code, key=attempt.launch.token, rule=self.rule
        )
        if opened:
            _log.warning(
                "Launches are held back: the same failure again and again; one at a time tries whether they work again",
                launcher=attempt.launcher,
                task_type=attempt.task_type,
                code=code,
                failures=self.rule.failures,
            )
            await self.refresh()

    async def launch_works(self, attempt: Attempt, *, has_started: bool) -> None:
        """A launch was accepted, or its worker was seen at work: closes the breaker that had let it through."""
        key = (attempt.launcher or "", attempt.task_type)
        if key not in self.open:
            return
        await self.refresh()
        breaker = self.open.get(key)
        if breaker is None or breaker.probe != attempt.task_id or not (has_started or breaker.code in _REFUSALS):
            return
        await self.store.close_breaker(*key)
        _log.info("Launches work again", launcher=key[0], task_type=key[1], code=breaker.code)
