"""Slots on a real Redis: random starts, ends, crashes and cancels, held against a plain model after each step."""

from __future__ import annotations

import os
import random

import pytest

from executions.adapters.redis_store import RedisStore
from executions.admission import Admission, Hindrance, Slots
from executions.answer import Answer, Reply
from executions.control import cancel, suspend
from executions.index import Index
from executions.lifecycle import ended, intend_launch, launch_failed, launched
from executions.policy import Policy
from executions.ports import Committed
from executions.record import Execution, Status
from tests.support.builders import NOW_MS, pending
from tests.support.memory_store import MemoryStore
from tests.unit.domain.states import claimed_again

ANSWER = Answer(Reply.ACCEPTED, "", 1, "")
POLICY = Policy(max_launch_tries=2, launch_backoff_ms=1)
TYPES = ("implementation", "digest", "bug-hunter")
SLOTS = Slots(total=7, per_type={"implementation": 4, "digest": 3})
TASKS = 30
STEPS = 10_000 if os.environ.get("ALAKAI_E2E_SCALE") == "full" else 300


class Both:
    """The real store and the model, changed in the same way."""

    def __init__(self, real: RedisStore) -> None:
        self.real = real
        self.model = MemoryStore()
        self.begun = self.hindered = 0

    async def read(self, task_id: str) -> Execution | None:
        return (await self.real.read(task_id)).execution

    async def put(
        self, task_id: str, execution: Execution | None, admission: Admission | None = None
    ) -> Hindrance | None:
        answers = []
        for store in (self.real, self.model):
            seen = await store.read(task_id)
            answers.append(await store.commit(seen, execution, ANSWER, admission=admission))
        assert answers[0].hindrance is answers[1].hindrance
        assert answers[0].committed in (Committed.WRITTEN, Committed.HINDERED)
        return answers[0].hindrance

    async def remove_by_hand(self, task_id: str) -> None:
        await self.real.redis.delete(self.real.keys.record(task_id))
        self.model.records.pop(task_id, None)
        await self.put(task_id, None)

    async def check(self) -> None:
        """What the lists say is what the records say, and nothing is above its limit."""
        truth = dict.fromkeys(TYPES, 0)
        for number in range(TASKS):
            execution = await self.read(f"t{number}")
            if execution is not None and execution.latest.is_live:
                truth[execution.latest.task_type] += 1
        standing = await self.real.standing()
        assert {name: standing.live.get(name, 0) for name in TYPES} == truth
        assert await self.real.count(Index.LIVE) == sum(truth.values())


@pytest.mark.timeout(600)
async def test_slots_are_never_exceeded_never_leaked_and_given_in_order(redis_store: RedisStore) -> None:
    chance, both = random.Random(7), Both(redis_store)
    for step in range(STEPS):
        task_id = f"t{chance.randrange(TASKS)}"
        await act(chance, both, task_id, now_ms=NOW_MS + step)
        if step % 10 == 0:
            await both.check()
        standing = await redis_store.standing()
        assert sum(standing.live.values()) <= (SLOTS.total or 0)
        assert all(standing.live.get(name, 0) <= limit for name, limit in SLOTS.per_type.items())
    assert both.begun > STEPS / 20
    assert both.hindered > STEPS / 20
    # All that waits starts in the end.
    for number in range(TASKS):
        execution = await both.read(f"t{number}")
        if execution is not None and execution.state.suspended:
            await both.put(f"t{number}", suspend(execution, suspended=False))
    for _ in range(TASKS):
        for number in range(TASKS):
            execution = await both.read(f"t{number}")
            if execution is None or execution.latest.status.is_finished:
                continue
            if execution.latest.is_live:
                await both.put(f"t{number}", finished(execution, NOW_MS + STEPS))
            else:
                await begin(both, f"t{number}", execution, NOW_MS + STEPS)
    standing = await redis_store.standing()
    assert (standing.live, standing.waiting) == ({}, {})


async def act(chance: random.Random, both: Both, task_id: str, *, now_ms: int) -> None:
    execution = await both.read(task_id)
    if execution is None:
        fresh = pending(task_id, now_ms=now_ms).with_latest(task_type=chance.choice(TYPES))
        await both.put(task_id, fresh)
        return
    latest = execution.latest
    if latest.status is Status.FAILED:
        again = claimed_again(execution, now_ms=now_ms)
        await both.put(task_id, again.with_latest(task_type=chance.choice(TYPES)))
    elif latest.status.is_finished:
        await both.remove_by_hand(task_id)
    elif latest.is_live:
        await both.put(task_id, chance.choice((finished, relaunched, answered, cancelled))(execution, now_ms))
    else:
        match chance.randrange(8):
            case 0:
                await both.put(task_id, suspend(execution, suspended=not execution.state.suspended))
            case 1:
                await both.put(task_id, cancelled(execution, now_ms))
            case _ if not execution.state.suspended:
                await begin(both, task_id, execution, now_ms)


async def begin(both: Both, task_id: str, execution: Execution, now_ms: int) -> None:
    number = execution.latest.number
    launching = intend_launch(execution, number, token="t" * 64, request={}, now_ms=now_ms, policy=POLICY)
    if await both.put(task_id, launching, Admission("local", SLOTS)) is None:
        both.begun += 1
    else:
        both.hindered += 1


def finished(execution: Execution, now_ms: int) -> Execution:
    return ended(execution, execution.latest.number, Status.FAILED, now_ms=now_ms, code="E1")


def relaunched(execution: Execution, now_ms: int) -> Execution:
    latest = execution.latest
    launch_try = latest.launch.launch_try if latest.launch else 0
    return launch_failed(
        execution, latest.number, launch_try, code="X", message="x", permanent=False, now_ms=now_ms, policy=POLICY
    )


def answered(execution: Execution, now_ms: int) -> Execution:
    latest = execution.latest
    launch_try = latest.launch.launch_try if latest.launch else 0
    following = launched(execution, latest.number, launch_try, worker_id="w", now_ms=now_ms)
    return following if following is not execution else finished(execution, now_ms)


def cancelled(execution: Execution, now_ms: int) -> Execution:
    latest = execution.latest
    done = cancel(execution, execution.task_id, reason="no", requested_by="jane", now_ms=now_ms).execution
    assert done is not None
    return done if done.latest.status.is_finished else ended(done, latest.number, Status.CANCELLED, now_ms=now_ms)
