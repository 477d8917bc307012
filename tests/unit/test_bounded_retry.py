"""The scenarios of bounded retry, through the same doors as in production: queue, callback, controls, reconciler.

Named after the behaviour that the users of the earlier system rely on. The tables behind them are in
``domain/test_automatic_retry.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from controller.loops.sweep import Sweep
from controller.reconciler import Reconciler
from executions.answer import Answer, Reply
from executions.automatic_retry import CODEX_FALLBACK_MODES, retry_hints, retry_scheduling
from executions.conditions import Phase, phase
from executions.index import Index
from executions.moment import iso_from_ms
from executions.notices import notices_from
from executions.operations.commands import Commands
from executions.outcome import outcome_from_document
from executions.policy import Policy
from executions.record import Execution, Schedule, Status
from executions.resource import status_from_execution
from executions.task import task_from_document
from tests.support.builders import task_document
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore

MINUTE_MS = 60_000
TASK_ID = "task-1"
OVERLOADED = {"error": {"message": "upstream overload", "code": "adapter_failed"}, "errorFamily": "transient_upstream"}


@dataclass
class World:
    """The doors and the leader's work, on a store whose clock the test sets. Each ``reconcile`` is a new process."""

    policy: Policy = field(default_factory=lambda: Policy(max_retries=4))
    launcher: FakeLauncher = field(default_factory=FakeLauncher)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    events: list[dict[str, Any]] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    numbers: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        self.store = MemoryStore(follow_up=retry_scheduling(self.policy, lambda: 0.5))
        self.commands = Commands(self.store, self.queue, self.policy, "local")

    def reconciler(self) -> Reconciler:
        return Reconciler(
            store=self.store,
            commands=self.commands,
            launchers={"local": self.launcher},
            policy=self.policy,
            token_prefix="prefix",
            wake_after=lambda _, seconds: self.wakes.append(seconds),
            emit=self.events.append,
        )

    async def reconcile(self) -> Execution:
        await self.reconciler().reconcile(TASK_ID)
        return await self.found()

    async def woken_by_the_sweep(self) -> list[str]:
        """The tasks that a sweep finds to be due, whatever this process has forgotten."""
        woken = list[str]()
        sweep = Sweep(self.store, {"local": self.launcher}, self.policy, woken.append, lambda _: True)
        await sweep.wake_waiting()
        return woken

    async def found(self) -> Execution:
        execution = (await self.store.read(TASK_ID)).execution
        assert execution is not None
        return execution

    async def submit(self, **fields: Any) -> Answer:
        task = task_from_document(task_document(**fields))
        return await self.commands.dispatch(task, message_id=f"message-{next(self.numbers)}")

    async def runs(self, **fields: Any) -> Execution:
        assert (await self.submit(**fields)).reply is Reply.CLAIMED
        return await self.reconcile()

    async def fails(self, **fields: Any) -> Execution:
        """The live attempt's worker reports a failure."""
        number = (await self.found()).latest.number
        body = {"taskId": TASK_ID, "status": "failure", "attempt": number, **OVERLOADED, **fields}
        answer = await self.commands.complete(outcome_from_document(body))
        assert answer.reply is Reply.RECORDED
        return await self.found()

    async def schedule(self) -> Schedule:
        schedule = (await self.found()).state.schedule
        assert schedule is not None
        return schedule

    async def at_due_time(self) -> Execution:
        schedule = await self.schedule()
        assert schedule.due_at is not None
        self.store.now = schedule.due_at
        return await self.reconcile()

    def launches(self) -> list[int]:
        return [intent.order.attempt for intent in self.launcher.intents]


@pytest.fixture
def world() -> World:
    return World()


async def test_schedules_a_retry_with_durable_metadata_and_only_promotes_it_when_due(world: World) -> None:
    await world.runs()
    failed_at_ms = world.store.now = world.store.now + 7_000
    execution = await world.fails()
    due_ms = failed_at_ms + 2 * MINUTE_MS
    schedule = await world.schedule()
    assert (schedule.attempt, schedule.due_at, schedule.outcome) == (2, due_ms, None)
    assert (schedule.reason, schedule.automatic_retry, schedule.limit) == ("transient_failure", 1, 4)
    assert phase(execution) is Phase.RETRY_SCHEDULED
    shown = status_from_execution(execution, world.policy, observed_generation=1, unknown_ms=0)
    assert shown["nextRetryTime"] == shown["schedule"]["dueAt"] == iso_from_ms(due_ms)
    # The reconciler has itself woken in time, and another process would find it among what is due.
    await world.reconcile()
    assert world.wakes == [120.0]
    assert world.store.indexes[Index.DUE] == {TASK_ID: due_ms}
    for now_ms in (due_ms - 1000, due_ms - 1):
        world.store.now = now_ms
        assert await world.woken_by_the_sweep() == []
        assert (await world.reconcile()).latest.number == 1
    world.store.now = due_ms
    assert await world.woken_by_the_sweep() == [TASK_ID]
    promoted = await world.reconcile()
    assert (promoted.latest.number, promoted.latest.status, promoted.latest.run) == (2, Status.RUNNING, 2)
    assert (await world.schedule()).outcome == "promoted"
    assert [event["final_status"] for event in world.events] == ["launched", "retry_promoted", "launched"]
    assert await world.woken_by_the_sweep() == []
    assert (await world.reconcile()) == promoted
    assert world.launches() == [1, 2]


async def test_two_controllers_promote_a_due_retry_once(world: World) -> None:
    await world.runs()
    await world.fails()
    schedule = await world.schedule()
    assert schedule.due_at is not None
    world.store.now = schedule.due_at
    for reconciler in [world.reconciler() for _ in range(5)]:
        await reconciler.reconcile(TASK_ID)
    assert (await world.found()).latest.number == 2
    assert len({intent.order.token for intent in world.launcher.intents}) == 2


async def test_does_not_defer_a_new_assignee_behind_the_previous_assignees_scheduled_retry(world: World) -> None:
    await world.runs(metadata={"assignee": "claude-coder"})
    await world.fails()
    answer = await world.submit(metadata={"assignee": "codex-coder"})
    assert (answer.reply, answer.attempt) == (Reply.CLAIMED, 2)
    schedule = await world.schedule()
    assert (schedule.outcome, schedule.reason) == ("dropped", "issue_reassigned")
    execution = await world.reconcile()
    assert (execution.latest.status, execution.state.assignee) == (Status.RUNNING, "codex-coder")
    assert execution.latest.automatic_retry is None
    # The old schedule's time passes: nothing comes of it.
    assert schedule.due_at is not None
    world.store.now = schedule.due_at
    assert await world.reconcile() == execution
    assert world.launches() == [1, 2]


async def test_the_same_assignee_waits_for_the_scheduled_retry(world: World) -> None:
    await world.runs(metadata={"assignee": "claude-coder"})
    await world.fails()
    for metadata in ({"assignee": "claude-coder"}, {}):
        answer = await world.submit(metadata=metadata)
        assert (answer.reply, answer.attempt) == (Reply.NOTHING_TO_DO, 1)
    assert (await world.schedule()).outcome is None


async def test_does_not_promote_a_scheduled_retry_after_issue_ownership_changes() -> None:
    # The budget allows the one retry that is scheduled; it begins at once, for the new assignee.
    world = World(policy=Policy(max_retries=1))
    await world.runs(metadata={"assignee": "claude-coder"})
    await world.fails()
    old_due_ms = (await world.schedule()).due_at
    answer = await world.commands.assign(TASK_ID, assignee="codex-coder")
    assert (answer.reply, answer.attempt) == (Reply.ACCEPTED, 2)
    schedule = await world.schedule()
    assert (schedule.outcome, schedule.reason) == ("dropped", "issue_reassigned")
    execution = await world.reconcile()
    assert execution.latest.task_snapshot is not None
    assert execution.latest.task_snapshot["metadata"]["assignee"] == "codex-coder"
    await world.fails(errorFamily=None, error={"message": "no", "code": "E1"})
    assert old_due_ms is not None
    world.store.now = old_due_ms
    assert (await world.reconcile()).latest.number == 2
    assert world.launches() == [1, 2]


async def test_does_not_promote_a_scheduled_retry_after_the_issue_is_cancelled(world: World) -> None:
    await world.runs()
    await world.fails()
    due_ms = (await world.schedule()).due_at
    answer = await world.commands.cancel(TASK_ID, reason="not needed", requested_by="jane")
    assert answer.reply is Reply.ACCEPTED
    schedule = await world.schedule()
    assert (schedule.outcome, schedule.reason) == ("dropped", "issue_cancelled")
    # It holds nothing: no list has it, and whoever submits it anew does not wait.
    assert world.store.indexes[Index.DUE] == world.store.indexes[Index.LIVE] == world.store.indexes[Index.WAITING] == {}
    assert due_ms is not None
    world.store.now = due_ms
    assert (await world.reconcile()).latest.number == 1
    assert world.launches() == [1]
    assert (await world.submit()).reply is Reply.CLAIMED


async def test_cancelling_stops_the_live_worker_and_marking_done_does_not(world: World) -> None:
    execution = await world.runs()
    assert (await world.commands.mark_done(TASK_ID)).reply is Reply.NOTHING_TO_DO
    assert (await world.reconcile()) == execution
    await world.commands.cancel(TASK_ID, reason="not needed", requested_by="jane")
    for _ in range(3):
        await world.reconcile()
    assert (await world.found()).latest.status is Status.CANCELLED
    stopped = [intent.order.token for intent in world.launcher.intents]
    assert not (await world.launcher.observe([FakeLauncher.worker_of(stopped[0])]))[0].state.is_present


async def test_marking_done_drops_a_scheduled_retry(world: World) -> None:
    await world.runs()
    await world.fails()
    assert (await world.commands.mark_done(TASK_ID)).reply is Reply.ACCEPTED
    schedule = await world.schedule()
    assert (schedule.outcome, schedule.reason) == ("dropped", "issue_done")


async def test_exhausts_bounded_retries_after_the_hard_cap() -> None:
    world = World(policy=Policy(max_retries=9))
    await world.runs()
    for _ in range(4):
        await world.fails()
        await world.at_due_time()
    execution = await world.fails(error={"message": "still transient", "code": "adapter_failed"})
    schedule = await world.schedule()
    assert (schedule.outcome, schedule.attempt, schedule.limit) == ("exhausted", 6, 4)
    assert phase(execution) is Phase.FAILED
    assert world.launches() == [1, 2, 3, 4, 5]
    (notice,) = notices_from(execution, world.policy, since_attempt=6)
    assert notice.why.reason == "BoundedRetryExhausted"
    assert "Bounded retry exhausted: transient_failure at attempt 5" in notice.why.message
    assert "4 of at most 4" in notice.why.message
    # A person may still retry it: the budget is larger than what goes by itself.
    assert (await world.commands.retry(TASK_ID, requested_by="jane")).reply is Reply.QUEUED


async def test_advances_codex_transient_fallback_stages_across_bounded_retry_attempts(world: World) -> None:
    payload = {"prompt": "add retries", "agent": {"provider": "codex"}}
    await world.runs(payload=payload)
    for number, mode in enumerate(CODEX_FALLBACK_MODES, start=2):
        await world.fails()
        assert (await world.schedule()).fallback_mode == mode
        latest = (await world.at_due_time()).latest
        assert (latest.number, retry_hints(latest)) == (number, {"codexTransientFallbackMode": mode})
        assert world.launcher.intents[-1].order.task["payload"] == {**payload, "codexTransientFallbackMode": mode}
        assert latest.task_snapshot is not None
        assert latest.task_snapshot["payload"] == payload


async def test_honors_codex_retry_not_before_timestamps_when_they_exceed_the_default_bounded_backoff(
    world: World,
) -> None:
    await world.runs(payload={"agent": {"provider": "codex"}})
    not_before = iso_from_ms(world.store.now + 62 * MINUTE_MS)
    await world.fails(retryNotBefore=not_before)
    schedule = await world.schedule()
    assert schedule.due_at == world.store.now + 62 * MINUTE_MS
    world.store.now = schedule.due_at - 1
    assert (await world.reconcile()).latest.number == 1
    latest = (await world.at_due_time()).latest
    assert retry_hints(latest) == {
        "codexTransientFallbackMode": "same_session",
        "transientRetryNotBefore": not_before,
    }


async def test_schedules_bounded_retries_for_claude_transient_upstream_and_honors_its_retry_not_before_hint(
    world: World,
) -> None:
    await world.runs()
    not_before = iso_from_ms(world.store.now + 360 * MINUTE_MS)
    error = {"message": "overloaded", "code": "claude_transient_upstream"}
    await world.fails(error=error, errorFamily=None, retryNotBefore=not_before)
    schedule = await world.schedule()
    assert (schedule.due_at, schedule.fallback_mode) == (world.store.now + 360 * MINUTE_MS, None)
    latest = (await world.at_due_time()).latest
    assert retry_hints(latest) == {"transientRetryNotBefore": not_before}


async def test_a_manual_retry_supersedes_a_scheduled_one(world: World) -> None:
    await world.runs()
    await world.fails()
    due_ms = (await world.schedule()).due_at
    assert (await world.commands.retry(TASK_ID, requested_by="jane")).reply is Reply.QUEUED
    (message,) = await world.queue.receive()
    await world.commands.dispatch(task_from_document(json.loads(message.body)), message_id="the-retry")
    assert (await world.schedule()).outcome == "superseded"
    latest = (await world.reconcile()).latest
    assert (latest.number, latest.automatic_retry, retry_hints(latest)) == (2, None, {})
    assert due_ms is not None
    world.store.now = due_ms
    assert (await world.reconcile()).latest.number == 2


async def test_a_late_success_drops_the_schedule() -> None:
    world = World(policy=Policy(max_retries=4, auto_retry_codes=frozenset({"E1"})))
    await world.runs()
    await world.fails(errorFamily=None, error={"message": "no", "code": "E1"})
    body = {"taskId": TASK_ID, "status": "success", "attempt": 1}
    answer = await world.commands.complete(outcome_from_document(body))
    assert answer.reply is Reply.ALREADY_FINISHED
    schedule = await world.schedule()
    assert (schedule.outcome, schedule.reason) == ("dropped", "late_success")
    assert (await world.found()).latest.status is Status.FAILED
