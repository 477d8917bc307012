"""The resync: both ways, starting no work, reading bodies only for what changed."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from controller.loops.resync import Found
from executions.index import Index
from executions.policy import Policy
from executions.record import Status, encoded
from executions.resource import manifest_from_execution
from tests.support.builders import NOW_MS, pending, running
from tests.support.resource_side import ResourceSide
from tests.support.waiting import until
from tests.unit.domain.states import reported, succeeded

pytestmark = pytest.mark.looptime
"""The loop's time passes as soon as nobody has anything to do, so that waits cost none."""


@pytest.fixture
async def side() -> ResourceSide:
    return ResourceSide()


async def compared(side: ResourceSide) -> Found:
    found = await side.resync.once()
    await side.settle()
    return found


def write_by_hand(
    side: ResourceSide, task_id: str, value: bytes = b'{"status":"failed","finishedAt":"2023-11-14T22:13:20Z"}'
) -> None:
    side.store.records[task_id] = {"1": value}


async def test_a_record_written_by_hand_is_shown_and_launches_nothing(side: ResourceSide) -> None:
    write_by_hand(side, "by-hand")
    found = await compared(side)
    assert found.foreign == 1
    status = side.cluster.objects["by-hand"]["status"]
    assert (status["phase"], status["attempt"]) == ("Failed", 1)
    assert (await side.execution("by-hand")).latest.number == 1
    assert side.queue.sent == []
    assert await side.store.members(Index.FINISHED) == ["by-hand"]
    assert await compared(side) == Found()


async def test_a_record_written_by_hand_long_after_its_work_was_done_is_shown_for_its_time() -> None:
    side = ResourceSide(policy=Policy(finished_ttl_ms=1000))
    write_by_hand(side, "by-hand", b'{"status":"failed","finishedAt":"2020-01-01T00:00:00Z"}')
    await compared(side)
    assert "by-hand" in side.cluster.objects
    side.store.now += 1000
    await compared(side)
    assert side.cluster.objects == {}


async def test_a_record_edited_by_hand_is_shown_as_it_is_now(side: ResourceSide) -> None:
    await side.put(running())
    await compared(side)
    edited = running().with_latest(status=Status.FAILED, error_message="by hand", finished_at=NOW_MS).latest
    side.store.records["task-1"] = {"1": encoded(edited)}
    await compared(side)
    assert side.cluster.objects["task-1"]["status"]["message"] == "by hand"


async def test_a_record_removed_by_hand_takes_everything_with_it(side: ResourceSide) -> None:
    await side.put(running())
    await compared(side)
    side.store.records.clear()
    await compared(side)
    assert side.cluster.objects == {}
    assert await side.store.count(Index.LIVE) == 0
    assert [state for _, state, _ in side.store.states.values()] == [b""]
    assert await compared(side) == Found()


async def test_a_record_that_cannot_be_read_is_named_and_left_alone(side: ResourceSide) -> None:
    write_by_hand(side, "broken", b"{")
    write_by_hand(side, "fine")
    with capture_logs() as logs:
        await compared(side)
    assert [entry["task_id"] for entry in logs if entry["log_level"] == "warning"] == ["broken"]
    assert side.store.records["broken"] == {"1": b"{"}
    assert "fine" in side.cluster.objects


async def test_an_object_that_went_unnoticed_is_made_again(side: ResourceSide) -> None:
    await side.put(running())
    await compared(side)
    side.cluster.lose("task-1")
    assert (await compared(side)).lost == 1
    assert side.cluster.objects["task-1"]["status"]["phase"] == "Running"
    assert (await side.execution()).state.cancellation is None


async def test_an_object_made_while_nobody_watched_is_acted_on(side: ResourceSide) -> None:
    side.cluster.watcher = None
    side.cluster.apply("by-hand", {"taskType": "digest"})
    await compared(side)
    assert (await side.execution("by-hand")).latest.status is Status.PENDING


async def test_an_object_deleted_while_nobody_watched_is_cancelled(side: ResourceSide) -> None:
    await side.put(running())
    await compared(side)
    side.cluster.watcher = None
    side.cluster.remove("task-1")
    side.restart(relist=False)
    await compared(side)
    assert (await side.execution()).state.cancellation is not None


async def test_an_object_without_a_record_is_removed(side: ResourceSide) -> None:
    await side.cluster.create(manifest_from_execution(running("orphan"), "default"))
    side.restart(relist=False)
    await compared(side)
    assert side.cluster.objects == {}


async def test_after_a_time_without_a_leader_everything_is_compared(side: ResourceSide) -> None:
    """No old work is launched, nothing comes back, and what is shown is what there is."""
    for number in range(20):
        await side.put(running(f"deleted-record-{number}"))
        await side.put(running(f"deleted-object-{number}"))
        await side.put(reported(running(f"kept-{number}")))
    await compared(side)
    side.cluster.watcher = None
    for number in range(20):
        del side.store.records[f"deleted-record-{number}"]
        write_by_hand(side, f"by-hand-{number}")
        side.cluster.remove(f"deleted-object-{number}")
    side.woken.clear()
    side.queue.sent.clear()
    side.restart()
    await compared(side)
    assert {name.rsplit("-", 1)[0] for name in side.cluster.objects} == {"by-hand", "deleted-object", "kept"}
    for number in range(20):
        assert side.cluster.objects[f"by-hand-{number}"]["status"]["phase"] == "Failed"
        assert side.cluster.objects[f"deleted-object-{number}"]["status"]["reason"] == "Cancelling"
        assert (await side.execution(f"kept-{number}")).latest.number == 1
    assert side.queue.sent == []


async def test_bodies_are_read_only_for_what_changed(side: ResourceSide) -> None:
    for number in range(10):
        await side.put(running(f"task-{number}"))
    await compared(side)
    read: list[str] = []
    original = side.store.read

    async def counted(task_id: str) -> object:
        read.append(task_id)
        return await original(task_id)

    await side.change("task-3", lambda found: found.with_state(assignee="jane"))
    side.store.feed.clear()
    side._fed = 0
    positions = [item async for item in side.resync._positions.current(finished_from_ms=0)]

    class Fixed:
        async def current(self, *, finished_from_ms: int):  # type: ignore[no-untyped-def]
            for item in positions:
                yield item

    side.resync._positions = Fixed()
    side.store.read = counted  # type: ignore[method-assign,assignment]
    found = await compared(side)
    assert found == Found(differing=1)
    assert read == ["task-3"]


async def test_what_is_finished_for_long_enough_is_removed() -> None:
    side = ResourceSide(policy=Policy(finished_ttl_ms=1000))
    await side.put(succeeded())
    await compared(side)
    assert await compared(side) == Found()
    side.store.now += 1001
    assert (await compared(side)).differing == 1
    assert side.cluster.objects == {}
    assert await compared(side) == Found()
    assert side.mirror.compared == {}


async def test_while_the_api_server_is_away_records_are_taken_over_all_the_same(side: ResourceSide) -> None:
    side.cluster.is_away = True
    async with side.running():
        await side.put(running())
        await until(lambda: side.mirror.api_is_away)
        write_by_hand(side, "by-hand")
        assert await side.resync.once() == Found(foreign=1)
        assert await side.store.members(Index.FINISHED) == ["by-hand"]
        side.cluster.is_away = False
        await until(lambda: {"task-1", "by-hand"} <= side.cluster.objects.keys())


async def test_it_goes_on_after_an_outage_of_the_store(side: ResourceSide) -> None:
    await side.put(pending())
    side.store.unavailable = True
    task = asyncio.create_task(side.resync.run(0.01))
    with capture_logs() as logs:
        await until(lambda: any("tried again" in entry["event"] for entry in logs))
    side.store.unavailable = False
    async with side.running():
        await until(lambda: "task-1" in side.cluster.objects)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
