"""The latest state of each execution in Redis, made of lifecycle events in whatever order and however often they come.

``project.lua`` compares and writes at once, so any number of projectors may run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from executions.adapters.redis_connection import redis_errors, script_text
from executions.adapters.redis_streams import text
from executions.adapters.tracking_keys import TrackingKeys
from executions.rows import Place
from executions.tracking import TrackingEvent


class TrackingProjection:
    """Written by projectors, read by the dashboard."""

    def __init__(self, redis: Redis, keys: TrackingKeys) -> None:
        self._redis = redis
        self._keys = keys
        self._project = redis.register_script(script_text("project.lua"))

    async def apply(self, events: Sequence[TrackingEvent]) -> list[str | None]:
        """Take the events over; of each None, or why it could not be."""
        if not events:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        with redis_errors():
            for event in events:
                await self._project(keys=self._keys_of(event), args=self._arguments(event), client=pipeline)
            answers = await pipeline.execute(raise_on_error=False)
            problems = [str(answer)[:200] if isinstance(answer, RedisError) else None for answer in answers]
        return problems

    async def read(self, execution_ids: Sequence[str]) -> list[dict[str, str]]:
        """The hashes of these executions, {} where there is none.

        A key that somebody made something else of is none: it must not hide all the others.
        """
        if not execution_ids:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for execution_id in execution_ids:
            pipeline.hgetall(self._keys.execution(execution_id))
        with redis_errors():
            found = await pipeline.execute(raise_on_error=False)
            for answer in found:
                if isinstance(answer, RedisError) and "WRONGTYPE" not in str(answer):
                    raise answer
        found = [{} if isinstance(answer, RedisError) else answer for answer in found]
        return [{text(name): text(value) for name, value in item.items()} for item in found]

    async def newest(self, *, project: str | None, before: Place | None, limit: int) -> list[Place]:
        """Executions from the newest to older ones, of one project or of all; within a millisecond by id."""
        key = self._keys.executions if project is None else self._keys.project(project)
        places = list[Place]()
        highest: Any = "+inf" if before is None else before.occurred_ms
        start = 0
        with redis_errors():
            while len(places) < limit:
                found: Any = await self._redis.zrevrangebyscore(
                    key, highest, "-inf", start=start, num=limit, withscores=True
                )
                found = [Place(int(score), text(member)) for member, score in found]
                start += len(found)
                places += [place for place in found if before is None or _follows(place, before)]
                if len(found) < limit:
                    break
        return places[:limit]

    async def remove(self, execution_id: str) -> None:
        """Forget an execution's latest state."""
        with redis_errors():
            project = await self._redis.hget(self._keys.execution(execution_id), "project")
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.delete(self._keys.execution(execution_id))
            pipeline.zrem(self._keys.executions, execution_id)
            if project is not None:
                pipeline.zrem(self._keys.project(text(project)), execution_id)
            await pipeline.execute()

    def _keys_of(self, event: TrackingEvent) -> list[str]:
        return [self._keys.execution(event.execution_id), self._keys.executions]

    def _arguments(self, event: TrackingEvent) -> list[Any]:
        occurred_ms, sequence, event_id = event.order
        flat = [part for pair in event.fields.items() for part in pair]
        project = event.project or ""
        return [self._keys.project_root, event.execution_id, event_id, occurred_ms, sequence, project, *flat]


def _follows(place: Place, before: Place) -> bool:
    return (place.occurred_ms, place.execution_id.encode()) < (before.occurred_ms, before.execution_id.encode())
