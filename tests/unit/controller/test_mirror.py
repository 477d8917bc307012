"""The mirror: what it writes, how often, and what it makes of objects that others change."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from controller import mirror as mirror_module
from executions.cluster import Conflict, Forbidden, NotFound, TooManyRequests, Unavailable
from executions.control import suspend
from executions.errors import StoreUnavailable
from executions.lifecycle import ended, intend_launch, launched
from executions.names import FINALIZER, resource_name
from executions.policy import Policy
from executions.record import Execution, Status
from tests.support.builders import NOW_MS, POLICY, intended, pending, running
from tests.support.resource_side import ResourceSide
from tests.support.waiting import until
from tests.unit.domain.states import at_work, cancelling, claimed_again, failed, reported, scheduled, succeeded
from tests.unit.test_conditions import relaunching

pytestmark = pytest.mark.looptime
"""The loop's time passes as soon as nobody has anything to do, so that waits cost none."""


@pytest.fixture
async def side() -> ResourceSide:
    return ResourceSide()


async def shown(side: ResourceSide, execution: Execution) -> None:
    await side.put(execution)
    await side.settle()


def status(side: ResourceSide, name: str = "task-1") -> dict[str, object]:
    found: dict[str, object] = side.cluster.objects[name]["status"]
    return found


class TestWriting:
    async def test_an_attempt_that_never_waits_costs_three_writes(self, side: ResourceSide) -> None:
        await shown(side, pending())
        assert side.cluster.writes["task-1"] == 1
        assert status(side) == {"phase": "Pending"}
        await shown(side, intended())
        await shown(side, running())
        assert side.cluster.writes["task-1"] == 2
        assert status(side)["phase"] == "Running"
        await shown(side, succeeded())
        assert side.cluster.writes["task-1"] == 3
        assert side.cluster.conditions("task-1")["Finished"] == "True"
        assert side.cluster.events == {}

    async def test_what_changed_meanwhile_is_written_once(self, side: ResourceSide) -> None:
        for execution in (pending(), intended(), running(), succeeded()):
            await side.put(execution)
        await side.settle()
        assert side.cluster.calls == ["create task-1", "status task-1"]
        assert status(side)["phase"] == "Succeeded"

    async def test_looking_again_writes_nothing(self, side: ResourceSide) -> None:
        await shown(side, running())
        before = side.cluster.writes["task-1"]
        for _ in range(3):
            side.mirror.add("task-1")
            await side.settle()
        side.restart()
        side.mirror.add("task-1")
        await side.settle()
        assert side.cluster.writes["task-1"] == before

    async def test_a_commit_that_nobody_sees_costs_no_write(self, side: ResourceSide) -> None:
        await shown(side, running())
        before = side.cluster.writes["task-1"]
        launch = running().latest.launch
        assert launch is not None
        await side.change(
            "task-1", lambda found: found.with_latest(launch=launch.model_copy(update={"claim_id": "worker"}))
        )
        side.mirror.add("task-1")
        await side.settle()
        assert side.cluster.writes["task-1"] == before
        assert side.mirror.compared["task-1"] == ("incarnation-1", 2)

    async def test_an_attempt_that_waits_is_shown_as_waiting_after_a_while(
        self, side: ResourceSide, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mirror_module, "PENDING_SHOWN_AFTER_MS", 50)
        async with side.running():
            await side.put(pending())
            await until(lambda: side.is_idle and side.mirror.queue.postponed == 1)
            assert status(side) == {"phase": "Pending"}
            side.store.now += 50
            await until(lambda: status(side).get("reason") == "WaitingForLaunch")
            await until(lambda: side.is_idle)
        assert side.cluster.writes["task-1"] == 2

    async def test_a_launch_on_its_way_is_shown_only_when_it_takes_long(
        self, side: ResourceSide, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        side.store.now += 5000
        await shown(side, pending())
        assert status(side)["reason"] == "WaitingForLaunch"
        monkeypatch.setattr(mirror_module, "PENDING_SHOWN_AFTER_MS", 50)
        intent = intend_launch(pending(), 1, token="t", request={}, now_ms=side.store.now, policy=POLICY)
        async with side.running():
            await side.put(intent)
            side.mirror.add("task-1")
            await until(lambda: side.is_idle and side.mirror.queue.postponed == 1)
            assert status(side)["reason"] == "WaitingForLaunch"
            side.store.now += 50
            await until(lambda: status(side)["reason"] == "Launching")

    async def test_a_later_attempt_is_shown_as_waiting_at_once(self, side: ResourceSide) -> None:
        await shown(side, failed())
        side.woken.clear()
        await shown(side, claimed_again(failed()))
        assert (status(side)["phase"], status(side)["attempt"]) == ("Pending", 2)
        assert side.woken == ["task-1"]

    async def test_held_and_cancelled_ones_are_shown_at_once(self, side: ResourceSide) -> None:
        await shown(side, suspend(pending("held"), suspended=True))
        await shown(side, cancelling(intended("stopped")))
        assert status(side, "held")["reason"] == "Suspended"
        assert status(side, "stopped")["reason"] == "Cancelling"

    async def test_an_object_wakes_the_reconciler_when_it_can_be_seen(self, side: ResourceSide) -> None:
        side.cluster.holds_events = True
        await shown(side, pending())
        assert side.woken == []
        side.cluster.deliver()
        assert side.woken == ["task-1"]
        await shown(side, running())
        assert side.woken == ["task-1"]

    async def test_an_id_that_is_no_object_name_gets_one(self, side: ResourceSide) -> None:
        await shown(side, running("Job_1"))
        name = resource_name("Job_1")
        assert name != "Job_1"
        assert side.cluster.objects[name]["spec"]["taskId"] == "Job_1"
        await shown(side, ended(running("Job_1"), 1, Status.SUCCEEDED, now_ms=NOW_MS))
        assert status(side, name)["phase"] == "Succeeded"

    async def test_no_payload_is_written(self, side: ResourceSide) -> None:
        await shown(side, failed(attempts=2))
        assert "prompt" not in str(side.cluster.objects)

    async def test_a_status_that_is_kept_differently_is_not_written_for_ever(self, side: ResourceSide) -> None:
        """An API server with an older schema drops fields that it does not know."""
        original = side.cluster.patch_status

        async def pruned(name: str, written: object) -> object:
            assert isinstance(written, dict)
            return await original(name, {key: value for key, value in written.items() if key != "traceId"})

        side.cluster.patch_status = pruned  # type: ignore[method-assign,assignment]
        with capture_logs() as logs:
            await shown(side, running())
            for _ in range(3):
                side.mirror.add("task-1")
                await side.settle()
        assert side.cluster.calls.count("status task-1") == 1
        assert len([entry for entry in logs if "CRD" in entry["event"]]) == 1


class TestEvents:
    async def test_a_failure_is_told_after_the_status_and_once(self, side: ResourceSide) -> None:
        await shown(side, failed())
        assert [call.split()[0] for call in side.cluster.calls] == ["create", "status", "event"]
        assert side.cluster.reasons_told() == ["WorkerFailed"]
        side.restart()
        await shown(side, claimed_again(failed()))
        assert side.cluster.reasons_told() == ["WorkerFailed"]

    async def test_a_failure_that_was_over_before_it_was_seen_is_told_too(self, side: ResourceSide) -> None:
        await shown(side, running())
        await side.put(failed())
        await side.put(claimed_again(failed()))
        await shown(side, at_work(claimed_again(failed())))
        assert side.cluster.reasons_told() == ["WorkerFailed"]

    async def test_the_last_failure_says_that_no_retry_is_left(self, side: ResourceSide) -> None:
        await shown(side, failed(attempts=2))
        assert side.cluster.reasons_told() == ["WorkerFailed", "WorkerFailed", "RetryBudgetExhausted"]

    async def test_an_event_that_cannot_be_posted_holds_nothing_up(self, side: ResourceSide) -> None:
        async def refuse(_: object) -> None:
            raise Forbidden("no")

        side.cluster.create_event = refuse  # type: ignore[method-assign]
        await shown(side, failed())
        assert status(side)["phase"] == "Failed"
        assert side.mirror.queue.failed == 0


class TestConvergence:
    async def test_an_object_that_is_there_already_is_taken_over(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.restart(relist=False)
        await shown(side, succeeded())
        assert side.cluster.calls[-3:] == ["create task-1", "read task-1", "status task-1"]
        assert status(side)["phase"] == "Succeeded"

    async def test_an_object_that_was_lost_is_made_anew(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.cluster.lose("task-1")
        await shown(side, succeeded())
        assert status(side)["phase"] == "Succeeded"

    async def test_a_changed_object_is_read_again(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.cluster.failures = [Conflict("changed"), NotFound("another one")]
        await shown(side, succeeded())
        assert status(side)["phase"] == "Succeeded"
        assert side.mirror.queue.failed == 0

    async def test_an_old_view_never_replaces_a_newer_one(self, side: ResourceSide) -> None:
        await shown(side, pending())
        side.cluster.holds_events = True
        await shown(side, running())
        newest = side.seen().resource_version
        side.cluster.deliver()
        assert side.seen().resource_version == newest
        await shown(side, succeeded())
        assert "read task-1" not in side.cluster.calls

    async def test_a_newer_status_is_not_overwritten(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.cluster.edit_status("task-1", sequence=99)
        with capture_logs() as logs:
            async with side.running():
                await side.put(succeeded())
                await until(lambda: side.is_idle and side.mirror.queue.failed > 0)
        assert status(side)["phase"] == "Running"
        assert "older state" in logs[0]["reason"]

    async def test_a_status_edited_by_hand_is_overwritten(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.cluster.edit_status("task-1", phase="Succeeded", reason="BecauseISaySo")
        await side.settle()
        assert (status(side)["phase"], status(side)["reason"]) == ("Running", "WorkerRunning")

    async def test_a_new_incarnation_starts_over_in_the_same_object(self, side: ResourceSide) -> None:
        await shown(side, failed())
        anew = running().with_state(incarnation="incarnation-2")
        side.store.records.pop("task-1")
        await shown(side, anew.with_attempt(anew.latest.model_copy(update={"incarnation": "incarnation-2"})))
        assert (status(side)["incarnation"], status(side)["attempt"]) == ("incarnation-2", 1)
        assert status(side)["phase"] == "Running"

    async def test_a_stripped_finalizer_is_put_back(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.cluster.strip_finalizers("task-1")
        await side.settle()
        assert side.cluster.objects["task-1"]["metadata"]["finalizers"] == [FINALIZER]

    async def test_an_object_of_another_task_in_its_place_is_left_alone(self, side: ResourceSide) -> None:
        side.cluster.apply("task-1", {"taskId": "other", "taskType": "digest"})
        await side.settle()
        with capture_logs() as logs:
            await shown(side, running())
        assert any("Another task's object" in entry["event"] for entry in logs)
        assert side.cluster.objects["task-1"]["spec"]["taskId"] == "other"

    async def test_a_record_that_cannot_be_read_leaves_its_object_as_it_is(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.store.records["task-1"]["1"] = b"{"
        side.mirror.add("task-1")
        await side.settle()
        assert status(side)["phase"] == "Running"
        assert side.mirror.queue.failed == 0


class TestOutage:
    async def test_an_outage_costs_one_small_request_now_and_then_and_ends_at_once(self, side: ResourceSide) -> None:
        async with side.running():
            side.cluster.is_away = True
            for number in range(40):
                await side.put(running(f"task-{number}"))
            await until(lambda: side.is_idle or side.mirror.api_is_away)
            assert side.mirror.api_is_away
            tried = len([call for call in side.cluster.calls if call.startswith("create")])
            await until(lambda: side.cluster.calls.count("check") >= 2)
            # Workers that were on their way when it was noticed have come back; nobody has tried since.
            assert len([call for call in side.cluster.calls if call.startswith("create")]) <= tried + 16
            for number in range(40):
                await side.put(reported(running(f"task-{number}"), succeeded=True))
            assert not side.is_idle
            side.cluster.is_away = False
            await until(lambda: not side.mirror.api_is_away)
            await until(lambda: len(side.cluster.objects) == 40)
            await until(lambda: side.is_idle)
        assert {body["status"]["phase"] for body in side.cluster.objects.values()} == {"Succeeded"}

    async def test_a_single_server_error_is_no_outage(self, side: ResourceSide) -> None:
        side.cluster.failures = [Unavailable("etcdserver: request timed out")]
        async with side.running():
            await side.put(running())
            await until(lambda: "task-1" in side.cluster.objects)
        assert not side.mirror.api_is_away
        assert "check" not in side.cluster.calls

    async def test_a_wish_to_wait_is_granted_by_everybody(self, side: ResourceSide) -> None:
        side.cluster.failures = [TooManyRequests("slow down", retry_after_seconds=0.2)]
        loop = asyncio.get_running_loop()
        async with side.running():
            began = loop.time()
            await side.put(running("a"))
            await until(lambda: side.mirror.queue.failed == 1)
            await side.put(running("b"))
            await until(lambda: {"a", "b"} <= side.cluster.objects.keys())
            assert loop.time() - began >= 0.19
        assert not side.mirror.api_is_away

    async def test_a_store_that_is_away_is_waited_for(self, side: ResourceSide) -> None:
        await side.put(running())
        side.store.unavailable = True
        async with side.running():
            side.mirror.add("task-1")
            await until(lambda: side.mirror.queue.failed >= 1)
            side.store.unavailable = False
            await until(lambda: "task-1" in side.cluster.objects)
        assert not side.mirror.api_is_away


class TestFailover:
    async def test_what_might_be_lost_with_a_master_is_not_shown(self, side: ResourceSide) -> None:
        """A finished attempt that a resource shows can never be shown otherwise."""
        await shown(side, running())
        secure = side.store.secure

        async def insecure() -> None:
            raise StoreUnavailable("only 0 of 1 replicas have it")

        side.store.secure = insecure  # type: ignore[method-assign]
        await side.put(succeeded())
        with pytest.raises(StoreUnavailable):
            await side.mirror.sync("task-1")
        assert status(side)["phase"] == "Running"
        side.store.secure = secure  # type: ignore[method-assign]
        await side.mirror.sync("task-1")
        assert status(side)["phase"] == "Succeeded"


class TestEnd:
    async def test_what_is_finished_for_long_enough_is_removed_and_not_made_again(self) -> None:
        side = ResourceSide(policy=Policy(finished_ttl_ms=1000))
        await shown(side, succeeded())
        side.store.now += 1000
        side.mirror.add("task-1")
        await side.settle()
        assert side.cluster.objects == {}
        assert (await side.execution()).state.resource.absent_attempt == 0
        side.mirror.add("task-1")
        await side.settle()
        assert side.cluster.calls.count("create task-1") == 1

    async def test_what_is_finished_for_long_enough_stays_until_the_archive_has_it(self) -> None:
        side = ResourceSide(policy=Policy(finished_ttl_ms=1000))
        side.archive_lacks.add("task-1")
        await shown(side, succeeded())
        side.store.now += 1000
        side.mirror.add("task-1")
        await side.settle()
        assert status(side)["phase"] == "Succeeded"
        side.archive_lacks.clear()
        side.store.now += 1
        await side.resync.once()
        await side.settle()
        assert side.cluster.objects == {}

    async def test_what_a_user_deleted_waits_for_no_archive(self) -> None:
        side = ResourceSide()
        side.archive_lacks.add("task-1")
        await shown(side, succeeded())
        side.cluster.remove("task-1")
        await side.settle()
        assert side.cluster.objects == {}

    async def test_a_later_attempt_brings_a_removed_resource_back(self) -> None:
        side = ResourceSide(policy=Policy(finished_ttl_ms=1000))
        await shown(side, failed())
        side.store.now += 1000
        side.mirror.add("task-1")
        await side.settle()
        await shown(side, claimed_again(failed(), now_ms=NOW_MS + 1000))
        assert status(side)["attempt"] == 2

    async def test_a_retry_that_comes_in_between_keeps_the_resource(self) -> None:
        """Exactly what was looked at is removed: the status write of the retry makes it another version."""
        side = ResourceSide(policy=Policy(finished_ttl_ms=1000))
        await shown(side, failed())
        side.store.now += 1000
        original = side.cluster.delete

        async def delete(name: str, *, uid: str, resource_version: int) -> None:
            side.cluster.delete = original  # type: ignore[method-assign]
            await side.put(claimed_again(failed(), now_ms=NOW_MS + 1000))
            side.cluster.edit_status("task-1", message="somebody wrote")
            await original(name, uid=uid, resource_version=resource_version)

        side.cluster.delete = delete  # type: ignore[method-assign]
        side.mirror.add("task-1")
        await side.settle()
        assert (status(side)["phase"], status(side)["attempt"]) == ("Pending", 2)
        assert side.seen().is_protected
        assert (await side.execution()).state.cancellation is None

    async def test_a_record_that_is_gone_takes_its_object_with_it(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.store.records.pop("task-1")
        side.mirror.add("task-1")
        await side.settle()
        assert side.cluster.objects == {}

    async def test_deleting_a_finished_one_is_final_until_a_later_attempt(self, side: ResourceSide) -> None:
        await shown(side, failed())
        side.cluster.remove("task-1")
        await side.settle()
        assert side.cluster.objects == {}
        assert (await side.execution()).state.resource.absent_attempt == 1
        side.mirror.add("task-1")
        side.restart()
        await side.resync.once()
        await side.settle()
        assert side.cluster.objects == {}
        await shown(side, claimed_again(await side.execution()))
        assert status(side)["attempt"] == 2

    async def test_deleting_a_waiting_one_cancels_it_first(self, side: ResourceSide) -> None:
        await shown(side, pending())
        side.cluster.remove("task-1")
        await side.settle()
        execution = await side.execution()
        assert execution.latest.status is Status.CANCELLED
        assert execution.latest.error_message == "the WorkerExecution was deleted"
        assert side.cluster.objects == {}

    async def test_deleting_a_running_one_waits_for_its_worker_to_end(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.woken.clear()
        side.cluster.remove("task-1")
        await side.settle()
        assert (await side.execution()).state.cancellation is not None
        assert "task-1" in side.woken
        assert status(side)["reason"] == "Cancelling"
        assert side.seen().is_deleting
        await side.change("task-1", lambda found: ended(found, 1, Status.CANCELLED, now_ms=NOW_MS, message="stopped"))
        await side.settle()
        assert side.cluster.objects == {}
        assert (await side.execution()).state.resource.absent_attempt == 1

    async def test_deleting_one_whose_retry_is_to_come_drops_the_retry(self, side: ResourceSide) -> None:
        await shown(side, scheduled(failed()))
        side.cluster.remove("task-1")
        await side.settle()
        schedule = (await side.execution()).state.schedule
        assert schedule is not None
        assert (schedule.outcome, schedule.reason) == ("dropped", "issue_cancelled")
        assert side.cluster.objects == {}

    async def test_a_restart_between_tombstone_and_release_goes_on(self, side: ResourceSide) -> None:
        await shown(side, failed())
        side.cluster.failures = [Unavailable("gone"), Unavailable("gone")]
        side.cluster.remove("task-1")
        async with side.running():
            await until(lambda: side.mirror.queue.failed >= 1)
        assert (await side.execution()).state.resource.absent_attempt == 1
        side.cluster.failures = []
        side.restart()
        await side.settle()
        assert side.cluster.objects == {}

    async def test_an_object_that_went_without_waiting_for_us_counts_as_deleted(self, side: ResourceSide) -> None:
        await shown(side, running())
        side.cluster.holds_events = True
        side.cluster.strip_finalizers("task-1")
        side.cluster.remove("task-1")
        side.cluster.deliver()
        await side.settle()
        execution = await side.execution()
        assert execution.state.cancellation is not None
        assert execution.state.resource.absent_attempt == 1
        assert side.cluster.objects == {}

    async def test_while_the_definition_leaves_finalizers_go_and_nothing_is_cancelled(self, side: ResourceSide) -> None:
        await shown(side, running())
        await shown(side, ended(running("done"), 1, Status.SUCCEEDED, now_ms=NOW_MS))
        side.cluster.definition_leaves = True
        side.cluster.remove("task-1")
        side.cluster.remove("done")
        async with side.running():
            await until(lambda: "definition" in side.cluster.calls)
            await until(lambda: side.is_idle)
        assert (await side.execution()).state.cancellation is None
        assert (await side.execution()).state.resource.absent_attempt == 0
        assert (await side.execution("done")).state.resource.absent_attempt == 0
        # A worker that ends with its object is parted from it first.
        assert side.disowned == [("worker-of-task-1", True)]
        # Both are wanted as ever, and made again as soon as that is possible.
        assert side.cluster.calls.count("create task-1") == 2

    async def test_an_attempt_begun_while_the_object_ends_brings_it_back(self, side: ResourceSide) -> None:
        await shown(side, failed())
        original = side.cluster.patch

        async def patch(name: str, operations: object) -> object:
            side.cluster.patch = original  # type: ignore[method-assign]
            await side.put(claimed_again(await side.execution()))
            return await original(name, operations)  # type: ignore[arg-type]

        side.cluster.patch = patch  # type: ignore[method-assign,assignment]
        side.cluster.remove("task-1")
        await side.settle()
        assert (status(side)["phase"], status(side)["attempt"]) == ("Pending", 2)
        assert (await side.execution()).latest.status is Status.PENDING


async def test_relaunches_are_shown_and_told(side: ResourceSide) -> None:
    await shown(side, running())
    waiting = relaunching(running(), now_ms=NOW_MS)
    await shown(side, waiting)
    assert status(side)["reason"] == "WaitingForRelaunch"
    again = intend_launch(waiting, 1, token="u" * 64, request={}, now_ms=NOW_MS, policy=POLICY)
    await shown(side, launched(again, 1, 2, worker_id="worker-2", now_ms=NOW_MS))
    assert status(side)["workerId"] == "worker-2"
    assert side.cluster.reasons_told() == ["WorkerRelaunched"]
