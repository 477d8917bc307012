"""Workers as Kubernetes Jobs, with real controllers, the real Job controller, and kwok's node to run the pods on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.workloads import Workloads
from tests.e2e.installation import Installation, message
from tests.support.kubernetes_world import settings_document
from tests.support.pod_runner import PodRunner


@pytest.fixture
def on_kubernetes(installation: Installation, workloads: Workloads) -> Iterator[dict[str, str]]:
    """Settings of processes whose workers are Jobs, and what plays their pods."""
    path = installation.folder / "launcher.yaml"
    path.write_text(json.dumps(settings_document()))
    settings = {
        "LAUNCHER": "kubernetes",
        "KUBERNETES_LAUNCHER_FILE": str(path),
        "SWEEP_INTERVAL_SECONDS": "5",  # what changes is heard of by the watch
        "START_TIMEOUT_SECONDS": "8",
    }
    with PodRunner(installation.kube, installation.namespace, installation.worker_logs):
        yield settings


def jobs(installation: Installation, task_id: str) -> list[dict[str, Any]]:
    found = installation.kubectl("get", "jobs", "-l", f"alakai.dev/execution={task_id}", "-o", "json")
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


@pytest.mark.timeout(180)
def test_workers_are_jobs_from_the_message_to_the_verdict(
    installation: Installation, on_kubernetes: dict[str, str]
) -> None:
    installation.start_both(**on_kubernetes)
    installation.send(
        message("works", "succeed"),
        message("fails", "fail"),
        message("dies", "die"),
        message("hangs", "hang:all"),
        message("taken", "hang"),
        message("deleted", "hang:all"),
    )
    installation.wait_for("works", 1, "succeeded")
    (job,) = jobs(installation, "works")
    owner, resource = job["metadata"]["ownerReferences"][0], installation.resource("works")
    assert resource is not None
    assert (owner["kind"], owner["uid"]) == ("WorkerExecution", resource["metadata"]["uid"])
    assert job["metadata"]["name"] in resource["status"]["attempts"][0]["workerId"]

    installation.wait_for("fails", 1, "failed")
    assert installation.retry("fails")[0] == 202
    installation.wait_for("fails", 2, "succeeded")
    assert len(jobs(installation, "fails")) == 2

    installation.wait_for("dies", 1, "failed")
    assert installation.record("dies")[1]["error_code"] == "WORKER_FAILED"
    assert "exit code 1" in installation.record("dies")[1]["errorMessage"]

    installation.wait_for("hangs", 1, "running")
    installation.kubectl("annotate", "execution", "hangs", "alakai.dev/cancel=no longer wanted")
    installation.wait_for("hangs", 1, "cancelled")
    installation.wait_until(lambda: not jobs(installation, "hangs"), 30, "its Job is gone with its pod")

    # Kubernetes takes the pod away: another launch of the same attempt, which spends no retry.
    installation.wait_for("taken", 1, "running")
    (pod,) = json.loads(installation.kubectl("get", "pods", "-l", "alakai.dev/execution=taken", "-o", "json"))["items"]
    disruption = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "taint"}
    patch = {"status": {"phase": "Failed", "conditions": [disruption]}}
    installation.kubectl(
        "patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", f"--patch={json.dumps(patch)}"
    )
    installation.wait_until(lambda: len(jobs(installation, "taken")) == 2, 30, "it is launched again")
    assert installation.status("taken") == (1, "running")

    # Deleting the execution stops its worker before the execution goes.
    installation.wait_for("deleted", 1, "running")
    installation.kubectl("delete", "execution", "deleted", "--timeout=60s")
    assert installation.status("deleted") == (1, "cancelled")
    installation.wait_until(lambda: not jobs(installation, "deleted"), 30, "its Job is gone with its pod")


@pytest.mark.timeout(180)
def test_a_controller_that_is_killed_leaves_each_launch_with_one_job(
    installation: Installation, on_kubernetes: dict[str, str]
) -> None:
    controller, _ = installation.start_both(**on_kubernetes)
    tasks = [f"task-{number}" for number in range(8)]
    installation.send(*(message(task_id, "slow", seconds=4) for task_id in tasks))
    installation.wait_until(lambda: any(jobs(installation, task_id) for task_id in tasks), 30, "a Job is there")
    controller.kill()
    installation.start_controller(**on_kubernetes)
    for task_id in tasks:
        installation.wait_for(task_id, 1, "succeeded", 90)
        assert len(jobs(installation, task_id)) == 1
        assert [final for _, final in installation.work_done(task_id)] == ["completed"]


@pytest.mark.timeout(180)
def test_a_pod_that_gets_no_node_is_launched_again_until_the_tries_are_spent(
    installation: Installation, on_kubernetes: dict[str, str]
) -> None:
    (installation.folder / "launcher.yaml").write_text(json.dumps(settings_document({"nodeName": None})))
    installation.start_both(**{**on_kubernetes, "START_TIMEOUT_SECONDS": "2", "MAX_LAUNCH_TRIES": "2"})
    installation.send(message("nowhere", "succeed"))
    installation.wait_for("nowhere", 1, "failed", 60)
    attempt = installation.record("nowhere")[1]
    assert (attempt["error_code"], attempt["launchTries"]) == ("START_TIMEOUT", 2)
    assert jobs(installation, "nowhere") == []
