"""kubectl as a way in: what a new object, an annotation or a changed spec does, and how often."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from executions.answer import Reply
from executions.cluster import Unavailable
from executions.control import suspend
from executions.errors import StoreUnavailable
from executions.names import FINALIZER, resource_name
from executions.policy import Policy
from executions.ports import Operation
from executions.record import Execution, Status
from executions.resource import Observed
from tests.support.builders import NOW_MS, pending, running, task_document
from tests.support.resource_side import ResourceSide
from tests.support.waiting import until
from tests.unit.domain.states import at_work, claimed_again, failed, reported, scheduled, succeeded

pytestmark = pytest.mark.looptime
"""The loop's time passes as soon as nobody has anything to do, so that waits cost none."""

SPEC = {"taskType": "implementation", "task": task_document()}


@pytest.fixture
async def side() -> ResourceSide:
    return ResourceSide(policy=Policy(max_retries=2))


async def shown(side: ResourceSide, execution: Execution) -> None:
    await side.put(execution)
    await side.settle()


async def asked(side: ResourceSide, name: str = "task-1", **annotations: str) -> None:
    side.cluster.annotate(name, **annotations)
    await side.settle()


def accepted(side: ResourceSide, name: str = "task-1") -> dict[str, Any] | None:
    """The condition that tells a refusal."""
    found = side.cluster.objects[name]["status"].get("conditions", [])
    return next((item for item in found if item["type"] == "Accepted"), None)


class TestSubmission:
    async def test_a_users_object_submits_its_task_once(self, side: ResourceSide) -> None:
        side.cluster.apply("task-1", SPEC)
        await side.settle()
        execution = await side.execution()
        assert (execution.latest.number, execution.latest.status) == (1, Status.PENDING)
        assert execution.latest.task_snapshot == task_document()
        assert "task-1" in side.woken
        side.cluster.apply("task-1", SPEC)
        side.events.observe(None, side.cluster.objects["task-1"])
        await side.settle()
        side.restart()
        await side.settle()
        assert (await side.execution()).state.sequence == execution.state.sequence

    async def test_the_finalizer_comes_before_the_commit(self, side: ResourceSide) -> None:
        """So that a deletion in between waits for us, and finds what it is to cancel."""
        side.store.commit = _store_is_away  # type: ignore[method-assign]
        side.cluster.apply("task-1", SPEC)
        async with side.running():
            await until(lambda: side.operations.queue.failed >= 1)
        assert side.cluster.objects["task-1"]["metadata"]["finalizers"] == [FINALIZER]

    async def test_its_status_is_written_at_once(self, side: ResourceSide) -> None:
        side.cluster.apply("task-1", SPEC)
        await side.settle()
        status = side.cluster.objects["task-1"]["status"]
        assert (status["phase"], status["attempt"]) == ("Pending", 1)
        assert status["incarnation"] == (await side.execution()).state.incarnation
        assert side.cluster.writes["task-1"] == 2

    async def test_a_crash_before_the_status_is_written_submits_nothing_more(self, side: ResourceSide) -> None:
        side.cluster.apply("task-1", SPEC)
        original, side.cluster.patch_status = side.cluster.patch_status, _unavailable  # type: ignore[method-assign]
        async with side.running():
            await until(lambda: side.mirror.queue.failed >= 1)
        await side.change("task-1", lambda found: reported(at_work(found)))
        side.cluster.patch_status = original  # type: ignore[method-assign]
        side.restart()
        await side.settle()
        # Without the memory of the object's uid its failed task would be submitted a second time here.
        assert (await side.execution()).latest.number == 1
        assert side.cluster.objects["task-1"]["status"]["phase"] == "Failed"

    async def test_an_object_whose_link_was_lost_is_bound_again(self, side: ResourceSide) -> None:
        """Otherwise mirror and operations would hand it to each other for ever."""
        side.cluster.apply("task-1", SPEC)
        original, side.cluster.patch_status = side.cluster.patch_status, _unavailable  # type: ignore[method-assign]
        async with side.running():
            await until(lambda: side.mirror.queue.failed >= 1)
        await side.put(reported(running()))
        side.cluster.patch_status = original  # type: ignore[method-assign]
        side.restart()
        await side.settle()
        assert (await side.execution()).latest.number == 1
        assert side.cluster.objects["task-1"]["status"]["phase"] == "Failed"

    async def test_without_a_task_it_runs_an_empty_payload(self, side: ResourceSide) -> None:
        side.cluster.apply("by-hand", {"taskType": "digest"})
        await side.settle()
        snapshot = (await side.execution("by-hand")).latest.task_snapshot
        assert snapshot == {"taskId": "by-hand", "taskType": "digest", "payload": {}}

    async def test_what_our_mirror_made_never_submits(self, side: ResourceSide) -> None:
        await shown(side, failed())
        side.restart()
        await side.settle()
        assert (await side.execution()).latest.number == 1
        assert not [key for key in side.store.operations if key.startswith("resource:")]

    @pytest.mark.parametrize(
        ("execution", "attempt"), [(failed(), 2), (running(), 1), (succeeded(), 1), (failed(attempts=3), 3)]
    )
    async def test_submitting_looks_at_what_is_there(
        self, side: ResourceSide, execution: Execution, attempt: int
    ) -> None:
        await shown(side, execution)
        side.cluster.remove("task-1")
        # A user deleted it and makes it anew.
        await side.put(execution)
        await side.settle()
        side.cluster.objects.clear()
        side.restart()
        await side.put(execution)
        side.cluster.apply("task-1", SPEC)
        await side.settle()
        assert (await side.execution()).latest.number == attempt
        assert side.cluster.objects["task-1"]["status"]["attempt"] == attempt

    async def test_a_submission_over_the_budget_is_refused_in_public(self, side: ResourceSide) -> None:
        await side.put(failed(attempts=3).with_state(resource=failed().state.resource))
        side.cluster.apply("task-1", SPEC)
        await side.settle()
        refusal = accepted(side)
        assert refusal is not None
        assert (refusal["reason"], refusal["message"]) == (
            "SubmitRefused",
            "retry budget exhausted (MAX_RETRIES is 2)",
        )
        assert "SubmitRefused" in side.cluster.reasons_told()

    async def test_what_was_done_long_ago_is_shown_again_to_who_asks_for_it(self) -> None:
        side = ResourceSide(policy=Policy(finished_ttl_ms=1000))
        await side.put(succeeded())
        side.store.now += 5000
        side.cluster.apply("task-1", SPEC)
        await side.settle()
        assert side.cluster.objects["task-1"]["status"]["phase"] == "Succeeded"
        side.store.now += 1000
        side.mirror.add("task-1")
        await side.settle()
        assert side.cluster.objects == {}
        assert not [key for key in side.store.operations if key.startswith("resource:")]

    async def test_annotations_of_the_first_manifest_ask_for_nothing(self, side: ResourceSide) -> None:
        await side.put(succeeded())
        side.cluster.apply("task-1", SPEC, {"alakai.dev/retry": "1", "alakai.dev/cancel": "no"})
        await side.settle()
        assert (await side.execution()).state.cancellation is None
        assert accepted(side) is None
        await asked(side, retry="2")
        refusal = accepted(side)
        assert refusal is not None
        assert refusal["reason"] == "RetryRefused"

    async def test_an_object_made_suspended_launches_nothing(self, side: ResourceSide) -> None:
        side.cluster.apply("task-1", {**SPEC, "suspend": True, "assignee": "jane"})
        await side.settle()
        execution = await side.execution()
        assert (execution.state.suspended, execution.state.assignee) == (True, "jane")
        assert side.cluster.objects["task-1"]["status"]["reason"] == "Suspended"

    async def test_a_name_that_is_not_the_tasks_is_refused(self, side: ResourceSide) -> None:
        side.cluster.apply("mine", {"taskId": "Task_1", "taskType": "digest"})
        await side.settle()
        refusal = accepted(side, "mine")
        assert refusal is not None
        assert (refusal["status"], refusal["reason"]) == ("False", "NameMismatch")
        assert resource_name("Task_1") in refusal["message"]
        assert side.cluster.reasons_told() == ["NameMismatch"]
        assert side.store.records == {}
        calls = len(side.cluster.calls)
        side.restart()
        await side.settle()
        assert len(side.cluster.calls) == calls
        side.cluster.remove("mine")
        assert "mine" not in side.cluster.objects

    async def test_a_task_that_is_none_is_refused_and_can_be_deleted(self, side: ResourceSide) -> None:
        side.cluster.apply("task-1", {"taskType": "implementation", "task": {"payload": "secret words"}})
        await side.settle()
        refusal = accepted(side)
        assert refusal is not None
        assert refusal["reason"] == "InvalidTask"
        assert "secret" not in str(side.cluster.objects["task-1"]["status"]) + str(side.cluster.events)
        side.cluster.remove("task-1")
        await side.settle()
        assert side.cluster.objects == {}

    async def test_a_refused_object_in_the_place_of_a_running_one_cancels_nothing_when_it_goes(
        self, side: ResourceSide
    ) -> None:
        await side.put(running())
        side.cluster.apply("task-1", {"taskType": "implementation", "task": {"payload": "text"}})
        await side.settle()
        assert accepted(side) is not None
        side.cluster.remove("task-1")
        await side.settle()
        assert (await side.execution()).state.cancellation is None
        assert side.cluster.objects["task-1"]["status"]["phase"] == "Running"

    async def test_a_deletion_before_anything_was_submitted_leaves_nothing(self, side: ResourceSide) -> None:
        side.cluster.apply("task-1", SPEC)
        side.cluster.remove("task-1")
        await side.settle()
        assert side.store.records == {}
        assert side.cluster.objects == {}

    async def test_the_same_name_again_submits_again(self, side: ResourceSide) -> None:
        side.cluster.apply("task-1", SPEC)
        await side.settle()
        await shown(side, reported(running()))
        side.cluster.remove("task-1")
        await side.settle()
        assert side.store.operations == {}
        side.cluster.apply("task-1", SPEC)
        await side.settle()
        assert (await side.execution()).latest.number == 2
        assert side.cluster.objects["task-1"]["status"]["attempt"] == 2


class TestRetry:
    async def test_a_new_value_retries_as_over_http(self, side: ResourceSide) -> None:
        await shown(side, failed())
        await asked(side, retry="1")
        assert side.queue.sent == [{**task_document(), "attempt": 2}]
        mark = (await side.execution()).state.retry
        assert mark is not None
        assert (mark.attempt, mark.resend_at) == (2, NOW_MS + side.policy.retry_redeliver_ms)
        assert side.cluster.objects["task-1"]["status"]["next"] == "attempt 2, queued"

    async def test_relists_restarts_and_other_changes_repeat_nothing(self, side: ResourceSide) -> None:
        await shown(side, failed())
        await asked(side, retry="1")
        await shown(side, reported(running().with_state(), now_ms=NOW_MS))
        for _ in range(2):
            side.restart()
            await side.resync.once()
            await side.settle()
        await asked(side, other="x")
        assert len(side.queue.sent) == 1

    async def test_a_value_that_was_acted_on_before_is_a_repeat(self, side: ResourceSide) -> None:
        """As from an old view of the object: value and uid make the operation."""
        await shown(side, failed())
        await asked(side, retry="1")
        await shown(side, (await side.execution()).with_state(retry=None))
        await asked(side, retry="2")
        await shown(side, (await side.execution()).with_state(retry=None))
        await asked(side, retry="1")
        assert len(side.queue.sent) == 2
        assert (await side.execution()).state.resource.retry == "1"

    async def test_a_refusal_is_told_by_condition_and_event_and_clears_with_the_next(self, side: ResourceSide) -> None:
        await shown(side, running())
        await asked(side, retry="1")
        refusal = accepted(side)
        assert refusal is not None
        assert refusal["message"] == "cannot retry execution in status 'running'"
        assert side.cluster.reasons_told() == ["RetryRefused"]
        assert side.queue.sent == []
        await shown(side, reported(await side.execution()))
        await asked(side, retry="2")
        assert accepted(side) is None
        assert len(side.queue.sent) == 1

    async def test_a_queue_that_is_away_loses_no_retry(self, side: ResourceSide) -> None:
        await shown(side, failed())
        side.queue.unavailable = True
        with capture_logs() as logs:
            await asked(side, retry="1")
        assert "The retry is enqueued later" in [entry["event"] for entry in logs]
        assert (await side.execution()).state.retry is not None
        side.queue.unavailable = False
        side.store.now += side.policy.retry_redeliver_ms
        await side.commands.resend_retry("task-1")
        assert len(side.queue.sent) == 1

    async def test_a_crash_between_mark_and_send_leaves_it_due_at_once(self, side: ResourceSide) -> None:
        await shown(side, failed())

        async def die(_: str) -> None:
            raise Unavailable("killed")

        commands = side.operations._commands
        object.__setattr__(side.operations, "_send_retry", die)
        side.cluster.annotate("task-1", retry="1")
        async with side.running():
            await until(lambda: side.operations.queue.failed >= 1)
        await commands.resend_retry("task-1")
        assert len(side.queue.sent) == 1

    async def test_a_double_click_across_doors_enqueues_once(self, side: ResourceSide) -> None:
        await shown(side, failed())
        answer = await side.commands.retry("task-1", requested_by="jane")
        await asked(side, retry="1")
        assert answer.reply is Reply.QUEUED
        assert len(side.queue.sent) == 1

    async def test_an_annotation_set_while_nobody_looked_is_acted_on_after_a_restart(self, side: ResourceSide) -> None:
        await shown(side, failed())
        side.cluster.watcher = None
        side.cluster.annotate("task-1", retry="1")
        side.restart()
        await side.settle()
        assert len(side.queue.sent) == 1

    async def test_an_old_annotation_does_not_retry_a_record_made_anew(self, side: ResourceSide) -> None:
        await shown(side, failed())
        await asked(side, retry="1")
        side.store.records.clear()
        anew = failed().with_state(incarnation="incarnation-2")
        await side.put(anew.with_attempt(anew.latest.model_copy(update={"incarnation": "incarnation-2"})))
        side.restart()
        await side.resync.once()
        await side.settle()
        assert side.cluster.objects["task-1"]["status"]["incarnation"] == "incarnation-2"
        assert len(side.queue.sent) == 1


class TestSteering:
    async def test_cancel_stops_with_its_reason(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.woken.clear()
        await asked(side, cancel="not needed")
        cancellation = (await side.execution()).state.cancellation
        assert cancellation is not None
        assert (cancellation.reason, cancellation.requested_by) == ("not needed", "kubernetes")
        assert side.cluster.objects["task-1"]["status"]["reason"] == "Cancelling"
        assert "task-1" in side.woken

    async def test_cancel_of_a_waiting_one_ends_it_and_tells(self, side: ResourceSide) -> None:
        await shown(side, pending())
        await asked(side, cancel="not needed")
        assert side.cluster.objects["task-1"]["status"]["phase"] == "Cancelled"
        assert side.cluster.reasons_told() == ["Cancelled"]

    async def test_an_old_cancellation_does_not_stop_a_later_attempt(self, side: ResourceSide) -> None:
        await shown(side, failed())
        await asked(side, cancel="not needed")
        await shown(side, claimed_again(await side.execution()))
        side.restart()
        await side.resync.once()
        await side.settle()
        assert (await side.execution()).latest.status is Status.PENDING

    async def test_done_drops_a_retry_that_is_to_come_and_leaves_a_worker_alone(self, side: ResourceSide) -> None:
        await shown(side, scheduled(failed()))
        await asked(side, done="yes")
        schedule = (await side.execution()).state.schedule
        assert schedule is not None
        assert (schedule.outcome, schedule.reason) == ("dropped", "issue_done")
        assert side.cluster.objects["task-1"]["status"]["phase"] == "Failed"

    async def test_suspend_holds_and_releases(self, side: ResourceSide) -> None:
        await shown(side, pending())
        side.cluster.apply("task-1", {"suspend": True})
        await side.settle()
        assert (await side.execution()).state.suspended is True
        status = side.cluster.objects["task-1"]["status"]
        assert (status["reason"], status["observedGeneration"]) == ("Suspended", 2)
        side.woken.clear()
        side.cluster.apply("task-1", {"suspend": False})
        await side.settle()
        assert (await side.execution()).state.suspended is False
        assert side.cluster.objects["task-1"]["status"]["observedGeneration"] == 3
        assert "task-1" in side.woken

    async def test_a_release_while_nobody_looked_is_acted_on_after_a_restart(self, side: ResourceSide) -> None:
        await shown(side, pending())
        side.cluster.apply("task-1", {"suspend": True})
        await side.settle()
        side.cluster.watcher = None
        side.cluster.apply("task-1", {"suspend": False})
        side.restart()
        await side.resync.once()
        await side.settle()
        assert (await side.execution()).state.suspended is False

    async def test_a_held_one_that_was_made_anew_can_be_released(self, side: ResourceSide) -> None:
        await shown(side, suspend(pending(), suspended=True))
        assert side.cluster.objects["task-1"]["spec"]["suspend"] is True
        side.restart()
        await side.settle()
        assert (await side.execution()).state.suspended is True
        side.cluster.apply("task-1", {"suspend": False})
        await side.settle()
        assert (await side.execution()).state.suspended is False

    async def test_assignee_is_taken_over(self, side: ResourceSide) -> None:
        await shown(side, scheduled(failed(), assignee="john"))
        side.cluster.apply("task-1", {"assignee": "jane"})
        await side.settle()
        execution = await side.execution()
        assert execution.state.assignee == "jane"
        assert execution.state.schedule is not None
        assert execution.state.schedule.reason == "issue_reassigned"

    async def test_a_generation_is_not_called_seen_before_it_was_acted_on(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.operations.add = lambda _: None  # type: ignore[method-assign]
        side.cluster.apply("task-1", {"suspend": True})
        await side.settle()
        assert side.cluster.objects["task-1"]["status"]["observedGeneration"] == 1

    async def test_a_task_added_later_is_ignored(self, side: ResourceSide) -> None:
        side.cluster.apply("task-1", {"taskType": "implementation"})
        await side.settle()
        await side.change("task-1", lambda found: reported(at_work(found)))
        await side.settle()
        side.cluster.apply("task-1", {"task": task_document()})
        await side.settle()
        assert (await side.execution()).latest.number == 1
        assert side.cluster.objects["task-1"]["status"]["observedGeneration"] == 2

    async def test_several_wishes_at_once_are_all_granted(self, side: ResourceSide) -> None:
        await shown(side, failed())
        await asked(side, retry="1", cancel="rather not")
        execution = await side.execution()
        assert (execution.state.resource.retry, execution.state.resource.cancel) == ("1", "rather not")
        assert execution.state.retry is None


async def _store_is_away(*_: object, **__: object) -> Any:
    raise StoreUnavailable("no answer (test)")


async def _unavailable(*_: object) -> Any:
    raise Unavailable("no answer (test)")


async def test_the_memory_of_a_submission_ends_with_its_object(side: ResourceSide) -> None:
    side.cluster.apply("task-1", SPEC)
    await side.settle()
    seen: Observed = side.seen()
    assert await side.store.remembered(Operation(f"resource:{seen.uid}", None)) is not None
    side.cluster.remove("task-1")
    await side.settle()
    assert await side.store.remembered(Operation(f"resource:{seen.uid}", None)) is None
