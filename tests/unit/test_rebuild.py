"""From a resource back to its execution: what was finished stays finished, what waits goes on under the same tokens."""

from __future__ import annotations

from typing import Any

import pytest

from executions.control import suspend
from executions.lifecycle import ended, launch_failed
from executions.link import Wishes
from executions.names import launch_token
from executions.plan import REPLAY_LIMIT_MS, FindWorker, IntendLaunch, LaunchWorker, plan
from executions.rebuild import ResourceUnreadable, execution_from_resource
from executions.record import Evidence, Execution, Grade, Judgement, LateResult, Status
from executions.resource import manifest_from_execution, observed_from_body, status_from_execution
from tests.support.builders import NOW_MS, POLICY, intended, pending, running, task_document
from tests.unit.domain.states import (
    at_work,
    by_hand,
    cancelled,
    cancelling,
    claimed_again,
    failed,
    reported,
    scheduled,
    succeeded,
)

LATER_MS = NOW_MS + 5_000


def lost() -> Execution:
    gone = [Evidence(source="ecs:DescribeTasks", observed_at=NOW_MS, detail="STOPPED", code="WORKER_LOST")]
    execution = ended(
        running(), 1, Status.FAILED, now_ms=NOW_MS, code="WORKER_LOST", message="it is gone", evidence=gone
    )
    late = LateResult(succeeded=True, received_at=NOW_MS + 1, message=None)
    verdict = Judgement(
        kind="lost",
        grade=Grade.PROBABLE,
        code="WORKER_LOST",
        message="it is gone",
        refuted_by="a callback",
        spoken_at=NOW_MS,
        detected_after_ms=900,
        last_seen_alive_at=NOW_MS - 900,
        launch_try=1,
    )
    return execution.with_latest(late_results=[late], verdict=verdict)


def relaunched() -> Execution:
    return launch_failed(
        intended(),
        1,
        1,
        code="LAUNCH_CAPACITY",
        message="no room",
        permanent=False,
        now_ms=NOW_MS,
        policy=POLICY,
        evidence=[Evidence(source="fake:launch", observed_at=NOW_MS, detail="no room")],
    )


STATES = {
    "pending": pending(),
    "suspended": suspend(pending(), suspended=True),
    "launching": intended(),
    "waiting for another launch": relaunched(),
    "running": running(),
    "being cancelled": cancelling(running()),
    "succeeded": succeeded(),
    "failed with a code of the worker's": failed(),
    "failed three times": failed(attempts=3),
    "lost, and reported after all": lost(),
    "cancelled": cancelled(),
    "a later attempt waits": claimed_again(failed()),
    "a later attempt runs": at_work(claimed_again(failed())),
    "succeeded at a later attempt": reported(at_work(claimed_again(failed())), succeeded=True),
    "a retry is scheduled": scheduled(failed(), assignee="jane"),
    "a schedule was dropped": scheduled(failed(), outcome="dropped"),
    "finished, written by hand": by_hand(Status.FAILED, error_message="no", finished_at=NOW_MS),
    "running, written by hand": by_hand(Status.RUNNING, started_at=NOW_MS),
}


def resource(execution: Execution, *, is_users: bool = False, has_status: bool = True) -> dict[str, Any]:
    """The object as the API server keeps it: made by the mirror, or by a user who put the task into it."""
    manifest = manifest_from_execution(execution, "default")
    if is_users:
        del manifest["metadata"]["annotations"]
        manifest["spec"]["task"] = task_document()
    status = status_from_execution(execution, POLICY, observed_generation=1, unknown_ms=NOW_MS)
    manifest["metadata"] |= {"uid": "uid-1", "resourceVersion": "7", "creationTimestamp": "2023-11-14T22:13:20Z"}
    manifest["status"] = (
        {key: value for key, value in status.items() if value is not None} if has_status else {"phase": "Pending"}
    )
    return manifest


def rebuilt(body: dict[str, Any], *, now_ms: int = LATER_MS) -> Execution | None:
    return execution_from_resource(
        body, observed_from_body(body), token_prefix="prefix", policy=POLICY, launcher="local", now_ms=now_ms
    )


def found(body: dict[str, Any], *, now_ms: int = LATER_MS) -> Execution:
    execution = rebuilt(body, now_ms=now_ms)
    assert execution is not None
    return execution


@pytest.mark.parametrize("is_users", [False, True], ids=["the mirror's", "a user's"])
@pytest.mark.parametrize("case", STATES)
def test_the_rebuilt_execution_shows_what_was_shown(case: str, is_users: bool) -> None:
    body = resource(STATES[case].with_state(sequence=41), is_users=is_users)
    execution = found(body)
    again = resource(execution, is_users=is_users)["status"]
    told = ("phase", "attempt", "run", "incarnation", "sequence", "workerId", "launcher", "traceId", "schedule")
    assert {name: again.get(name) for name in told} == {name: body["status"].get(name) for name in told}
    unchanging = (
        "attempt",
        "phase",
        "reason",
        "message",
        "errorCode",
        "finishTime",
        "startTime",
        "workerId",
        "evidence",
        "verdict",
    )
    finished = [item for item in body["status"]["attempts"] if item["phase"] not in ("Pending", "Running")]
    assert [{name: item.get(name) for name in unchanging} for item in again["attempts"][: len(finished)]] == [
        {name: item.get(name) for name in unchanging} for item in finished
    ]
    assert [item.get("lateResult") for item in again["attempts"]] == [
        item.get("lateResult") for item in body["status"]["attempts"]
    ]


@pytest.mark.parametrize("case", STATES)
def test_nothing_is_asked_for_a_second_time(case: str) -> None:
    body = resource(STATES[case])
    body["metadata"]["annotations"] |= {"alakai.dev/retry": "1", "alakai.dev/cancel": "old"}
    body["spec"]["assignee"] = "jane"
    link = found(body).state.resource
    assert link.uid == "uid-1"
    assert (link.retry, link.cancel, link.assignee) == ("1", "old", "jane")
    assert found(body).state.cancellation is None


def test_a_users_object_that_submitted_nothing_is_left_to_submit() -> None:
    body = resource(pending(), is_users=True)
    body["status"] = {"phase": "Pending"}
    assert rebuilt(body) is None


def test_what_the_mirror_made_and_never_wrote_to_is_a_first_attempt_that_waits() -> None:
    execution = found(resource(pending(), has_status=False))
    latest = execution.latest
    assert (latest.number, latest.status, latest.claimed_at) == (1, Status.PENDING, NOW_MS)
    assert execution.state.incarnation == "incarnation-1"


def test_a_running_attempt_keeps_its_worker_and_its_token() -> None:
    latest = found(resource(running())).latest
    assert latest.worker_id == "worker-of-task-1"
    assert latest.launch is not None
    assert latest.launch.token == launch_token("prefix", "task-1", "incarnation-1", 1, 1)
    assert plan(found(resource(running())), now_ms=LATER_MS) == ()


@pytest.mark.parametrize("execution", [pending(), intended()], ids=["not launched", "launching"])
def test_a_waiting_attempt_with_its_payload_is_launched_with_the_token_of_before(execution: Execution) -> None:
    following = found(resource(execution, is_users=True))
    assert following.latest.task_snapshot == task_document()
    assert plan(following, now_ms=LATER_MS) == (IntendLaunch(1),)
    # The next launch is number 1 once more, so that one that was sent already is adopted.
    assert following.latest.launch_tries == 0


def test_a_relaunch_goes_on_at_the_try_that_was_shown() -> None:
    assert found(resource(relaunched(), is_users=True)).latest.launch_tries == 0
    twice = relaunched().with_latest(launch_tries=2)
    assert found(resource(twice, is_users=True)).latest.launch_tries == 1


def test_a_launch_from_too_long_ago_is_only_looked_for() -> None:
    now_ms = NOW_MS + REPLAY_LIMIT_MS
    following = found(resource(pending(), is_users=True), now_ms=now_ms)
    (action,) = plan(following, now_ms=now_ms)
    assert isinstance(action, FindWorker)
    assert action.launch.token == launch_token("prefix", "task-1", "incarnation-1", 1, 1)


def test_without_its_payload_a_waiting_attempt_has_a_launch_that_may_have_been() -> None:
    (action,) = plan(found(resource(pending())), now_ms=LATER_MS)
    assert isinstance(action, LaunchWorker)  # which the reconciler looks for, because it has nothing to send
    assert found(resource(pending())).latest.task_snapshot is None


def test_a_suspended_attempt_has_no_launch_and_waits_on() -> None:
    following = found(resource(STATES["suspended"], is_users=True))
    assert (following.state.suspended, following.latest.launch) == (True, None)
    assert plan(following, now_ms=LATER_MS) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"attempts": [{"attempt": 1, "phase": "Dancing"}]},
        {"attempts": [{"phase": "Failed"}]},
        {"attempts": [{"attempt": 0, "phase": "Failed"}]},
        {"attempts": [{"attempt": 1, "phase": "Failed", "finishTime": "yesterday"}]},
        {"attempts": ["Failed"]},
        {"schedule": {"attempt": 2}},
    ],
)
def test_a_status_that_was_written_by_hand_is_named_and_left(change: dict[str, Any]) -> None:
    body = resource(failed())
    body["status"] |= change
    with pytest.raises(ResourceUnreadable, match="task-1"):
        rebuilt(body)


def test_wishes_are_those_that_are_there_now() -> None:
    assert observed_from_body(resource(pending())).wishes == Wishes()
