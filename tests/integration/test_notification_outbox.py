"""The outbox on a real Redis: in order per task, each event once, nothing lost by a crash between any two steps."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cli.notifications import dead_of
from controller.loops.announcer import Announcer
from executions.adapters.notification_outbox import DEAD_KEPT, NotificationOutbox, Taken
from executions.adapters.redis_feed import FeedCursor, RedisFeed
from executions.adapters.redis_store import RedisStore
from executions.answer import Answer, Reply
from executions.notification import Notification, notification_from_text
from executions.policy import Policy
from executions.ports import Channel
from executions.record import Execution
from tests.support.builders import NOW_MS, pending, running
from tests.unit.domain.states import at_work, claimed_again, reported

LEASE_MS = 60_000
POLICY = Policy(max_retries=99)


def notification(task_id: str, number: int) -> Notification:
    return Notification(f"{task_id}.{number}", (NOW_MS, number), task_id, {"executionId": task_id}, {})


@pytest.fixture
def outbox(redis_store: RedisStore, prefix: str) -> NotificationOutbox:
    return NotificationOutbox(redis_store.redis, prefix)


async def take(outbox: NotificationOutbox, channel: str = "a", *, lease_ms: int = LEASE_MS) -> list[Taken]:
    return (await outbox.take(channel, limit=100, lease_ms=lease_ms))[0]


async def ids(outbox: NotificationOutbox, channel: str = "a") -> list[str]:
    return [item.event_id for item in await take(outbox, channel)]


async def test_a_task_is_told_in_order_and_others_beside_it(outbox: NotificationOutbox) -> None:
    for number in range(3):
        for task_id in ("one", "two"):
            assert await outbox.put(notification(task_id, number), ["a"])
    told: list[str] = []
    for _ in range(3):
        taken = await take(outbox)
        assert {item.task_id for item in taken} == {"one", "two"}
        assert await take(outbox) == [], "what is under way is nobody else's"
        for item in taken:
            told.append(item.event_id)
            await outbox.told(item)
    assert [item for item in told if item.startswith("one")] == ["one.0", "one.1", "one.2"]
    assert await outbox.take("a", limit=9, lease_ms=1) == ([], None)


async def test_an_event_is_put_once_for_all_its_channels(outbox: NotificationOutbox) -> None:
    assert await outbox.put(notification("one", 1), ["a", "b"])
    assert not await outbox.put(notification("one", 1), ["a", "b"])
    assert await outbox.channels() == ["a", "b"]
    for channel in ("a", "b"):
        (taken,) = await take(outbox, channel)
        assert notification_from_text(taken.text) == notification("one", 1)
        await outbox.told(taken)
    assert not await outbox.put(notification("one", 1), ["a", "b"]), "also when it was told"
    assert await ids(outbox) == []


async def test_what_concerns_nobody_is_put_nowhere(outbox: NotificationOutbox) -> None:
    assert not await outbox.put(notification("one", 1), [])
    assert await outbox.channels() == []


async def test_a_lease_that_ends_hands_it_on(outbox: NotificationOutbox) -> None:
    await outbox.put(notification("one", 1), ["a"])
    (crashed,) = await take(outbox, lease_ms=1)
    await asyncio.sleep(0.01)
    (second,) = await take(outbox)
    assert second.event_id == crashed.event_id
    await outbox.told(second)
    await outbox.put(notification("one", 2), ["a"])
    await outbox.told(crashed)
    await outbox.give_up(crashed, "late")
    await outbox.try_again(crashed, wait_ms=1, is_refusal=False)
    assert await ids(outbox) == ["one.2"], "one whose lease ended has no say any more"
    assert await outbox.dead("a") == []


async def test_a_failure_is_due_after_its_wait_and_counted(outbox: NotificationOutbox) -> None:
    await outbox.put(notification("one", 1), ["a"])
    await outbox.put(notification("one", 2), ["a"])
    (first,) = await take(outbox)
    assert (first.tries.failed, first.tries.refused) == (0, 0)
    await outbox.try_again(first, wait_ms=LEASE_MS, is_refusal=False)
    taken, next_ms = await outbox.take("a", limit=9, lease_ms=1)
    assert taken == []
    assert next_ms is not None
    assert LEASE_MS - 5_000 < next_ms <= LEASE_MS
    await outbox.try_again(first, wait_ms=0, is_refusal=True)
    (again,) = await take(outbox)
    assert (again.event_id, again.tries.failed, again.tries.refused) == ("one.1", 2, 1)
    await outbox.told(again)
    (second,) = await take(outbox)
    assert (second.event_id, second.tries.failed, second.tries.refused) == ("one.2", 0, 0)


async def test_one_that_is_given_up_is_kept_with_its_reason_and_the_next_goes_on(outbox: NotificationOutbox) -> None:
    for number in (1, 2):
        await outbox.put(notification("one", number), ["a"])
    (first,) = await take(outbox)
    await outbox.give_up(first, "it answered 404")
    (second,) = await take(outbox)
    assert second.event_id == "one.2"
    assert second.tries.age_ms < 5_000, "its own time begins when it is the head"
    (dead,) = await outbox.dead("a")
    assert (dead.task_id, dead.event_id, dead.reason, dead.tries) == ("one", "one.1", "it answered 404", 1)
    standing = await outbox.standing("a")
    assert (standing.tasks, standing.dead) == (1, 1)
    assert await outbox.redrive(dead)
    assert not await outbox.redrive(dead), "once"
    await outbox.told(second)
    (back,) = await take(outbox)
    assert notification_from_text(back.text) == notification("one", 1)
    await outbox.told(back)
    standing = await outbox.standing("a")
    assert (standing.tasks, standing.oldest_ms, standing.dead) == (0, None, 0)


async def test_the_dead_of_one_kind_of_channel_are_found(outbox: NotificationOutbox) -> None:
    for channel in ("webhook", "callback:a.example:443", "callback:b.example:443"):
        await outbox.put(notification(channel.replace(":", "."), 1), [channel])
        (taken,) = await take(outbox, channel)
        await outbox.give_up(taken, "x")
    assert len(await dead_of(outbox, None)) == 3
    assert len(await dead_of(outbox, "callback")) == 2
    assert len(await dead_of(outbox, "callback:a.example:443")) == 1


async def test_the_list_of_the_dead_has_an_end(
    outbox: NotificationOutbox, monkeypatch: pytest.MonkeyPatch, redis_store: RedisStore, prefix: str
) -> None:
    assert DEAD_KEPT == 10_000
    monkeypatch.setattr("executions.adapters.notification_outbox.DEAD_KEPT", 3)
    for number in range(5):
        await outbox.put(notification(f"task-{number}", 1), ["a"])
    for item in await take(outbox):
        await outbox.give_up(item, "x")
    assert len(await outbox.dead("a")) == 3


async def test_those_that_wait_longest_are_taken_first(outbox: NotificationOutbox) -> None:
    for number in range(20):
        await outbox.put(notification(f"task-{number:02}", 1), ["a"])
        await asyncio.sleep(0.002)
    taken, _ = await outbox.take("a", limit=5, lease_ms=LEASE_MS)
    assert [item.task_id for item in taken] == [f"task-{number:02}" for number in range(5)]
    assert (await outbox.standing("a")).tasks == 20


async def test_a_line_that_a_hand_removed_holds_nothing_up(
    outbox: NotificationOutbox, redis_store: RedisStore, prefix: str
) -> None:
    await outbox.put(notification("one", 1), ["a"])
    await redis_store.redis.delete(f"{prefix}/notifications/line/a/one")
    assert await outbox.take("a", limit=9, lease_ms=1) == ([], None)


# From the feed


class Everything:
    """A channel that everything concerns."""

    name = "a"

    def concerns(self, _: Notification) -> bool:
        return True

    async def deliver(self, notification: Notification, *, now_ms: int) -> None:
        raise NotImplementedError

    async def close(self) -> None: ...


CHANNEL: Channel = Everything()


async def commit(store: RedisStore, execution: Execution) -> Execution:
    seen = await store.read(execution.task_id)
    done = await store.commit(seen, execution, Answer(Reply.ACCEPTED, execution.task_id))
    assert done.following is not None
    assert done.following.execution is not None
    return done.following.execution


async def finished(store: RedisStore, task_id: str, *, attempts: int = 1) -> None:
    """So many attempts, all but the last failed."""
    execution = await commit(store, pending(task_id))
    for number in range(1, attempts + 1):
        execution = await commit(store, at_work(execution))
        execution = await commit(store, reported(execution, succeeded=number == attempts))
        if number < attempts:
            execution = await commit(store, claimed_again(execution))


def announcer(store: RedisStore, *, cursor: type[FeedCursor] = FeedCursor) -> Announcer:
    feed = cursor(store, group="notifications", look_back_ms=60_000)
    return Announcer(feed, NotificationOutbox(store.redis, store.keys.prefix), [CHANNEL], POLICY)


async def test_every_outcome_is_put_in_its_order(
    outbox: NotificationOutbox, redis_store: RedisStore, prefix: str
) -> None:
    await finished(redis_store, "one", attempts=3)
    await announcer(redis_store).turn()
    told = []
    while taken := await take(outbox):
        told += [notification_from_text(item.text).document for item in taken]
        for item in taken:
            await outbox.told(item)
    assert [(item["attempt"], item["status"]) for item in told] == [(1, "failed"), (2, "failed"), (3, "succeeded")]


@pytest.mark.parametrize("moment", ["before the put", "between two puts", "before the place", "after the place"])
async def test_a_crash_between_feed_and_outbox_loses_and_repeats_nothing(
    outbox: NotificationOutbox, redis_store: RedisStore, prefix: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    puts = 0
    put, advance = NotificationOutbox.put, FeedCursor.advance

    async def dying_put(self: NotificationOutbox, what: Notification, channels: list[str]) -> bool:
        nonlocal puts
        puts += 1
        if moment == "before the put" or (moment == "between two puts" and puts == 2):
            raise Crash
        return await put(self, what, channels)

    async def dying_advance(self: FeedCursor) -> None:
        if moment == "after the place":
            await advance(self)
        raise Crash

    await finished(redis_store, "one", attempts=2)
    await finished(redis_store, "two")
    with monkeypatch.context() as patched:
        patched.setattr(NotificationOutbox, "put", dying_put)
        patched.setattr(FeedCursor, "advance", dying_advance)
        with pytest.raises(Crash):
            await announcer(redis_store).turn()
    await finished(redis_store, "three")
    after = announcer(redis_store)
    await after.turn()
    told = []
    while taken := await take(outbox):
        for item in taken:
            told.append((item.task_id, notification_from_text(item.text).document["attempt"]))
            await outbox.told(item)
    assert sorted(told) == [("one", 1), ("one", 2), ("three", 1), ("two", 1)]


async def test_what_happened_long_before_it_was_switched_on_is_not_told(
    outbox: NotificationOutbox, redis_store: RedisStore, prefix: str
) -> None:
    await finished(redis_store, "yesterday")
    late = Announcer(FeedCursor(redis_store, group="notifications", look_back_ms=-1), outbox, [CHANNEL], POLICY)
    await late.turn(block_ms=1)
    await asyncio.sleep(0.005)
    await finished(redis_store, "today")
    await late.turn()
    assert [item.task_id for item in await take(outbox)] == ["today"]


async def test_the_feed_keeps_nothing_for_it_once_it_is_switched_off(redis_store: RedisStore, prefix: str) -> None:
    await announcer(redis_store).turn(block_ms=1)
    mirror = RedisFeed(redis_store.redis, prefix, group="mirror", consumer="test")
    for number in range(150):
        await commit(redis_store, running(f"task-{number}"))
    await mirror.read()
    await mirror.trim()
    assert await redis_store.redis.xlen(f"{prefix}/feed") == 150
    cursor = FeedCursor(redis_store, group="notifications")
    await cursor.drop()
    await cursor.drop()
    await mirror.trim()
    assert await redis_store.redis.xlen(f"{prefix}/feed") < 150


async def test_an_outcome_that_nothing_can_be_made_of_holds_nobody_up(
    outbox: NotificationOutbox, redis_store: RedisStore, prefix: str
) -> None:
    change = (
        b'{"task_id":"one","incarnation":"i","sequence":1,"attempt":1,"transition":"failed","occurred_ms":1,'
        b'"event":{},"outcome":{}}'
    )
    await redis_store.redis.xadd(f"{prefix}/feed", {"change": change})
    await finished(redis_store, "two")
    await announcer(redis_store).turn()
    assert [item.task_id for item in await take(outbox)] == ["two"]


async def test_an_entry_of_a_newer_version_is_read(
    outbox: NotificationOutbox, redis_store: RedisStore, prefix: str
) -> None:
    change = (
        b'{"task_id":"one","incarnation":"i","sequence":1,"attempt":1,"transition":"failed","occurred_ms":1,'
        b'"event":null,"outcome":null,"of_tomorrow":5}'
    )
    await redis_store.redis.xadd(f"{prefix}/feed", {"change": change})
    await announcer(redis_store).turn()
    assert await take(outbox) == []


def test_the_order_of_a_notification_is_that_of_its_record() -> None:
    assert notification("one", 10).order > notification("one", 9).order
    assert replace(notification("one", 1), order=(NOW_MS + 1, 0)).order > notification("one", 9).order
