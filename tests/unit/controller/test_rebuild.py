"""The rebuild of a Redis that lost its data, and who is served meanwhile: on a Redis in memory and a fake cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from controller.epoch import EpochGuard, Trust, config_map_name
from controller.rebuild import Rebuild
from executions.adapters.epoch_config_map import EpochConfigMap
from executions.adapters.redis_epoch import read_epoch
from executions.adapters.redis_store import ANY_EPOCH, RedisStore
from executions.answer import Answer, Reply
from executions.errors import StoreUnavailable
from executions.record import Execution, Status
from executions.resource import manifest_from_execution, status_from_execution
from tests.support.builders import NOW_MS, POLICY, running
from tests.support.fake_kube import FakeCluster
from tests.support.waiting import until
from tests.unit.domain.states import failed, succeeded
from tests.unit.test_fake_redis_store import a_fake_redis

ANSWER = Answer(Reply.ACCEPTED, "task-1")
PREFIX = "fake"


class World:
    """One installation: a store, a cluster, and the guard between them."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.cluster = FakeCluster()
        self.known: set[str] = set()
        self.answers: list[bool] = []

    def guard(self) -> EpochGuard:
        """As in a process that starts now."""
        self.store.epoch = "unknown"
        return EpochGuard(self.store, EpochConfigMap(self.cluster), on_answer=self.answers.append)

    def rebuild(self, guard: EpochGuard) -> Rebuild:
        return Rebuild(guard, self.store.fenced(1), self.cluster, POLICY, "local", lambda: self.known)

    async def begun(self) -> EpochGuard:
        guard = self.guard()
        guard.trust = await guard.compare()
        assert guard.trust is Trust.KNOWN
        return guard

    async def show(self, execution: Execution) -> None:
        """Put the execution into Redis and its resource into the cluster."""
        snapshot = await self.store.read(execution.task_id)
        following = (await self.store.commit(snapshot, execution, ANSWER)).following
        assert following is not None
        assert following.execution is not None
        await self.mirror(following.execution)

    async def mirror(self, execution: Execution) -> None:
        manifest = manifest_from_execution(execution, "default")
        await self.cluster.create(manifest)
        status = status_from_execution(execution, POLICY, observed_generation=1, unknown_ms=NOW_MS)
        await self.cluster.patch_status(manifest["metadata"]["name"], status)

    async def lose(self) -> None:
        await self.store.redis.flushall()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    store = RedisStore(await a_fake_redis(), PREFIX)
    yield World(store)
    await store.close()


async def execution(store: RedisStore, task_id: str) -> Execution:
    found = (await store.read(task_id)).execution
    assert found is not None
    return found


async def test_a_first_start_writes_the_epoch_to_both(world: World) -> None:
    await world.begun()
    assert await read_epoch(world.store.redis, PREFIX) == world.store.epoch
    assert world.cluster.config_maps == {config_map_name(PREFIX): {"epoch": world.store.epoch}}


async def test_an_epoch_that_only_redis_has_is_copied(world: World) -> None:
    await world.begun()
    before = world.store.epoch
    world.cluster.config_maps.clear()
    await world.begun()
    assert world.cluster.config_maps == {config_map_name(PREFIX): {"epoch": before}}


class Away:
    """A Redis that nobody reaches."""

    async def get(self, _: str) -> bytes:
        raise ConnectionError("refused (test)")


async def test_a_redis_that_does_not_answer_is_not_served_until_it_does(world: World) -> None:
    guard = await world.begun()
    there, world.store.redis = world.store.redis, Away()  # type: ignore[assignment]
    with capture_logs() as logs:
        running_guard = asyncio.create_task(guard.run(0.005))
        await until(lambda: len(world.answers) >= 3)
        assert set(world.answers) == {False}
        world.store.redis = there
        await until(lambda: world.answers[-1])
    running_guard.cancel()
    await asyncio.gather(running_guard, return_exceptions=True)
    assert [line["event"] for line in logs] == ["Redis could not be asked for its epoch", "Redis answers again"]


@pytest.mark.parametrize("other", [None, "another"])
async def test_a_redis_that_lost_its_data_is_not_served_until_it_is_rebuilt(world: World, other: str | None) -> None:
    guard = await world.begun()
    api = RedisStore(world.store.redis, PREFIX, epoch=ANY_EPOCH)
    await world.show(succeeded())
    await world.show(running("task-2"))
    before = {task_id: await execution(world.store, task_id) for task_id in ("task-1", "task-2")}
    await world.lose()
    if other:
        await world.store.redis.set(world.store.keys.epoch, other)
    with pytest.raises(StoreUnavailable):
        await world.store.read("task-1")
    guard.trust = await guard.compare()
    assert guard.trust is Trust.LOST

    with capture_logs() as logs:
        report = await world.rebuild(guard).once()
    assert report.counts == {"succeeded": 1, "running": 1}
    assert guard.trust is Trust.KNOWN
    assert world.answers[-1] is True
    for task_id, expected in before.items():
        for store in (world.store, api):
            found = await execution(store, task_id)
            assert (found.latest.status, found.latest.worker_id) == (expected.latest.status, expected.latest.worker_id)
            assert found.state.incarnation == expected.state.incarnation
            assert found.state.sequence > expected.state.sequence
    assert world.store.epoch not in (None, other)
    assert [line["event"] for line in logs] == [
        "Redis has lost its data: it is rebuilt from the custom resources",
        "Redis is the one we know",
        "Redis is rebuilt and served again",
    ]


async def test_nobody_else_reads_or_writes_while_it_is_rebuilt(world: World) -> None:
    guard = await world.begun()
    await world.show(succeeded())
    snapshot = await world.store.read("task-1")
    api = RedisStore(world.store.redis, PREFIX, epoch=ANY_EPOCH)
    await world.lose()
    guard.trust = await guard.compare()
    list_all = world.cluster.list

    async def watched() -> AsyncIterator[object]:
        async for body in list_all():
            for store in (world.store, api):
                with pytest.raises(StoreUnavailable):
                    await store.read("task-1")
                with pytest.raises(StoreUnavailable):
                    await store.commit(snapshot, snapshot.execution, ANSWER)
            yield body

    world.cluster.list = watched  # type: ignore[method-assign, assignment]
    assert (await world.rebuild(guard).once()).counts == {"succeeded": 1}


async def test_a_rebuild_that_was_broken_off_is_begun_again_and_keeps_what_is_there(world: World) -> None:
    guard = await world.begun()
    await world.show(succeeded())
    await world.show(running("task-2"))
    await world.lose()
    guard.trust = await guard.compare()
    names = list(world.cluster.objects)
    second = world.cluster.objects.pop(names[1])
    update = world.cluster.update_config_map

    async def crash(name: str, data: object) -> None:
        raise StoreUnavailable("the process ended (test)")

    world.cluster.update_config_map = crash  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreUnavailable):
        await world.rebuild(guard).once()
    world.cluster.update_config_map = update  # type: ignore[method-assign]
    world.cluster.objects[names[1]] = second
    again = world.guard()
    again.trust = await again.compare()
    assert again.trust is Trust.LOST
    assert (await world.rebuild(again).once()).counts == {"kept": 1, "running": 1}
    assert (await execution(world.store, "task-1")).latest.status is Status.SUCCEEDED


async def test_a_record_that_is_behind_its_resource_is_brought_up_to_it(world: World) -> None:
    guard = await world.begun()
    await world.show(succeeded().with_state(sequence=7))
    await world.lose()
    guard.trust = await guard.compare()
    blank = world.store.with_epoch("")
    await blank.commit(await blank.read("task-1"), running(), ANSWER)
    assert (await world.rebuild(guard).once()).counts == {"succeeded": 1}
    assert (await execution(world.store, "task-1")).latest.status is Status.SUCCEEDED


async def test_what_is_lost_without_a_trace_and_what_cannot_be_read_is_named(world: World) -> None:
    guard = await world.begun()
    await world.show(failed())
    world.cluster.objects["task-1"]["status"]["attempts"] = [{"phase": "Dancing"}]
    world.cluster.apply("by-hand", {"taskType": "digest"})
    world.known = {"task-1", "task-9"}
    await world.lose()
    guard.trust = await guard.compare()
    with capture_logs() as logs:
        report = await world.rebuild(guard).once()
    assert report.counts == {"unreadable": 1, "unsubmitted": 1, "lost": 2}
    named = {line["task_id"]: line["event"] for line in logs if "task_id" in line and "lost:" in line["event"]}
    assert set(named) == {"task-1", "task-9"}


async def test_a_leader_of_before_cannot_rebuild(world: World) -> None:
    guard = await world.begun()
    await world.show(running())
    await world.lose()
    guard.trust = await guard.compare()
    await world.store.redis.set(world.store.keys.fence, 2)
    with pytest.raises(StoreUnavailable, match="later leader"):
        await world.rebuild(guard).once()
    assert guard.trust is Trust.LOST


async def test_while_the_api_server_is_away_an_unknown_redis_waits(world: World) -> None:
    guard = await world.begun()
    await world.lose()
    world.cluster.is_away = True
    assert await guard.compare() is Trust.UNDECIDED
    await world.store.redis.set(world.store.keys.epoch, "another")
    assert await guard.compare() is Trust.UNDECIDED
    await world.store.redis.set(world.store.keys.epoch, guard.copied or "")
    assert await guard.compare() is Trust.UNCONFIRMED
