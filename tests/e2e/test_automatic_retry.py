"""Transient failures are retried by themselves: in real time, across restarts, none early, none twice."""

from __future__ import annotations

from typing import Any

import pytest

from executions.moment import ms_from_iso
from tests.e2e.installation import Installation, message

DELAYS = (1.5, 2.5)
SETTINGS = {"RETRY_DELAYS_SECONDS": ",".join(map(str, DELAYS)), "RETRY_JITTER": "0.2", "MAX_RETRIES": "3"}


@pytest.mark.timeout(120)
def test_retries_come_in_their_time_although_controllers_are_killed(installation: Installation) -> None:
    first, _ = installation.start_both(controllers=2, **SETTINGS)
    recovers = [f"recovers-{number}" for number in range(10)]
    never = [f"never-{number}" for number in range(4)]
    installation.send(*(message(task_id, "transient:2") for task_id in recovers))
    installation.send(*(message(task_id, "transient:all") for task_id in never))
    installation.wait_until(lambda: shows(installation, recovers[0], "RetryScheduled"), 30, "a retry is scheduled")
    shown = installation.resource(recovers[0])
    assert shown is not None
    assert shown["status"]["nextRetryTime"] == shown["status"]["schedule"]["dueAt"]
    # What a controller was about to tell when it was killed may be told by nobody: Events are not promised.
    installation.wait_until(lambda: "RetryScheduled" in events_of(installation, never[0]), 30, "an Event tells it")
    first.kill()
    installation.start_controller(**SETTINGS)
    for task_id in recovers:
        installation.wait_for(task_id, 3, "succeeded", 60)
    for task_id in never:
        installation.wait_for(task_id, 3, "failed", 60)

    for task_id in recovers + never:
        record = installation.record(task_id)
        assert sorted(record) == [1, 2, 3]
        assert [record[number].get("automaticRetry") for number in (1, 2, 3)] == [None, 1, 2]
        assert [record[number].get("codexTransientFallbackMode") for number in (1, 2, 3)] == [
            *(None, "same_session", "safer_invocation"),
        ]
        for number, delay in enumerate(DELAYS, start=2):
            waited_ms = at(record[number], "claimedAt") - at(record[number - 1], "finishedAt")
            assert waited_ms >= delay * 800
    installation.wait_until(lambda: not installation.differences(), 30, "everything is shown")
    exhausted = installation.resource(never[0])
    assert exhausted is not None
    assert (exhausted["status"]["phase"], exhausted["status"]["schedule"]["outcome"]) == ("Failed", "exhausted")
    told = events_of(installation, never[0])
    assert "Bounded retry exhausted" in told
    assert told.count("RetryScheduled") == 2
    for task_id in recovers:
        assert [number for number, _ in installation.work_done(task_id)] == [1, 2, 3]


def test_a_scheduled_retry_is_dropped_by_kubectl_and_handed_on_at_once(installation: Installation) -> None:
    installation.start_both(RETRY_DELAYS_SECONDS="600", MAX_RETRIES="1")
    tasks = ("cancelled", "done", "deleted", "reassigned", "by-hand")
    installation.send(*(message(task_id, "transient") for task_id in tasks))
    for task_id in tasks:
        installation.wait_until(lambda task_id=task_id: shows(installation, task_id, "RetryScheduled"), 30, task_id)
    assert "attempt 2 at" in installation.kubectl("get", "execution", "cancelled")
    installation.kubectl("annotate", "execution", "cancelled", "alakai.dev/cancel=not needed")
    installation.kubectl("annotate", "execution", "done", "alakai.dev/done=yes")
    installation.kubectl("delete", "execution", "deleted", "--timeout=30s")
    installation.kubectl("patch", "execution", "reassigned", "--type=merge", "-p", '{"spec":{"assignee":"jane"}}')
    assert installation.retry("by-hand") == (202, {"taskId": "by-hand", "attempt": 2, "status": "queued"})
    installation.wait_for("by-hand", 2, "succeeded")
    installation.wait_for("reassigned", 2, "succeeded")
    for task_id, reason in (("cancelled", "issue_cancelled"), ("done", "issue_done")):
        installation.kubectl("wait", "--for=condition=Finished", f"execution/{task_id}", "--timeout=30s")
        shown = installation.resource(task_id)
        assert shown is not None
        assert (shown["status"]["phase"], shown["status"]["schedule"]["reason"]) == ("Failed", reason)
    assert installation.record("deleted").keys() == {1}
    outcomes = {
        task_id: (installation.resource(task_id) or {})["status"]["schedule"]["outcome"]
        for task_id in ("reassigned", "by-hand")
    }
    assert outcomes == {"reassigned": "dropped", "by-hand": "superseded"}


def events_of(installation: Installation, name: str) -> str:
    return installation.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}")


def shows(installation: Installation, task_id: str, phase: str) -> bool:
    found = installation.resource(task_id)
    return found is not None and found.get("status", {}).get("phase") == phase


def at(attempt: Any, name: str) -> int:
    return ms_from_iso(attempt[name])
