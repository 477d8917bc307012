"""Slots and the hold with real processes: who waits says why, waits in Redis and not in the queue, and starts."""

from __future__ import annotations

import re
import threading
import time

import psutil
import pytest

from controller.loops.polling import WAIT_SECONDS
from tests.e2e.installation import Installation, message


class Peak:
    """The most workers that were ever alive at once, looked at beside the test."""

    def __init__(self, installation: Installation) -> None:
        self.most = 0
        self._installation = installation
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> int:
        self._done.set()
        self._thread.join(10)
        return self.most

    def _look(self) -> None:
        while not self._done.is_set():
            found = [self._task_of(worker) for worker in self._installation.workers()]
            # One that has reported holds no slot any more, and takes a moment to end. Asked after they were listed.
            live = [(1, "pending"), (1, "running")]
            at_work = [name for name in found if name and self._installation.status(name) in live]
            self.most = max(self.most, len(at_work))
            time.sleep(0.05)

    def _task_of(self, worker: psutil.Process) -> str | None:
        try:
            return worker.environ().get("ALAKAI_TASK_ID")
        except psutil.Error:
            return None


@pytest.mark.timeout(180)
def test_no_more_workers_than_slots_and_everything_starts_in_its_turn(installation: Installation) -> None:
    controller, _ = installation.start_both(SLOTS_TOTAL="3", SLOTS_PER_TYPE="digest=1")
    peak = Peak(installation)
    bodies = [message(f"impl-{number:02}", "slow", seconds=0.5) for number in range(12)]
    bodies += [{**message(f"digest-{number}", "slow", seconds=0.5), "taskType": "digest"} for number in range(4)]
    installation.send(*bodies)
    installation.wait_until(lambda: len(installation.records()) == len(bodies), 30, "all are claimed")
    # They wait in Redis, where nobody counts receives.
    installation.wait_until(lambda: installation.queued() == 0, 30, "the queue is empty")
    told = installation.wait_until(
        lambda: [
            item["message"] for item in installation.statuses().values() if item.get("reason") == "SlotUnavailable"
        ],
        30,
        "somebody is shown to wait for a slot",
    )
    assert all("slots" in text for text in told)
    # In the middle of it the controller dies.
    controller.kill()
    installation.start_controller(SLOTS_TOTAL="3", SLOTS_PER_TYPE="digest=1")
    installation.wait_until(
        lambda: {status for _, status in installation.records().values()} == {"succeeded"}, 120, "all succeed"
    )
    assert 1 <= peak.end() <= 3
    standing = installation.redis.keys(f"{installation.prefix}/slots:*") + installation.redis.keys(
        f"{installation.prefix}/line:*"
    )
    assert standing == []


@pytest.mark.timeout(120)
def test_explain_says_who_holds_what(installation: Installation) -> None:
    installation.start_both(LOCAL_WORKER="manual", SLOTS_TOTAL="1")
    installation.send(message("runs"))
    installation.wait_for("runs", 1, "running")
    installation.send(message("waits"))
    installation.wait_for("waits", 1, "pending")
    said = installation.wait_until(
        lambda: text if "SlotUnavailable" in (text := explained(installation, "waits")) else None, 30, "it is explained"
    )
    assert re.search(r"^waits +Pending, attempt 1, run 1$", said, re.MULTILINE)
    assert re.search(r"^slots +1 of 1 slots in all are held \(implementation 1\)$", said, re.MULTILINE)
    assert re.search(r"^held by +runs$", said, re.MULTILINE)
    assert re.search(r"^next +launch, once a slot is free$", said, re.MULTILINE)
    assert installation.complete("runs", error="no luck")[0] == 200
    installation.wait_for("waits", 1, "running")
    assert "WorkerFailed: no luck" in explained(installation, "runs")
    nothing = installation.run_alakai("explain", "nobody")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "no record of nobody" in nothing.stderr


def explained(installation: Installation, task_id: str) -> str:
    return installation.run_alakai("explain", task_id, SLOTS_TOTAL="1").stdout


@pytest.mark.timeout(120)
def test_a_hold_stops_intake_and_launches_and_nothing_else(installation: Installation) -> None:
    installation.start_both(LOCAL_WORKER="manual")
    installation.send(message("runs"))
    installation.wait_for("runs", 1, "running")
    installation.kubectl("create", "-f", "-", stdin=suspended("waits"))
    installation.wait_for("waits", 1, "pending")
    held = installation.alakai("hold", "--reason", "provider is down", "--by", "jane")
    assert held["on hold by jane"] == "provider is down"
    time.sleep(WAIT_SECONDS + 1)  # a poll that began before the hold may still bring something
    installation.send(message("sent-during-the-hold"))
    installation.kubectl("patch", "execution", "waits", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    installation.wait_until(
        lambda: installation.statuses()["waits"].get("reason") == "Held",
        30,
        "it is shown to wait for the end of the hold",
    )
    assert installation.statuses()["waits"]["message"] == "on hold by jane: provider is down"
    # Callbacks and cancels go on.
    assert installation.complete("runs")[0] == 200
    installation.wait_for("runs", 1, "succeeded")
    time.sleep(2)
    assert installation.status("waits") == (1, "pending")
    assert installation.record("sent-during-the-hold") == {}
    installation.alakai_says("resume")
    installation.wait_for("waits", 1, "running")
    installation.wait_for("sent-during-the-hold", 1, "running")


def suspended(name: str) -> str:
    return f"""
apiVersion: alakai.dev/v1alpha1
kind: WorkerExecution
metadata: {{name: {name}}}
spec: {{taskType: implementation, suspend: true}}
"""
