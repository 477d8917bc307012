"""The store on a real Redis: its contract, its trust in the epoch, and what lies beside the record."""

from __future__ import annotations

import asyncio

import pytest

from devstack.redis import RedisServer
from executions.adapters.redis_connection import connect
from executions.adapters.redis_epoch import create_epoch, create_epoch_if_untouched
from executions.adapters.redis_feed import RedisFeed
from executions.adapters.redis_lease import RedisLease
from executions.adapters.redis_store import RedisStore
from executions.errors import StoreUnavailable
from executions.feed import FeedEntry
from executions.ports import Committed
from executions.record import RecordUnreadable
from tests.support.builders import pending, running
from tests.support.store_contract import ANSWER, StoreContract


class RedisWorld:
    def __init__(self, store: RedisStore) -> None:
        self._redis = store.redis
        self._keys = store.keys
        self._reader = RedisFeed(store.redis, store.keys.prefix, group="test", consumer="test")

    async def write_by_hand(self, task_id: str, number: str, value: bytes) -> None:
        await self._redis.hset(self._keys.record(task_id), number, value)

    async def remove_by_hand(self, task_id: str) -> None:
        await self._redis.delete(self._keys.record(task_id))

    async def record(self, task_id: str) -> dict[str, bytes]:
        found = await self._redis.hgetall(self._keys.record(task_id))
        return {name.decode(): value for name, value in found.items()}

    async def feed(self) -> list[FeedEntry]:
        return await self._reader.read(block_ms=1)


class TestRedisStore(StoreContract):
    @pytest.fixture
    def store(self, redis_store: RedisStore) -> RedisStore:
        return redis_store

    @pytest.fixture
    def world(self, redis_store: RedisStore) -> RedisWorld:
        return RedisWorld(redis_store)

    async def test_records_have_no_time_to_live(self, store: RedisStore) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER)
        assert await store.redis.ttl(store.keys.record("task-1")) == -1
        assert await store.redis.ttl(store.keys.state("task-1")) == -1

    async def test_a_key_of_another_type_is_reported_and_left(self, store: RedisStore) -> None:
        await store.redis.set(store.keys.record("text"), "hello")
        with pytest.raises(RecordUnreadable, match="not a hash"):
            await store.read("text")
        assert [task_id async for task_id in store.foreign_changes()] == []
        assert await store.redis.get(store.keys.record("text")) == b"hello"

    async def test_a_redis_without_its_epoch_is_not_served(self, store: RedisStore) -> None:
        snapshot = await store.read("task-1")
        await store.redis.delete(store.keys.epoch)
        with pytest.raises(StoreUnavailable, match="epoch"):
            await store.commit(snapshot, pending(), ANSWER)
        with pytest.raises(StoreUnavailable, match="epoch"):
            await store.read("task-1")
        with pytest.raises(StoreUnavailable, match="epoch"):
            await store.ping()

    async def test_another_epoch_than_the_known_one_is_not_served(self, store: RedisStore) -> None:
        store.epoch = "the-old-one"
        with pytest.raises(StoreUnavailable, match="epoch"):
            await store.ping()

    async def test_an_epoch_is_made_only_where_nothing_lies(self, store: RedisStore) -> None:
        await store.redis.delete(store.keys.epoch)
        await store.redis.hset(store.keys.record("old"), "1", b'{"status":"failed"}')
        assert await create_epoch_if_untouched(store.redis, store.keys.prefix) is None
        await store.redis.delete(store.keys.record("old"))
        made = await create_epoch_if_untouched(store.redis, store.keys.prefix)
        assert made
        assert await create_epoch(store.redis, store.keys.prefix, "other") == made

    async def test_a_redis_that_is_gone_is_unavailable_and_its_url_stays_out_of_the_text(self) -> None:
        store = RedisStore(connect("redis://:hush@127.0.0.1:1/0"), "gone")
        with pytest.raises(StoreUnavailable) as caught:
            await store.read("task-1")
        assert "hush" not in str(caught.value)
        await store.close()


async def test_a_burst_of_reads_waits_for_connections_instead_of_failing(redis_store: RedisStore) -> None:
    await redis_store.commit(await redis_store.read("task-1"), pending(), ANSWER)
    found = await asyncio.gather(*(redis_store.read("task-1") for _ in range(500)))
    assert all(item.version == 1 for item in found)


async def test_the_lease_has_one_holder_and_its_number_rises_with_each_change(redis_store: RedisStore) -> None:
    one, two = (RedisLease(redis_store.redis, redis_store.keys.prefix, holder=name, ttl_ms=60_000) for name in "ab")
    first = await one.hold()
    assert first is not None
    assert await two.hold() is None
    assert await one.hold() == first
    await two.release()
    assert await one.hold() == first
    await one.release()
    second = await two.hold()
    assert second is not None
    assert second > first


async def test_the_leases_number_does_not_fall_when_redis_has_lost_it(redis_store: RedisStore) -> None:
    keys = redis_store.keys
    one, two = (RedisLease(redis_store.redis, keys.prefix, holder=name, ttl_ms=60_000) for name in "ab")
    before = await one.hold()
    await redis_store.redis.delete(keys.leader, keys.fence)
    await asyncio.sleep(0.002)
    after = await two.hold()
    assert before is not None
    assert after is not None
    assert after > before


async def test_a_leader_of_before_commits_nothing_any_more(redis_store: RedisStore) -> None:
    lease = RedisLease(redis_store.redis, redis_store.keys.prefix, holder="a", ttl_ms=60_000)
    first = await lease.hold()
    assert first is not None
    old, new = redis_store.fenced(first), redis_store.fenced(first + 1)
    assert (await old.commit(await old.read("task-1"), pending(), ANSWER)).committed is Committed.WRITTEN
    await redis_store.redis.set(redis_store.keys.fence, first + 1)
    with pytest.raises(StoreUnavailable, match="later leader"):
        await old.commit(await old.read("task-1"), running(), ANSWER)
    assert (await new.commit(await new.read("task-1"), running(), ANSWER)).committed is Committed.WRITTEN
    # Whoever does not lead commits as ever.
    other = redis_store.commit(await redis_store.read("task-2"), pending("task-2"), ANSWER)
    assert (await other).committed is Committed.WRITTEN


async def test_the_feed_is_trimmed_behind_the_slowest_group(redis_store: RedisStore, redis_server: RedisServer) -> None:
    prefix = redis_store.keys.prefix
    fast, slow = (RedisFeed(redis_store.redis, prefix, group=name, consumer="c") for name in ("fast", "slow"))
    assert await slow.read(block_ms=1) == []
    for number in range(300):
        await redis_store.commit(await redis_store.read(f"t{number}"), pending(f"t{number}"), ANSWER)
    assert len(await fast.read(count=1000)) == 300
    assert await fast.trim() == 0
    assert len(await slow.read(count=1000)) == 300
    assert await fast.trim() >= 100


async def test_a_cancellation_at_any_moment_ends_what_talks_to_redis(redis_store: RedisStore) -> None:
    async def ping_for_ever() -> None:
        while True:
            await redis_store.ping()

    for turns in range(60):
        task = asyncio.create_task(ping_for_ever())
        for _ in range(100 + turns):  # warm by then, and in each of the moments that a ping consists of
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert done, f"it runs on after a cancellation in turn {turns}"
