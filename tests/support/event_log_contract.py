"""What every log of events does, in memory or in Redis. Subclasses provide the fixtures ``log`` and ``world``."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import pytest

from executions.event_stream import START
from executions.ports import EventLog
from tests.support.memory_tracking import tracked

KEEP = 6
"""Entries that trimming leaves. Before Redis 7 that is how one knows of fewer that they are all there ever were."""


class World(Protocol):
    """What writers and the trimmer do."""

    async def add(self, document: dict[str, Any]) -> str: ...

    async def trim(self, keep: int) -> None: ...

    async def lose_everything(self) -> None: ...


async def filled(world: World, count: int) -> list[str]:
    return [await world.add(tracked(f"e{number}")) for number in range(count)]


class EventLogContract:
    """Run by the fake and by the real one."""

    async def test_a_stream_that_is_not_there_is_an_empty_one(self, log: EventLog) -> None:
        assert await log.newest() == START
        assert await log.holds(START)
        assert not await log.holds("5-0")
        assert await log.between(START, "9999999999999-0", count=10) == []
        assert await log.follow(START, count=10, block_ms=10) == []
        assert await log.projected() is None

    async def test_entries_are_read_in_order_from_any_of_them_on(self, log: EventLog, world: World) -> None:
        ids = await filled(world, 5)
        assert await log.newest() == ids[-1]
        assert [entry.entry_id for entry in await log.between(ids[0], ids[3], count=10)] == ids[1:4]
        assert [entry.entry_id for entry in await log.between(START, ids[3], count=2)] == ids[:2]
        assert await log.between(ids[4], ids[4], count=10) == []
        assert await log.between(ids[4], ids[0], count=10) == []
        assert [entry.entry_id for entry in await log.follow(ids[1], count=2, block_ms=10)] == ids[2:4]

    async def test_who_follows_waits_for_what_comes(self, log: EventLog, world: World) -> None:
        (last,) = await filled(world, 1)
        waiting = asyncio.create_task(log.follow(last, count=10, block_ms=2_000))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        added = await world.add(tracked("next"))
        (entry,) = await waiting
        assert entry.entry_id == added
        assert b'"executionId": "next"' in entry.text

    async def test_what_is_held_is_what_a_reader_may_go_on_from(self, log: EventLog, world: World) -> None:
        ids = await filled(world, KEEP - 1)
        assert [await log.holds(entry_id) for entry_id in (START, *ids)] == [True] * KEEP
        ids += await filled(world, 4)
        await world.trim(KEEP)
        assert [await log.holds(entry_id) for entry_id in (START, *ids)] == [False] * 4 + [True] * KEEP

    async def test_an_id_that_this_stream_never_had_is_not_held(self, log: EventLog, world: World) -> None:
        (last,) = await filled(world, 1)
        assert not await log.holds(f"{last.split('-')[0]}-777777")
        assert not await log.holds("1-0")

    async def test_a_stream_that_trimming_emptied_holds_its_last_place(self, log: EventLog, world: World) -> None:
        ids = await filled(world, 3)
        await world.trim(0)
        assert await log.newest() == ids[-1]
        assert await log.holds(ids[-1])
        assert not await log.holds(ids[0])

    async def test_a_redis_that_lost_everything_knows_none_of_the_old_ids(self, log: EventLog, world: World) -> None:
        ids = await filled(world, 3)
        await world.lose_everything()
        assert await log.newest() == START
        assert [await log.holds(entry_id) for entry_id in ids] == [False] * 3

    @pytest.mark.parametrize("count", [0, 3])
    async def test_a_reader_from_before_the_first_entry_misses_none(
        self, log: EventLog, world: World, count: int
    ) -> None:
        ids = await filled(world, count)
        assert await log.holds(START)
        newest = await log.newest()
        assert [entry.entry_id for entry in await log.between(START, newest, count=10)] == ids
