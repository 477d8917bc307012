"""What every store does, in memory or on a real Redis. Subclasses provide the fixture ``store`` and ``world``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Protocol

from executions.admission import Admission, BreakerRule, Hindrance, Hold, Slots, Standing
from executions.answer import Answer, Decision, Reply
from executions.feed import FeedEntry, Transition
from executions.index import Index
from executions.lifecycle import ended, intend_launch
from executions.operations.transact import transact
from executions.policy import Policy
from executions.ports import CommitResult, Committed, Operation, Snapshot, Store
from executions.record import Execution, Status
from tests.support.builders import NOW_MS, intended, pending, running

BREAKER = BreakerRule(failures=3, window_ms=60_000, pause_ms=200)
ANSWER = Answer(Reply.CLAIMED, "task-1", 1, "pending")


class World(Protocol):
    """What a person or another service does behind the store's back, and what lies in it."""

    async def write_by_hand(self, task_id: str, number: str, value: bytes) -> None: ...

    async def remove_by_hand(self, task_id: str) -> None: ...

    async def record(self, task_id: str) -> dict[str, bytes]: ...

    async def feed(self) -> list[FeedEntry]: ...


async def foreign(store: Store) -> set[str]:
    return {task_id async for task_id in store.foreign_changes()}


class StoreContract:
    """One test per promise of ``ports.Store``."""

    async def test_what_is_committed_is_read_back(self, store: Store) -> None:
        snapshot = await store.read("task-1")
        assert (snapshot.execution, snapshot.version, snapshot.digest) == (None, 0, "")
        assert (await store.commit(snapshot, pending(), ANSWER)).committed is Committed.WRITTEN
        found = (await store.read("task-1")).execution
        assert found is not None
        assert found.attempts == pending().attempts
        assert found.state.sequence == 1

    async def test_what_a_commit_says_is_there_is_what_a_read_finds(self, store: Store, world: World) -> None:
        await world.write_by_hand("task-1", "1", b'{"status":"pending","startedAt":1700000000,"mine":[1]}')
        found = await store.read("task-1")
        for _ in range(2):
            assert found.execution is not None
            following = found.execution.with_latest(error_message="not yet").with_state(assignee="jane")
            result = await store.commit(found, following, ANSWER)
            assert result.following is not None
            found = await store.read("task-1")
            assert result.following == replace(found, now_ms=result.following.now_ms)
            assert result.following.now_ms <= found.now_ms
        result = await store.commit(found, None, ANSWER, operation=Operation("message:m-3"))
        assert (result.committed, result.following) == (Committed.WRITTEN, None)

    async def test_the_record_holds_attempts_and_nothing_else(self, store: Store, world: World) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER)
        record = await world.record("task-1")
        assert set(record) == {"1"}
        assert b'"status":"running"' in record["1"]
        assert b'"taskArn":"worker-of-task-1"' in record["1"]

    async def test_of_two_commits_on_one_read_the_second_conflicts(self, store: Store) -> None:
        snapshot = await store.read("task-1")
        await store.commit(snapshot, pending(), ANSWER)
        assert (await store.commit(snapshot, running(), ANSWER)).committed is Committed.CONFLICT
        found = (await store.read("task-1")).execution
        assert found is not None
        assert found.latest.status is Status.PENDING

    async def test_a_change_made_by_hand_conflicts_too(self, store: Store, world: World) -> None:
        await store.commit(await store.read("task-1"), pending(), ANSWER)
        snapshot = await store.read("task-1")
        await world.write_by_hand("task-1", "1", b'{"status":"failed"}')
        assert (await store.commit(snapshot, running(), ANSWER)).committed is Committed.CONFLICT

    async def test_a_repeated_operation_writes_nothing_and_gets_the_first_answer(self, store: Store) -> None:
        operation = Operation("message:m-1")
        await store.commit(await store.read("task-1"), pending(), ANSWER, operation=operation)
        other = Answer(Reply.NOTHING_TO_DO, "task-1", 9, "failed", "x")
        result = await store.commit(await store.read("task-1"), running(), other, operation=operation)
        assert (result.committed, result.answer) == (Committed.REPEATED, ANSWER)
        assert await store.remembered(operation) == ANSWER
        await store.forget_operation(operation.key)
        assert await store.remembered(operation) is None

    async def test_an_operation_without_a_change_is_remembered(self, store: Store, world: World) -> None:
        operation = Operation("message:m-2", None)
        await store.commit(await store.read("task-1"), None, ANSWER, operation=operation)
        assert await store.remembered(operation) == ANSWER
        assert await world.record("task-1") == {}
        assert await world.feed() == []

    async def test_index_entries_follow_the_execution(self, store: Store) -> None:
        for execution, where in ((pending(), Index.WAITING), (intended(), Index.LIVE), (running(), Index.LIVE)):
            await store.commit(await store.read("task-1"), execution, ANSWER)
            assert [index for index in Index if await store.members(index) == ["task-1"]] == [where]
            assert await store.count(where) == 1

    async def test_members_come_oldest_first_and_not_past_a_time(self, store: Store) -> None:
        for number, task_id in enumerate(("c", "a", "b")):
            await store.commit(await store.read(task_id), pending(task_id, now_ms=1000 + number), ANSWER)
        assert await store.members(Index.WAITING) == ["c", "a", "b"]
        assert await store.members(Index.WAITING, up_to_ms=1001) == ["c", "a"]
        assert await store.members(Index.WAITING, limit=1) == ["c"]

    async def test_each_visible_change_enters_the_feed_once(self, store: Store, world: World) -> None:
        for execution in (pending(), intended(), running()):
            await store.commit(await store.read("task-1"), execution, ANSWER)
        entries = await world.feed()
        assert [entry.transition for entry in entries] == [Transition.CLAIMED, Transition.RUNNING]
        assert [entry.task_id for entry in entries] == ["task-1", "task-1"]

    async def test_a_record_written_by_hand_is_foreign_until_it_is_adopted(self, store: Store, world: World) -> None:
        await world.write_by_hand("by-hand", "2", b'{"status":"failed","startedAt":1700000000,"mine":[1]}')
        assert await foreign(store) == {"by-hand"}
        snapshot = await store.read("by-hand")
        assert snapshot.execution is not None
        assert snapshot.execution.latest.number == 2
        assert snapshot.execution.latest.started_at == 1_700_000_000_000
        await store.commit(snapshot, snapshot.execution, ANSWER)
        assert await foreign(store) == set()
        assert b'"mine":[1]' in (await world.record("by-hand"))["2"]
        again = (await store.read("by-hand")).execution
        assert again is not None
        assert again.state.incarnation == snapshot.execution.state.incarnation

    async def test_a_record_removed_by_hand_is_foreign_until_it_is_forgotten(self, store: Store, world: World) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER)
        await world.remove_by_hand("task-1")
        assert await foreign(store) == {"task-1"}
        snapshot = await store.read("task-1")
        assert (snapshot.execution, snapshot.version) == (None, 1)
        await store.commit(snapshot, None, ANSWER)
        assert await foreign(store) == set()
        assert await store.count(Index.LIVE) == 0
        assert (await world.feed())[-1].transition is Transition.FORGOTTEN

    async def test_a_record_made_anew_under_an_old_id_is_a_new_incarnation(self, store: Store, world: World) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER)
        await world.remove_by_hand("task-1")
        await world.write_by_hand("task-1", "1", b'{"status":"running"}')
        found = (await store.read("task-1")).execution
        assert found is not None
        assert found.state.incarnation != "incarnation-1"
        assert found.state.sequence == 0

    async def test_an_edited_record_goes_on_as_a_new_incarnation(self, store: Store, world: World) -> None:
        await store.commit(await store.read("task-1"), running().with_state(assignee="jane"), ANSWER)
        edited = (await world.record("task-1"))["1"].replace(b'"running"', b'"failed"')
        await world.write_by_hand("task-1", "1", edited)
        found, again = (await store.read("task-1")).execution, (await store.read("task-1")).execution
        assert found is not None
        assert found == again
        assert found.latest.status is Status.FAILED
        assert (found.state.assignee, found.state.sequence) == ("jane", 0)
        assert found.state.incarnation != "incarnation-1"
        await store.commit(await store.read("task-1"), found, ANSWER)
        adopted = (await store.read("task-1")).execution
        assert adopted is not None
        assert adopted.state.incarnation == found.state.incarnation == adopted.latest.incarnation

    async def test_unreadable_records_are_left_out_of_many(self, store: Store, world: World) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER)
        for task_id, value in (("broken", b"{"), ("number", b"3"), ("status", b'{"status":"dancing"}')):
            await world.write_by_hand(task_id, "1", value)
        found = await store.read_many(["broken", "task-1", "number", "status", "none"])
        assert [item.task_id for item in found] == ["task-1", "none"]
        assert (await world.record("broken"))["1"] == b"{"

    async def test_every_task_with_a_record_is_named(self, store: Store, world: World) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER)
        await world.write_by_hand("a:b.c_d-E", "1", b'{"status":"failed"}')
        assert {task_id async for task_id in store.task_ids()} == {"task-1", "a:b.c_d-E"}

    async def test_of_many_transactions_at_once_none_is_lost(self, store: Store) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER)

        def decide(number: int) -> Any:
            def add(seen: Snapshot) -> Decision:
                execution = seen.execution
                assert execution is not None
                marks = execution.latest.model_extra or {}
                return Decision(execution.with_latest(**{**marks, f"mark{number}": number}), ANSWER)

            return add

        await asyncio.gather(*(transact(store, "task-1", decide(number)) for number in range(20)))
        found: Execution | None = (await store.read("task-1")).execution
        assert found is not None
        assert found.latest.model_extra == {f"mark{number}": number for number in range(20)}
        assert found.state.sequence == 21

    # Slots, the line, the hold

    async def test_a_launch_begins_only_while_there_is_a_slot(self, store: Store) -> None:
        slots = Slots(total=2)
        for age, name in enumerate(("one", "two", "three")):
            await store.commit(await store.read(name), pending(name, now_ms=NOW_MS - 9 + age), ANSWER)
        results = [await launch(store, name, slots) for name in ("one", "two", "three")]
        assert [result.hindrance for result in results] == [None, None, Hindrance.NO_SLOT]
        assert results[2].committed is Committed.HINDERED
        assert (await store.standing(heads=5)) == Standing(
            {"implementation": 2}, {"implementation": 1}, {"implementation": [(NOW_MS - 7, "three")]}
        )
        await end(store, "one")
        assert (await launch(store, "three", slots)).hindrance is None
        for name in ("two", "three"):
            await end(store, name)
        assert await store.standing() == Standing({}, {})

    async def test_the_oldest_comes_first_and_no_type_holds_up_another(self, store: Store) -> None:
        slots = Slots(total=3, per_type={"implementation": 1})
        for age, (name, task_type) in enumerate(
            (("i1", "implementation"), ("i2", "implementation"), ("d1", "digest"), ("d2", "digest"), ("d3", "digest"))
        ):
            execution = pending(name, now_ms=NOW_MS + age).with_latest(task_type=task_type)
            await store.commit(await store.read(name), execution, ANSWER)
        assert (await launch(store, "i2", slots)).hindrance is Hindrance.NOT_ITS_TURN
        assert (await launch(store, "d3", slots)).hindrance is Hindrance.NOT_ITS_TURN
        assert (await launch(store, "i1", slots)).hindrance is None
        assert (await launch(store, "i2", slots)).hindrance is Hindrance.NO_SLOT_OF_TYPE
        assert (await launch(store, "d2", slots)).hindrance is None
        assert (await launch(store, "d3", slots)).hindrance is Hindrance.NOT_ITS_TURN
        assert (await launch(store, "d1", slots)).hindrance is None
        assert (await launch(store, "d3", slots)).hindrance is Hindrance.NO_SLOT

    async def test_an_attempt_of_another_type_leaves_the_slot_of_the_first(self, store: Store) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER)
        found = await store.read("task-1")
        assert found.execution is not None
        await store.commit(found, found.execution.with_latest(task_type="digest"), ANSWER)
        assert (await store.standing()).live == {"digest": 1}

    async def test_a_record_that_was_removed_by_hand_holds_no_slot(self, store: Store, world: World) -> None:
        await store.commit(await store.read("task-1"), running(), ANSWER)
        await world.remove_by_hand("task-1")
        await store.commit(await store.read("task-1"), None, ANSWER)
        assert await store.standing() == Standing({}, {})

    async def test_a_hold_lets_nothing_begin_and_everything_else_go_on(self, store: Store) -> None:
        await store.commit(await store.read("waits"), pending("waits"), ANSWER)
        await store.commit(await store.read("runs"), running("runs"), ANSWER)
        hold = Hold("jane", "the provider is down", NOW_MS)
        await store.hold(hold)
        assert await store.held() == hold
        assert (await launch(store, "waits", Slots())).hindrance is Hindrance.HELD
        await end(store, "runs")
        await store.hold(None)
        assert await store.held() is None
        assert (await launch(store, "waits", Slots())).hindrance is None

    async def test_the_same_launch_failure_again_and_again_opens_the_breaker_of_its_class(self, store: Store) -> None:
        await store.commit(await store.read("waits"), pending("waits"), ANSWER)
        await store.commit(await store.read("next"), pending("next"), ANSWER)
        for key, opens in (("a", False), ("b", False), ("b", False), ("c", True), ("d", False)):
            assert await failed_launch(store, key) is opens
        (breaker,) = await store.breakers()
        assert (breaker.launcher, breaker.task_type, breaker.code) == ("local", "implementation", "LAUNCH_CAPACITY")
        assert (breaker.probe, breaker.probe_at_ms > breaker.opened_ms) == (None, True)
        assert (await launch(store, "waits", Slots())).hindrance is Hindrance.BREAKER_OPEN

    async def test_after_a_pause_one_launch_tries_whether_they_work_again(self, store: Store) -> None:
        for name in ("one", "two"):
            await store.commit(await store.read(name), pending(name), ANSWER)
        for key in ("a", "b", "c"):
            await failed_launch(store, key)
        await self.let_pass(store, 250)
        assert (await launch(store, "one", Slots())).hindrance is None
        (breaker,) = await store.breakers()
        assert breaker.probe == "one"
        assert (await launch(store, "two", Slots())).hindrance is Hindrance.BREAKER_OPEN
        await failed_launch(store, "d")
        (breaker,) = await store.breakers()
        assert breaker.probe is None
        await store.close_breaker("local", "implementation")
        assert await store.breakers() == []
        assert (await launch(store, "two", Slots())).hindrance is None

    async def let_pass(self, store: Store, milliseconds: int) -> None:
        """Until the store's clock has gone on so far."""
        await asyncio.sleep(milliseconds / 1000)


async def failed_launch(store: Store, key: str) -> bool:
    return await store.count_launch_failure("local", "implementation", "LAUNCH_CAPACITY", key=key, rule=BREAKER)


async def launch(store: Store, task_id: str, slots: Slots) -> CommitResult:
    """Write down the launch of the waiting attempt."""
    found = await store.read(task_id)
    assert found.execution is not None
    number = found.execution.latest.number
    execution = intend_launch(found.execution, number, token="t" * 64, request={}, now_ms=NOW_MS, policy=Policy())
    return await store.commit(found, execution, ANSWER, admission=Admission("local", slots, BREAKER))


async def end(store: Store, task_id: str) -> None:
    found = await store.read(task_id)
    assert found.execution is not None
    number = found.execution.latest.number
    await store.commit(found, ended(found.execution, number, Status.FAILED, now_ms=NOW_MS, code="E1"), ANSWER)
