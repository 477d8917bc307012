"""The stream of events on a real Redis, as the dashboard follows it, and how far the projection is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from api.live import Live
from api.task_list import VisibleTasks
from devstack.redis import RedisServer
from executions.adapters.redis_connection import connect
from executions.adapters.settings import Settings
from executions.adapters.task_tracking import open_tracking_log
from executions.adapters.tracking_keys import TrackingKeys
from executions.adapters.tracking_log import TrackingLog
from executions.adapters.tracking_projection import TrackingProjection
from executions.adapters.tracking_stream import TrackingStream
from executions.errors import StoreUnavailable
from executions.event_stream import START
from executions.tracking import event_from_document
from executions.visibility import Visibility
from tests.support.builders import NOW_MS
from tests.support.event_log_contract import KEEP, EventLogContract
from tests.support.memory_tracking import tracked
from tests.support.sse import Parser

PROJECTORS = "projectors"


class RedisWorld:
    def __init__(self, redis: Redis, keys: TrackingKeys) -> None:
        self.redis = redis
        self.keys = keys
        self.stream = TrackingStream(redis, keys)
        self.projection = TrackingProjection(redis, keys)

    async def add(self, document: dict[str, Any]) -> str:
        found: bytes = await self.redis.xadd(self.keys.stream, {"event": json.dumps(document)})
        return found.decode()

    async def trim(self, keep: int) -> None:
        await self.redis.xtrim(self.keys.stream, maxlen=keep, approximate=False)

    async def lose_everything(self) -> None:
        await self.redis.delete(self.keys.stream)


@pytest.fixture
async def world(redis_server: RedisServer, prefix: str) -> AsyncIterator[RedisWorld]:
    redis = connect(redis_server.url)
    yield RedisWorld(redis, TrackingKeys(f"{prefix}:events", prefix))
    await redis.aclose()


@pytest.fixture
async def log(redis_server: RedisServer, world: RedisWorld) -> AsyncIterator[TrackingLog]:
    redis, following = connect(redis_server.url), connect(redis_server.url, connections=2)
    log = TrackingLog(redis, following, world.keys, projector_group=PROJECTORS, keep=KEEP)
    yield log
    await log.close()


class TestTrackingLog(EventLogContract):
    """On a real Redis."""


async def test_how_far_the_projection_is(log: TrackingLog, world: RedisWorld) -> None:
    ids = [await world.add(tracked(f"e{number}")) for number in range(4)]
    assert await log.projected() is None
    group = world.stream.group(PROJECTORS, "one")
    await group.ensure()
    assert await log.projected() == "0-0"
    first, second, third = await group.read(count=3, block_ms=10)
    assert await log.between(await log.projected() or "", ids[-1], count=9) == await log.between(
        START, ids[-1], count=9
    )
    await group.acknowledge([first.entry_id, third.entry_id])
    lagging = await log.between(await log.projected() or "", ids[-1], count=9)
    assert [entry.entry_id for entry in lagging] == ids[1:]
    await group.acknowledge([second.entry_id])
    assert await log.projected() == ids[2]


async def test_a_reader_starts_from_the_projection_and_what_it_does_not_have_yet(
    log: TrackingLog, world: RedisWorld
) -> None:
    group = world.stream.group(PROJECTORS, "one")
    for number, status in enumerate(["in_progress", "success", "error"]):
        await world.add(tracked("a", number, at_ms=NOW_MS + number, status=status))
    (first, *_) = await group.read(count=3, block_ms=10)
    await world.projection.apply([event_from_document(tracked("a", 0))])
    await group.acknowledge([first.entry_id])
    live = Live(log)
    with pytest.raises(StoreUnavailable):
        _ = live.joint
    await live.turn()
    tasks = VisibleTasks(world.projection, Visibility())
    chunk, start = await tasks.snapshot("jane@example.org", log, live.joint.entry_id)
    (event,) = Parser().feed(chunk)
    assert [row["status"] for row in event.data["tasks"]] == ["error"]
    assert event.entry_id == start == await log.newest()


async def test_a_wrong_type_of_key_is_an_outage_and_no_crash(log: TrackingLog, world: RedisWorld) -> None:
    await world.redis.set(world.keys.stream, "somebody's own string")
    for ask in (log.newest(), log.holds("1-0"), log.projected(), log.follow("1-0", count=1, block_ms=10)):
        with pytest.raises(StoreUnavailable):
            await ask


async def test_it_is_wired_from_the_settings(redis_server: RedisServer, world: RedisWorld) -> None:
    settings = Settings(
        redis_url=redis_server.url,
        task_tracking_redis_stream_key=world.keys.stream,
        task_tracking_redis_key_prefix=world.keys.prefix,
    )
    log, projection = open_tracking_log(settings)
    added = await world.add(tracked("a"))
    await world.projection.apply([event_from_document(tracked("a"))])
    assert await log.newest() == added
    assert (await projection.read(["a"]))[0]["executionId"] == "a"
    await log.close()
