"""The log of events on a Redis in memory that counts like Redis 7: what is held is known without the number kept."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeAsyncRedis

from executions.adapters.tracking_keys import TrackingKeys
from executions.adapters.tracking_log import TrackingLog
from tests.integration.test_tracking_log import RedisWorld
from tests.support.event_log_contract import EventLogContract


class TestFakeTrackingLog(EventLogContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[RedisWorld]:
        redis = FakeAsyncRedis()
        yield RedisWorld(redis, TrackingKeys("events", "fake:"))
        await redis.aclose()

    @pytest.fixture
    def log(self, world: RedisWorld) -> TrackingLog:
        return TrackingLog(world.redis, world.redis, world.keys, projector_group="projectors", keep=0)
