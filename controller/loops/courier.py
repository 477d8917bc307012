"""Delivers one channel's notifications: what is due, in order per task, several tasks side by side.

A failure is tried again after a while (``delivery``), or given up onto the list of the dead; meanwhile its task's later
ones wait, and nobody else does. Each channel has a courier of its own. Runs on the leader; when it crashes between a
delivery and writing that down, the next one delivers once more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from executions.adapters.metrics import NOTIFICATIONS
from executions.adapters.notification_outbox import NotificationOutbox, Taken
from executions.delivery import DeliveryRules
from executions.errors import NotDelivered, StoreUnavailable
from executions.notification import notification_from_text
from executions.ports import Channel

_LOOK_SECONDS = 2.0
"""Others may put something into the line too: whoever leads besides us, and ``alakai notifications redrive``."""
_PAUSE_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class Courier:
    """``run`` delivers for ever. ``draw`` returns 0 to 1."""

    def __init__(
        self, outbox: NotificationOutbox, channel: Channel, rules: DeliveryRules, *, draw: Callable[[], float]
    ) -> None:
        self._outbox = outbox
        self._channel = channel
        self._rules = rules
        self._draw = draw
        self._label = channel.name.partition(":")[0]
        self._woken = asyncio.Event()
        self._under_way = set[asyncio.Task[None]]()
        self._quiet_until = 0.0

    def wake(self) -> None:
        """There may be something to deliver."""
        self._woken.set()

    async def run(self) -> None:
        try:
            while True:
                self._woken.clear()
                try:
                    wait_seconds = await self.turn()
                except StoreUnavailable as error:
                    _log.warning("The outbox could not be read", channel=self._channel.name, reason=str(error))
                    wait_seconds = _PAUSE_SECONDS
                await self._sleep(wait_seconds)
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def turn(self) -> float:
        """Begin to deliver what is due; the longest time until the next look."""
        quiet_seconds = self._quiet_until - time.monotonic()
        if quiet_seconds > 0:
            return quiet_seconds
        free = self._rules.at_once - len(self._under_way)
        if free <= 0:
            return _LOOK_SECONDS
        taken, next_ms = await self._outbox.take(self._channel.name, limit=free, lease_ms=self._rules.lease_ms)
        for item in taken:
            task = asyncio.create_task(self._deliver(item), name=f"deliver {self._channel.name}")
            self._under_way.add(task)
            task.add_done_callback(self._ended)
        return _LOOK_SECONDS if next_ms is None else min(next_ms / 1000, _LOOK_SECONDS)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        quiet_seconds = self._quiet_until - time.monotonic()
        if quiet_seconds > 0:
            await asyncio.sleep(quiet_seconds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("A delivery ended by a defect", channel=self._channel.name, exc_info=error)

    async def _deliver(self, taken: Taken) -> None:
        try:
            failure = await self._tried(taken)
            await self._settle(taken, failure)
        except StoreUnavailable as error:
            # Ours until the lease ends, and then delivered again: better twice than not at all.
            _log.warning("A delivery could not be written down", channel=self._channel.name, reason=str(error))

    async def _tried(self, taken: Taken) -> NotDelivered | None:
        try:
            notification = notification_from_text(taken.text)
            async with asyncio.timeout(self._rules.timeout_ms / 1000):
                await self._channel.deliver(notification, now_ms=taken.now_ms)
        except NotDelivered as error:
            return error
        except TimeoutError:
            return NotDelivered(f"no answer within {self._rules.timeout_ms / 1000:g} s")
        except StoreUnavailable:
            raise
        except Exception as error:
            _log.exception("A notification cannot be told", channel=self._channel.name, task_id=taken.task_id)
            return NotDelivered(f"a defect ({type(error).__name__}), see the log", is_refusal=True)
        return None

    async def _settle(self, taken: Taken, failure: NotDelivered | None) -> None:
        if failure is None:
            NOTIFICATIONS.labels(self._label, "sent").inc()
            await self._outbox.told(taken)
            return
        wait_ms = self._rules.wait_ms(failure, taken.tries, self._draw())
        about = {"channel": self._channel.name, "task_id": taken.task_id, "reason": str(failure)}
        if wait_ms is None:
            NOTIFICATIONS.labels(self._label, "dead").inc()
            _log.error("A notification was given up; see alakai notifications dead", **about)
            await self._outbox.give_up(taken, str(failure))
            return
        NOTIFICATIONS.labels(self._label, "failed").inc()
        _log.warning("A notification was not delivered", again_in_ms=wait_ms, **about)
        if failure.is_for_all and failure.retry_after_ms is not None:
            self._quiet_until = max(self._quiet_until, time.monotonic() + wait_ms / 1000)
        await self._outbox.try_again(taken, wait_ms=wait_ms, is_refusal=failure.is_refusal)
