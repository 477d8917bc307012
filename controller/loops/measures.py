"""What has to be asked for before it can be measured: the depths of queues, the age of work, the size of Redis.

Runs on the leader only, every few seconds. A question that fails is told in the log once and leaves its figure as it
was; nothing here decides anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from controller.loops.sweep import Sweep
from controller.work_queue import WorkQueue
from executions.adapters import metrics
from executions.adapters.redis_feed import RedisFeed
from executions.adapters.redis_store import RedisStore
from executions.adapters.sqs_queue import SqsQueue
from executions.errors import AlakaiError
from executions.index import Index

_EVERY_SECONDS = 5.0
_QUEUES_EVERY_TURN = 6
"""SQS is asked more rarely: each look is a request that is paid for."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Measures:
    """Tells ``metrics``. ``work`` and ``queues`` are by the name that their figures get."""

    store: RedisStore
    feed: RedisFeed
    sweep: Sweep
    work: Mapping[str, WorkQueue]
    queues: Mapping[str, SqsQueue]
    _failed: set[str] = field(default_factory=set, init=False)
    _turns: int = field(default=0, init=False)

    async def run(self, interval_seconds: float = _EVERY_SECONDS) -> None:
        """Until cancelled; then nothing is told any more that only a leader knows."""
        try:
            while True:
                await self.turn()
                await asyncio.sleep(interval_seconds)
        finally:
            metrics.forget_leadership()

    async def turn(self) -> None:
        self._tell_work()
        await self._try("records", self._tell_records)
        await self._try("redis", self._tell_redis)
        is_turn_of_queues = self._turns % _QUEUES_EVERY_TURN == 0
        self._turns += 1
        for name, queue in self.queues.items() if is_turn_of_queues else ():
            await self._try(name, lambda name=name, queue=queue: self._tell_queue(name, queue))  # type: ignore[misc]

    def _tell_work(self) -> None:
        metrics.LEADER.set(1)
        metrics.SWEEP_AGE.set(self.sweep.age_seconds)
        for name, queue in self.work.items():
            metrics.WORK_QUEUE_DEPTH.labels(name, "ready").set(queue.depth)
            metrics.WORK_QUEUE_DEPTH.labels(name, "postponed").set(queue.postponed)
            metrics.WORK_QUEUE_AGE.labels(name).set(queue.oldest_age_seconds)

    async def _tell_records(self) -> None:
        now_ms = await self.store.now_ms()
        metrics.LIVE.set(await self.store.count(Index.LIVE))
        metrics.RETRIES_SCHEDULED.set(await self.store.count(Index.DUE))
        oldest = await self.store.oldest(Index.WAITING)
        metrics.OLDEST_WAITING.set(max(now_ms - oldest, 0) / 1000 if oldest is not None else 0)
        metrics.FEED_LAG.set(await self.feed.lag())

    async def _tell_redis(self) -> None:
        metrics.REDIS_BYTES.set(await self.store.used_bytes())

    async def _tell_queue(self, name: str, queue: SqsQueue) -> None:
        depths = await queue.depths()
        metrics.QUEUE_MESSAGES.labels(name).set(depths.messages)
        if depths.dead_letters is not None:
            metrics.DEAD_LETTERS.labels(name).set(depths.dead_letters)

    async def _try(self, what: str, tell: Callable[[], Awaitable[None]]) -> None:
        try:
            await tell()
        except AlakaiError as error:
            if what not in self._failed:
                _log.warning("A figure cannot be told", of=what, reason=str(error))
            self._failed.add(what)
        else:
            self._failed.discard(what)
