"""What is to be told and was not told yet, in Redis: for each channel and task a line, for each channel who is due.

An outcome is put into the lines of all channels that it concerns by one script, and only the head of a line is ever
under way: so it is told in order per task, and no task or channel waits for another. Whoever takes a head has it for a
lease; should it crash, the next one delivers it again. Never looks into a notification nor decides when to try again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis

from executions.adapters.redis_connection import redis_errors, script_text
from executions.adapters.redis_keys import Keys
from executions.delivery import Tries
from executions.notification import Notification

DEAD_KEPT = 10_000
"""Of each channel, the newest ones."""
_REMEMBERED = 20_000
"""Ids of events that were put. Whoever reads the feed repeats at most what it had in hand when it crashed."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The head of a task's line, ours for the lease."""

    channel: str
    task_id: str
    event_id: str
    text: bytes
    """The notification, as it was put."""
    tries: Tries
    now_ms: int
    """Redis' clock when it was taken."""


@dataclass(frozen=True, slots=True)
class Dead:
    """A notification that was given up."""

    channel: str
    task_id: str
    event_id: str
    reason: str
    at_ms: int
    tries: int
    text: str
    raw: bytes
    """As it lies in Redis, by which it is found."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a channel's line stands."""

    tasks: int
    oldest_ms: int | None
    """For how long the oldest head waits."""
    dead: int


class NotificationOutbox:
    """The outbox under one prefix. Every method raises StoreUnavailable."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._keys = Keys(prefix)
        self._put = redis.register_script(script_text("notify_put.lua"))
        self._take = redis.register_script(script_text("notify_take.lua"))
        self._settle = redis.register_script(script_text("notify_settle.lua"))
        self._redrive = redis.register_script(script_text("notify_redrive.lua"))

    async def put(self, notification: Notification, channels: Sequence[str]) -> bool:
        """Put it into the lines of these channels, all or none; False when its event was put before."""
        if not channels:
            return False
        keys = [self._keys.notifications_put, self._keys.notification_channels]
        for channel in channels:
            keys += [
                self._keys.notification_line(channel, notification.task_id),
                self._keys.notifications_due(channel),
                self._keys.notifications_since(channel),
            ]
        arguments: list[Any] = [
            _REMEMBERED,
            notification.event_id,
            notification.task_id,
            notification.encoded,
            *channels,
        ]
        with redis_errors():
            return bool(await self._put(keys=keys, args=arguments))

    async def take(self, channel: str, *, limit: int, lease_ms: int) -> tuple[list[Taken], int | None]:
        """Heads that are due, and in how many milliseconds the next one is; None: none waits."""
        with redis_errors():
            now_ms, next_ms, *flat = await self._take(
                keys=[self._keys.notifications_due(channel)],
                args=[
                    self._keys.notification_line(channel, ""),
                    self._keys.notification_tries(channel, ""),
                    limit,
                    lease_ms,
                ],
            )
        rows = [flat[at : at + 5] for at in range(0, len(flat), 5)]
        return [_taken(channel, now_ms, row) for row in rows], None if next_ms < 0 else next_ms

    async def told(self, taken: Taken) -> None:
        """It was delivered: the next one of its task is due."""
        await self._settled(taken, "gone")

    async def try_again(self, taken: Taken, *, wait_ms: int, is_refusal: bool) -> None:
        await self._settled(taken, "again", wait_ms, int(is_refusal))

    async def give_up(self, taken: Taken, reason: str) -> None:
        """Onto the list of the dead, with the reason; the next one of its task is due."""
        dead = {
            "taskId": taken.task_id,
            "eventId": taken.event_id,
            "reason": reason,
            "at": taken.now_ms,
            "tries": taken.tries.failed + 1,
            "text": taken.text.decode("utf-8", "replace"),
        }
        await self._settled(taken, "dead", DEAD_KEPT, orjson.dumps(dead))

    async def channels(self) -> list[str]:
        """Every channel that anything was ever put into the line of."""
        with redis_errors():
            found = await self._redis.smembers(self._keys.notification_channels)
        return sorted(name.decode() for name in found if isinstance(name, bytes))

    async def standing(self, channel: str) -> Standing:
        with redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.time()
            pipeline.zcard(self._keys.notifications_due(channel))
            pipeline.zrange(self._keys.notifications_since(channel), 0, 0, withscores=True)
            pipeline.llen(self._keys.notifications_dead(channel))
            (seconds, micros), tasks, oldest, dead = await pipeline.execute()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return Standing(int(tasks), max(now_ms - int(oldest[0][1]), 0) if oldest else None, int(dead))

    async def dead(self, channel: str) -> list[Dead]:
        """Those that were given up, the oldest first."""
        with redis_errors():
            found: Any = await self._redis.lrange(self._keys.notifications_dead(channel), 0, -1)
        return [_dead(channel, raw) for raw in found]

    async def redrive(self, dead: Dead) -> bool:
        """Put it behind those of its task again; False when it is not on the list any more."""
        keys = self._keys
        with redis_errors():
            return bool(
                await self._redrive(
                    keys=[
                        keys.notifications_dead(dead.channel),
                        keys.notifications_due(dead.channel),
                        keys.notifications_since(dead.channel),
                        keys.notification_line(dead.channel, dead.task_id),
                    ],
                    args=[dead.raw, dead.task_id, dead.event_id, dead.text],
                )
            )

    async def _settled(self, taken: Taken, what: str, *rest: Any) -> None:
        keys, channel = self._keys, taken.channel
        with redis_errors():
            await self._settle(
                keys=[
                    keys.notifications_due(channel),
                    keys.notifications_since(channel),
                    keys.notification_line(channel, taken.task_id),
                    keys.notification_tries(channel, taken.task_id),
                    keys.notifications_dead(channel),
                ],
                args=[taken.task_id, taken.event_id, what, *rest],
            )


def _taken(channel: str, now_ms: int, row: Sequence[bytes]) -> Taken:
    task_id, entry, failed, refused, since = row
    head, _, text = entry.partition(b"\n")
    put_ms, _, event_id = head.partition(b" ")
    tries = Tries(int(failed), int(refused), max(now_ms - int(since or put_ms), 0))
    return Taken(channel, task_id.decode(), event_id.decode(), text, tries, now_ms)


def _dead(channel: str, raw: bytes) -> Dead:
    found = orjson.loads(raw)
    return Dead(
        channel,
        found["taskId"],
        found["eventId"],
        found["reason"],
        found["at"],
        found["tries"],
        found["text"],
        raw,
    )
