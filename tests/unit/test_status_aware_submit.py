"""Status-aware submit: the behaviour that users of the earlier engine have tests for, by name.

Their tests of the liveness probe are in ``test_probes.py``, ``test_health.py`` and ``api/test_probes.py``.
"""

from __future__ import annotations

import asyncio

from executions.answer import Reply
from executions.outcome import outcome_from_document
from executions.record import Status
from tests.unit.test_bounded_retry import TASK_ID, World

FOR_GOOD = {"errorFamily": None, "error": {"message": "no", "code": "E1"}}


async def test_submit_run_field_on_first_submit() -> None:
    assert (await World().runs()).latest.run == 1


async def test_submit_re_executes_failed_task() -> None:
    world = World()
    await world.runs()
    await world.fails(**FOR_GOOD)
    latest = (await world.runs()).latest
    assert (latest.number, latest.run, latest.status) == (2, 2, Status.RUNNING)


async def test_submit_re_executes_failed_task_that_fails_again() -> None:
    world = World()
    await world.runs()
    for run in (2, 3):
        await world.fails(**FOR_GOOD)
        assert (await world.runs()).latest.run == run
    assert world.launches() == [1, 2, 3]


async def test_submit_of_a_task_that_runs_or_succeeded_is_a_no_op() -> None:
    world = World()
    execution = await world.runs()
    for status in ("running", "succeeded"):
        answer = await world.submit()
        assert (answer.reply, answer.attempt, answer.status) == (Reply.NOTHING_TO_DO, 1, status)
        await world.commands.complete(outcome_from_document({"taskId": TASK_ID, "status": "success"}))
    assert (await world.found()).latest.run == execution.latest.run == 1


async def test_submit_does_not_increment_run_on_rehydration() -> None:
    world = World()
    execution = await world.runs()
    for _ in range(20):  # each of them is a controller that just started
        assert await world.reconcile() == execution
    # A worker that never started and is launched again is the same execution of the task, too.
    world = World()
    world.launcher.refuse("WORKER_NEVER_STARTED")
    await world.submit()
    assert (await world.reconcile()).latest.status is Status.PENDING
    world.store.now += 60_000
    latest = (await world.reconcile()).latest
    assert (latest.number, latest.run, latest.launch_tries) == (1, 1, 2)


async def test_submit_concurrent_same_failed_id() -> None:
    world = World()
    await world.runs()
    await world.fails(**FOR_GOOD)
    answers = await asyncio.gather(*(world.submit() for _ in range(200)))
    assert [answer.reply for answer in answers].count(Reply.CLAIMED) == 1
    assert (await world.reconcile()).latest.run == 2
    assert world.launches() == [1, 2]
