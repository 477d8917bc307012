"""The Redis store and its scripts on a Redis in memory: the store's contract without a server and without a socket."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from executions.adapters.redis_epoch import create_epoch, read_epoch
from executions.adapters.redis_store import RedisStore
from executions.errors import StoreUnavailable
from executions.ports import Operation
from tests.integration.test_redis_store import RedisWorld
from tests.support.builders import pending, running
from tests.support.store_contract import ANSWER, StoreContract


async def a_fake_redis() -> FakeAsyncRedis:
    """With ``redis.sha1hex``, which Redis' Lua has and the fake's has not."""
    server = FakeServer()
    redis = FakeAsyncRedis(server=server)
    await redis.eval("return 1", 0)
    lua = server._lua_runtime  # type: ignore[attr-defined]
    lua.globals()[b"redis"][b"sha1hex"] = lambda text: hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
    return redis


class TestFakeRedisStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[RedisStore]:
        store = RedisStore(await a_fake_redis(), "fake")
        await create_epoch(store.redis, "fake")
        yield store
        await store.close()

    @pytest.fixture
    def world(self, store: RedisStore) -> RedisWorld:
        return RedisWorld(store)

    async def test_an_operation_is_forgotten_after_its_time(self, store: RedisStore) -> None:
        for seconds, remaining in ((60, 60), (None, -1)):
            operation = Operation(f"message:{seconds}", seconds)
            await store.commit(await store.read("task-1"), None, ANSWER, operation=operation)
            assert await store.redis.ttl(store.keys.operation(operation.key)) == remaining

    @pytest.mark.parametrize("epoch", [pytest.param(None, id="without epoch"), pytest.param("other", id="another one")])
    async def test_a_redis_that_is_not_ours_is_neither_read_nor_written(
        self, store: RedisStore, epoch: str | None
    ) -> None:
        snapshot = await store.read("task-1")
        store.epoch = await read_epoch(store.redis, "fake") or ""
        await (store.redis.set(store.keys.epoch, epoch) if epoch else store.redis.delete(store.keys.epoch))
        for call in (store.read("task-1"), store.read_many(["task-1"]), store.commit(snapshot, pending(), ANSWER)):
            with pytest.raises(StoreUnavailable):
                await call
        assert await store.redis.exists(store.keys.record("task-1")) == 0

    async def test_a_write_touches_no_key_but_its_own(self, store: RedisStore) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER, operation=Operation("message:m"))
        keys = {key.decode() if isinstance(key, bytes) else key for key in await store.redis.keys("*")}
        assert {key for key in keys if key.startswith("fake:")} == {"fake:task-1"}
        assert {key for key in keys if not key.startswith("fake:")} == {
            "fake/epoch",
            "fake/feed",
            "fake/index:live",
            "fake/operation:message:m",
            "fake/slots:implementation",
            "fake/state:task-1",
            "fake/types",
        }
