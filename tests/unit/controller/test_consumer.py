"""The consumer: what each message does, what is told of it, and what is received when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from controller.loops.consumer import Consumer
from executions.answer import Answer, Reply
from executions.errors import StoreUnavailable, TooMuchContention
from executions.index import Index
from executions.lifecycle import ended
from executions.operations.commands import Commands
from executions.policy import Policy
from executions.ports import Message
from executions.record import Status
from tests.support.builders import NOW_MS, pending, running, task_document
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.support.waiting import until

COMMITTED = Answer(Reply.CLAIMED, "task-1", 1, "pending")


@dataclass
class Bench:
    """A consumer with its surroundings, not running yet."""

    queue: MemoryQueue = field(default_factory=MemoryQueue)
    store: MemoryStore = field(default_factory=MemoryStore)
    events: list[dict[str, Any]] = field(default_factory=list)
    beats: int = 0
    pending_max: int = 10_000
    concurrency: int = 2
    drawn: float = 0.0
    """The random number of every back-off; 0 gives the shortest."""

    def __post_init__(self) -> None:
        self.commands = Commands(self.store, self.queue, Policy(max_retries=1), launcher="local")

    def consumer(self, commands: Any = None) -> Consumer:
        return Consumer(
            self.queue,
            self.store,
            commands or self.commands,
            pending_max=self.pending_max,
            concurrency=self.concurrency,
            wait_seconds=0.05,
            emit=self.events.append,
            heartbeat=self._beat,
            clock_ms=lambda: NOW_MS,
            draw=lambda: self.drawn,
        )

    def _beat(self) -> None:
        self.beats += 1

    @asynccontextmanager
    async def running(self, commands: Any = None) -> AsyncIterator[Consumer]:
        consumer = self.consumer(commands)
        task = asyncio.create_task(consumer.run())
        try:
            yield consumer
            assert not task.done(), "the loop ended by itself"
        finally:
            consumer.stop()
            await asyncio.wait_for(task, 5)

    async def put(self, document: object, **kwargs: Any) -> str:
        return await self.queue.put(json.dumps(document), **kwargs)

    async def drained(self) -> None:
        await until(lambda: not self.queue.entries)

    async def seen(self, count: int) -> None:
        await until(lambda: len(self.events) >= count)

    def told(self) -> list[tuple[str, str]]:
        return [(event["outcome"], event["final_status"]) for event in self.events]

    async def failed(self, *, attempts: int = 1) -> None:
        """Task task-1 with that many attempts, the last one failed."""
        execution = ended(running(), 1, Status.FAILED, now_ms=NOW_MS, code="X")
        if attempts == 2:
            second = execution.latest.model_copy(update={"number": 2})
            execution = execution.with_attempt(second)
        await self.store.commit(await self.store.read("task-1"), execution, COMMITTED)

    async def attempts(self, task_id: str = "task-1") -> list[tuple[int, Status]]:
        execution = (await self.store.read(task_id)).execution
        return [(item.number, item.status) for item in execution.attempts] if execution else []


@pytest.fixture(autouse=True)
def quick_back_offs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.loops.polling._BACKOFF_FIRST_SECONDS", 0.02)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def logs() -> Any:
    with capture_logs() as captured:
        yield captured


def lines(logs: list[EventDict], text: str) -> list[EventDict]:
    return [line for line in logs if line["event"] == text]


# What each message does


async def test_a_new_task_is_claimed_and_its_message_deleted(bench: Bench) -> None:
    await bench.put(task_document())
    async with bench.running():
        await bench.drained()
    assert await bench.attempts() == [(1, Status.PENDING)]
    (event,) = bench.events
    assert event["msg"] == "[event] coding.implementation -> success"
    assert event["final_status"] == "claimed"
    assert (event["component"], event["service"]) == ("orchestrator", "alakai-orchestrator")
    assert event["trace_id"] == "trace-task-1"
    assert event["steps"] == {"parse": "ok", "claim": "ok"}
    assert event["error"] is None
    assert event["task"]["task_id"] == "task-1"
    assert event["repo"]["full_name"] == "my-org/my-repo"


async def test_a_task_that_is_under_way_is_left_alone(bench: Bench) -> None:
    await bench.store.commit(await bench.store.read("task-1"), running(), COMMITTED)
    await bench.put(task_document())
    async with bench.running():
        await bench.drained()
    assert await bench.attempts() == [(1, Status.RUNNING)]
    assert bench.told() == [("skipped", "nothing_to_do")]


async def test_the_next_attempt_after_a_failure_is_claimed(bench: Bench) -> None:
    await bench.failed()
    await bench.put(task_document(attempt=2))
    async with bench.running():
        await bench.drained()
    assert await bench.attempts() == [(1, Status.FAILED), (2, Status.PENDING)]
    assert bench.told() == [("success", "claimed")]


async def test_a_submit_without_budget_is_deleted(bench: Bench) -> None:
    await bench.failed(attempts=2)
    await bench.put(task_document())
    async with bench.running():
        await bench.drained()
    assert bench.told() == [("skipped", "budget_exhausted")]


async def test_an_attempt_over_budget_is_dropped_with_the_log_text(bench: Bench, logs: list[EventDict]) -> None:
    await bench.put(task_document(attempt=3))
    async with bench.running():
        await bench.drained()
    assert await bench.attempts() == []
    assert bench.told() == [("skipped", "over_budget")]
    (line,) = lines(logs, "Dropping over-budget dispatch")
    assert (line["task_id"], line["attempt"]) == ("task-1", 3)


async def test_an_attempt_out_of_order_is_left_to_the_dead_letters_and_told_once(
    bench: Bench, logs: list[EventDict]
) -> None:
    bench.queue.visibility_seconds, bench.queue.max_receives = 0.02, 3
    await bench.put(task_document(attempt=2))
    async with bench.running():
        await until(lambda: len(bench.queue.dead) == 1)
    assert bench.told() == [("error", "out_of_order")]
    assert bench.events[0]["event"] == "coding.implementation"
    (line,) = lines(logs, "Message left to the dead-letter policy")
    assert line["reason"] == "attempt 2 of task task-1 cannot follow no record"


POISON = [
    "",
    "not json",
    "[]",
    "null",
    "{}",
    '{"taskId":"../etc","taskType":"implementation"}',
    '{"taskId":"task-1","taskType":7}',
    '{"taskId":"task-1","taskType":"implementation","attempt":"2"}',
    '{"taskId":"task-1","taskType":"implementation","attempt":0}',
    '{"taskId":"task-1","taskType":"implementation","payload":[]}',
    '{"taskId":"task-1","taskType":"implementation","metadata":{"trace_id":{"a":1}}}',
    "[" * 5000,
    '{"taskId":"task-1","taskType":"t","payload":{"x":' + "[" * 300 + "]" * 300 + "}}",
    '{"a":' * 400 + "1" + "}" * 400,
    "\ud800",
    '{"taskId":"' + "x" * 2_000_000 + '"}',
]


async def test_poison_goes_to_the_dead_letters_and_stops_nothing(bench: Bench, logs: list[EventDict]) -> None:
    bench.queue.visibility_seconds, bench.queue.max_receives = 0.02, 2
    for body in POISON:
        await bench.queue.put(body)
    await bench.put(task_document())
    async with bench.running():
        await until(lambda: len(bench.queue.dead) == len(POISON))
        await bench.drained()
    assert await bench.attempts() == [(1, Status.PENDING)]
    assert sorted(bench.told()) == [("error", "invalid_message")] * len(POISON) + [("success", "claimed")]
    reasons = lines(logs, "Message left to the dead-letter policy")
    assert len(reasons) == len(POISON)
    assert "etc" not in str(reasons)


async def test_an_invalid_message_is_told_by_what_can_be_read_of_it(bench: Bench) -> None:
    message_id = await bench.put({"taskId": "task-9", "taskType": 7})
    async with bench.running():
        await bench.seen(1)
    (event,) = bench.events
    assert (event["event"], event["final_status"]) == ("invalid_message", "invalid_message")
    assert event["trace_id"] == message_id
    assert event["task"]["task_id"] == "task-9"
    assert event["steps"] == {"parse": "error"}
    assert event["error"]["type"] == "InvalidTask"
    assert "taskType" in event["error"]["message"]


async def test_an_unreadable_record_leaves_its_message_and_hinders_no_other(bench: Bench) -> None:
    bench.store.records["task-1"] = {"1": b"{"}
    await bench.put(task_document())
    await bench.put(task_document("task-2"))
    async with bench.running():
        await bench.seen(2)
        await until(lambda: len(bench.queue.entries) == 1)
    assert sorted(bench.told()) == [("error", "record_unreadable"), ("success", "claimed")]
    assert bench.store.records["task-1"] == {"1": b"{"}


@dataclass
class Failing:
    """Commands that fail with ``error`` for task-1 as often as ``times`` says, and work otherwise."""

    commands: Commands
    error: Exception
    times: int = 1_000_000

    async def dispatch(self, task: Any, *, message_id: str) -> Answer:
        if task.task_id == "task-1" and self.times:
            self.times -= 1
            raise self.error
        return await self.commands.dispatch(task, message_id=message_id)


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("hush"), "unexpected_error"), (TooMuchContention("changed too often"), "contention")],
)
async def test_an_error_leaves_its_message_for_a_later_delivery(
    bench: Bench, logs: list[EventDict], error: Exception, status: str
) -> None:
    bench.queue.visibility_seconds = 0.05
    await bench.put(task_document())
    await bench.put(task_document("task-2"))
    async with bench.running(Failing(bench.commands, error, times=2)):
        await bench.drained()
    assert sorted(bench.told()) == [("error", status), ("success", "claimed"), ("success", "claimed")]
    assert "hush" not in str(bench.events)
    assert len(lines(logs, "Message left to the dead-letter policy")) == 1


# Duplicates


async def test_the_same_message_fifty_times_and_fifty_equal_messages_are_one_attempt(bench: Bench) -> None:
    other = Bench(queue=bench.queue, store=bench.store)
    for _ in range(50):
        await bench.put(task_document("same"), message_id="m-1")
        await bench.put(task_document("equal"))
    async with bench.running(), other.running():
        await bench.drained()
    assert await bench.attempts("same") == [(1, Status.PENDING)]
    assert await bench.attempts("equal") == [(1, Status.PENDING)]
    told = [*bench.events, *other.events]
    equal = [event["final_status"] for event in told if event["task"]["task_id"] == "equal"]
    assert sorted(equal) == ["claimed", *["nothing_to_do"] * 49]
    # One event for each consumer that saw it, not one for each delivery.
    assert 1 <= len([event for event in told if event["task"]["task_id"] == "same"]) <= 2
    assert len(bench.store.feed) == 2


async def test_a_message_that_was_not_deleted_does_nothing_when_it_comes_again(
    bench: Bench, logs: list[EventDict]
) -> None:
    bench.queue.visibility_seconds = 0.02
    bench.queue.undeletable.add("m-1")
    await bench.put(task_document(), message_id="m-1")
    await bench.put(task_document("task-2"))
    async with bench.running():
        await until(lambda: len(bench.queue.entries) == 1 and bench.queue.entries[0].receive_count >= 3)
        bench.queue.undeletable.clear()
        await bench.drained()
    assert await bench.attempts() == [(1, Status.PENDING)]
    assert bench.told() == [("success", "claimed")] * 2
    kept = lines(logs, "Handled but not deleted; the next delivery does nothing")
    assert kept[0]["message_ids"] == ["m-1"]


# The store away, the queue away, enough to do


async def test_nothing_is_received_while_the_store_is_away(bench: Bench, logs: list[EventDict]) -> None:
    bench.store.unavailable = True
    await bench.put(task_document())
    async with bench.running():
        await until(lambda: bench.beats >= 4)
        assert bench.queue.receives == 0
        bench.store.unavailable = False
        await bench.drained()
    assert len(lines(logs, "Receiving is paused")) == 1
    assert bench.told() == [("success", "claimed")]


async def test_a_store_that_goes_away_with_messages_in_hand_costs_one_receive_at_most(
    bench: Bench, logs: list[EventDict]
) -> None:
    other = Bench(queue=bench.queue, store=bench.store)
    dispatch = bench.commands.dispatch

    class Breaking:
        async def dispatch(self, task: Any, *, message_id: str) -> Answer:
            bench.store.unavailable = True
            return await dispatch(task, message_id=message_id)

    breaking = Breaking()
    async with bench.running(breaking), other.running(breaking):
        await until(lambda: bench.queue.receives >= 4)  # every receiver of both has its long poll open
        for number in range(10):
            await bench.put(task_document(f"task-{number}"))
        # Given back, so that a replica that still reaches the store can take them.
        await until(lambda: all((item.receive_count, item.visible_at) == (1, 0.0) for item in bench.queue.entries))
        receives = bench.queue.receives
        beats = bench.beats
        await until(lambda: bench.beats >= beats + 3)
        assert bench.queue.receives == receives
        assert [item.receive_count for item in bench.queue.entries] == [1] * 10
        assert set(bench.told() + other.told()) == {("error", "store_unavailable")}
        assert len(lines(logs, "Receiving is paused")) == 2
        assert lines(logs, "Receiving again") == []
        breaking.dispatch = dispatch  # type: ignore[method-assign]
        bench.store.unavailable = False
        await bench.drained()
    assert len(bench.store.indexes[Index.WAITING]) == 10


async def test_a_store_that_answers_pings_but_refuses_work_uses_up_no_receives(bench: Bench) -> None:
    """Redis without memory left: each message is given back once, then waits out its visibility."""
    bench.concurrency = 1
    for number in range(10):
        await bench.put(task_document(f"task-{number}"))

    class Refusing:
        async def dispatch(self, task: Any, *, message_id: str) -> Answer:
            raise StoreUnavailable("out of memory")

    async with bench.running(Refusing()):
        await until(lambda: bench.queue.receives >= 4)
    counts = [entry.receive_count for entry in bench.queue.entries]
    assert max(counts) <= 2
    assert sum(counts) == 10 + bench.queue.receives - 1


async def test_enough_waiting_attempts_stop_the_receiving(bench: Bench, logs: list[EventDict]) -> None:
    bench.pending_max = 2
    for task_id in ("a", "b"):
        await bench.store.commit(await bench.store.read(task_id), pending(task_id), COMMITTED)
    await bench.put(task_document())
    async with bench.running():
        await until(lambda: bench.beats >= 4)
        assert bench.queue.receives == 0
        (line,) = lines(logs, "Receiving is paused")
        assert "PENDING_MAX" in line["reason"]
        await bench.store.commit(await bench.store.read("a"), running("a"), COMMITTED)
        await bench.drained()
    assert len(lines(logs, "Receiving again")) == 1


async def test_a_queue_that_is_away_is_asked_again_and_told_once(bench: Bench, logs: list[EventDict]) -> None:
    bench.queue.unavailable = True
    async with bench.running():
        await until(lambda: bench.beats >= 4)
        bench.queue.unavailable = False
        await bench.put(task_document())
        await bench.drained()
    assert [line["reason"] for line in lines(logs, "Receiving is paused")] == ["the queue is away (test)"]
    assert len(lines(logs, "Receiving again")) == 1


async def test_a_queue_that_breaks_in_an_unforeseen_way_ends_nothing(bench: Bench, logs: list[EventDict]) -> None:
    receive = bench.queue.receive

    async def broken(**_: Any) -> list[Message]:
        raise ZeroDivisionError

    bench.queue.receive = broken  # type: ignore[method-assign]
    await bench.put(task_document())
    async with bench.running():
        await until(lambda: bench.beats >= 4)
        bench.queue.receive = receive  # type: ignore[method-assign]
        await bench.drained()
    assert lines(logs, "Receiving failed; it goes on")


async def test_a_queue_that_goes_away_before_the_deletion_costs_a_redelivery_and_no_attempt(bench: Bench) -> None:
    bench.queue.visibility_seconds = 0.05
    dispatch = bench.commands.dispatch
    left = [1]

    class Breaking:
        async def dispatch(self, task: Any, *, message_id: str) -> Answer:
            answer = await dispatch(task, message_id=message_id)
            bench.queue.unavailable = bool(left and left.pop())
            return answer

    await bench.put(task_document())
    async with bench.running(Breaking()):
        await bench.seen(1)
        await until(lambda: bench.beats >= 4)
        bench.queue.unavailable = False
        await bench.drained()
    assert await bench.attempts() == [(1, Status.PENDING)]
    assert bench.told() == [("success", "claimed")]


# Stopping


@dataclass
class Gated:
    """Commands that wait in the middle of a dispatch until they are let go."""

    commands: Commands
    began: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def dispatch(self, task: Any, *, message_id: str) -> Answer:
        self.began.set()
        await self.go_on.wait()
        return await self.commands.dispatch(task, message_id=message_id)


def by_stop(consumer: Consumer, task: asyncio.Task[None]) -> None:
    consumer.stop()


def by_cancel(consumer: Consumer, task: asyncio.Task[None]) -> None:
    task.cancel()


Ending = Callable[[Consumer, asyncio.Task[None]], None]


@pytest.mark.parametrize("end", [by_stop, by_cancel])
async def test_stopping_finishes_what_is_being_handled(bench: Bench, end: Ending) -> None:
    gate = Gated(bench.commands)
    await bench.put(task_document())
    consumer = bench.consumer(gate)
    task = asyncio.create_task(consumer.run())
    await gate.began.wait()
    end(consumer, task)
    await bench.put(task_document("task-2"))
    gate.go_on.set()
    await asyncio.wait([task], timeout=5)
    assert task.done()
    assert task.cancelled() is (end is by_cancel)
    assert await bench.attempts() == [(1, Status.PENDING)]
    assert await bench.attempts("task-2") == []
    # The second one may have come in with the last long poll: then it was given back.
    assert [entry.visible_at for entry in bench.queue.entries] == [0.0]


async def test_what_arrives_while_stopping_is_given_back(bench: Bench) -> None:
    bench.concurrency = 1
    receive = bench.queue.receive
    polling = asyncio.Event()

    async def late(**kwargs: Any) -> list[Message]:
        polling.set()
        return await receive(maximum=10, wait_seconds=5)

    bench.queue.receive = late  # type: ignore[method-assign]
    consumer = bench.consumer()
    task = asyncio.create_task(consumer.run())
    await polling.wait()
    consumer.stop()
    await bench.put(task_document())
    await asyncio.wait_for(task, 5)
    assert [(entry.receive_count, entry.visible_at) for entry in bench.queue.entries] == [(1, 0.0)]
    assert bench.events == []
    assert await bench.attempts() == []


async def test_a_stop_ends_a_back_off_at_once(bench: Bench) -> None:
    bench.drawn = 2000.0  # makes the first back-off 20 s long
    bench.store.unavailable = True
    consumer = bench.consumer()
    task = asyncio.create_task(consumer.run())
    await until(lambda: bench.beats == 2)
    consumer.stop()
    await asyncio.wait_for(task, 5)
