"""Which word counts when a real worker is stopped, and what Prometheus reads of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.e2e.installation import Installation, Running, message


def log_lines(running: Running) -> Iterator[dict[str, object]]:
    for line in running.log_text().splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def told_port(running: Running, name: str) -> int:
    """A port that a process chose and tells in its log."""
    (port,) = {line[name] for line in log_lines(running) if name in line}
    return int(str(port))


def metrics_of(installation: Installation, running: Running) -> str:
    port = told_port(running, "metrics_port")
    return installation.http.get(f"http://127.0.0.1:{port}/metrics").text


def test_the_true_cause_is_recorded_whoever_stops_a_worker(installation: Installation) -> None:
    controller, api = installation.start_both(ATTEMPT_TIMEOUT_SECONDS="15")
    installation.send(message("by-hand", "hang"), message("too-long", "hang"), message("dies", "die"))
    installation.wait_until(
        lambda: "claimedAt" in installation.record("by-hand").get(1, {}).get("launch", {}), 30, "the worker has begun"
    )
    for worker in installation.workers("by-hand"):
        worker.terminate()
    for task_id in ("by-hand", "dies", "too-long"):
        installation.wait_for(task_id, 1, "failed", 60)

    by_hand, too_long, dies = (installation.record(task_id)[1] for task_id in ("by-hand", "too-long", "dies"))
    assert (by_hand["error_code"], by_hand["errorMessage"]) == (
        "WORKER_STOPPED_EXTERNALLY",
        "stopped by signal SIGTERM",
    )
    assert by_hand["evidence"][0]["source"] == "worker:callback"
    assert too_long["error_code"] == "ATTEMPT_TIMEOUT"
    assert too_long["stop"]["code"] == "ATTEMPT_TIMEOUT"
    assert (dies["error_code"], dies["verdict"]["grade"]) == ("WORKER_LOST", "probable")
    assert dies["verdict"]["refutedBy"] == "a callback of launch 1"

    installation.kubectl("wait", "--for=condition=Finished", "execution/dies", "--timeout=30s")
    shown = installation.resource("dies")
    assert shown is not None
    (attempt,) = shown["status"]["attempts"]
    assert attempt["verdict"]["grade"] == "probable"
    assert "would refute it" in shown["status"]["message"]

    # A lost worker that reports after all changes nothing, is kept, and is counted by the process that it reported to.
    assert installation.complete("dies") == (200, {"recorded": False, "reason": "already_finished"})
    installation.wait_until(lambda: "lateResult" in str(installation.resource("dies")), 30, "the late result is shown")
    assert {**installation.record("dies")[1], "lateResults": None} == {**dies, "lateResults": None}
    judged = metrics_of(installation, controller)
    assert 'alakai_lost_workers_total{code="WORKER_LOST",grade="probable",launcher="local"} 1.0' in judged
    assert 'alakai_launch_tries_total{launcher="local",outcome="launched"} 3.0' in judged
    assert 'alakai_false_losses_total{grade="probable"} 1.0' in metrics_of(installation, api)
