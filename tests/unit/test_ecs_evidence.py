"""What each answer of DescribeTasks says: a table over the fields of ``Task`` and ``Container`` in the API model."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore
import pytest

from executions.ecs_evidence import (
    OUR_STOP,
    SOURCE,
    Finding,
    finding_from_task,
    observation_from_task,
    observation_of_failure,
)
from executions.evidence import WorkerState
from executions.names import OUR_ERROR_CODES

ARN = "arn:aws:ecs:eu-west-1:000000000000:task/workers/0123456789abcdef0123456789abcdef"
AT = datetime(2026, 1, 2, tzinfo=UTC)

# Fragments of tasks


def worker(exit_code: int | None = None, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"name": "worker", "lastStatus": "STOPPED", "runtimeId": "abc-1", **fields}
    told |= {} if exit_code is None else {"exitCode": exit_code}
    return told | ({} if reason is None else {"reason": reason})


NOT_MADE = {"name": "worker", "lastStatus": "PENDING"}
"""A container that the agent never created."""
LAUNCHED = {
    "containerOverrides": [
        {"name": "worker", "environment": [{"name": "ALAKAI_TASK_ID", "value": "task-1"}]},
        {"name": "log-router"},
    ]
}


def task(**fields: Any) -> dict[str, Any]:
    """A task that ran; fields of None are left out, as boto3 leaves them out."""
    told = {
        "taskArn": ARN,
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "createdAt": AT,
        "startedAt": AT,
        "stoppedAt": AT,
        "overrides": LAUNCHED,
        "containers": [worker(1)],
        "version": 6,
        **fields,
    }
    return {name: value for name, value in told.items() if value is not None}


def ended(*containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return task(
        stopCode="EssentialContainerExited",
        stoppedReason="Essential container in task exited",
        containers=list(containers),
        **fields,
    )


def unstarted(reason: str | None, *containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A task that ECS could not start; with ``reason`` in the container as well when there is one."""
    return task(
        **{
            "stopCode": "TaskFailedToStart",
            "stoppedReason": reason,
            "startedAt": None,
            "containers": list(containers),
            **fields,
        }
    )


def taken(stop_code: str, *containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return task(stopCode=stop_code, stoppedReason="the platform says why", containers=list(containers), **fields)


ECR = "CannotPullContainerError: pull image manifest has been retried 5 time(s): "

# fmt: off
STOPPED = {
    # The worker's own end
    "exit code 1": (ended(worker(1)), "WORKER_FAILED", False),
    "exit code 143, though nobody stopped the task": (ended(worker(143)), "WORKER_FAILED", False),
    "exit code 139, a crash": (ended(worker(139)), "WORKER_FAILED", False),
    "exit code 0 and no callback is no success": (ended(worker(0)), "COMPLETED_UNREPORTED", False),
    "exit code 137 is the kernel's memory killer": (ended(worker(137)), "WORKER_OOM", False),
    "dagster#17448: memory told in the container's reason": (
        ended(worker(1, "OutOfMemoryError: Container killed due to memory usage")), "WORKER_OOM", False),
    "memory told without an exit code": (ended(worker(None, "OutOfMemoryError: killed")), "WORKER_OOM", False),
    "memory told in the task's reason only": (
        task(stopCode="EssentialContainerExited", stoppedReason="OutOfMemory", containers=[worker(1)]),
        "WORKER_OOM", False),
    "ended without an exit code": (ended(worker()), "WORKER_LOST", False),
    "ended before the task was RUNNING, but it did run": (ended(worker(2), startedAt=None), "WORKER_FAILED", False),
    "ended, no exit code, never RUNNING: a contradiction proves nothing": (
        ended(NOT_MADE, startedAt=None), "WORKER_LOST", False),
    # Whose exit code
    "a sidecar that was killed along is not the worker": (
        ended(worker(1), worker(137, name="log-router")), "WORKER_FAILED", False),
    "the worker ended well, its sidecar badly": (
        ended(worker(1, name="log-router"), worker(0)), "COMPLETED_UNREPORTED", False),
    "a sidecar ran out of memory, the worker did not": (
        ended(worker(143), worker(137, "OutOfMemoryError", name="log-router")), "WORKER_FAILED", False),
    "no overrides, one container": (ended(worker(3), overrides=None), "WORKER_FAILED", False),
    "no overrides, several containers: the one that failed": (
        ended(worker(0, name="a"), worker(5, name="b"), overrides={}), "WORKER_FAILED", False),
    "no overrides, several containers that ended well": (
        ended(worker(0, name="a"), worker(0, name="b"), overrides={"containerOverrides": []}),
        "COMPLETED_UNREPORTED", False),
    "the overridden container is not in the answer": (ended(worker(1, name="other")), "WORKER_LOST", False),
    # Taken away
    "Spot": (taken("SpotInterruption", worker(137)), "WORKER_PREEMPTED", False),
    "Spot, without exit codes": (taken("SpotInterruption", worker()), "WORKER_PREEMPTED", False),
    "Spot notice": (taken("TerminationNotice", worker(143)), "WORKER_PREEMPTED", False),
    "a bad host": (taken("InfrastructureHealth", worker()), "WORKER_PREEMPTED", False),
    "Spot, before anything was made": (taken("SpotInterruption", NOT_MADE, startedAt=None), "WORKER_PREEMPTED", True),
    "Spot, made but not RUNNING: it may have worked": (
        taken("SpotInterruption", worker(), startedAt=None), "WORKER_PREEMPTED", False),
    "a bad host, before there were containers": (
        taken("InfrastructureHealth", startedAt=None), "WORKER_PREEMPTED", True),
    # Stopped by somebody
    "by us": (task(stopCode="UserInitiated", stoppedReason=f"{OUR_STOP}cancelled by dev@example.com"), None, False),
    "by us, before it began": (
        task(stopCode="UserInitiated", stoppedReason=f"{OUR_STOP}too late", startedAt=None, containers=[NOT_MADE]),
        None, True),
    "by us, killed because it did not stop": (
        task(stopCode="UserInitiated", stoppedReason=f"{OUR_STOP}cancelled", containers=[worker(137)]), None, False),
    "by somebody in the console": (
        task(stopCode="UserInitiated", stoppedReason="Task stopped by user"), "WORKER_STOPPED_EXTERNALLY", False),
    "by somebody, killed: not a lack of memory": (
        task(stopCode="UserInitiated", stoppedReason="Task stopped by user", containers=[worker(137)]),
        "WORKER_STOPPED_EXTERNALLY", False),
    "by somebody without a reason": (task(stopCode="UserInitiated"), "WORKER_STOPPED_EXTERNALLY", False),
    "by somebody, before it began": (
        task(stopCode="UserInitiated", stoppedReason="no", startedAt=None, containers=[NOT_MADE]),
        "WORKER_STOPPED_EXTERNALLY", True),
    "somebody who only quotes us": (
        task(stopCode="UserInitiated", stoppedReason=f"see {OUR_STOP}cancelled"), "WORKER_STOPPED_EXTERNALLY", False),
    "by a service's scheduler": (taken("ServiceSchedulerInitiated", worker(143)), "WORKER_STOPPED_EXTERNALLY", False),
    # Never started
    "prefect#22410: failed to start without containers": (
        unstarted("Timeout waiting for network interface provisioning to complete."), "WORKER_NEVER_STARTED", True),
    "failed to start, no word why": (unstarted(None, NOT_MADE), "WORKER_NEVER_STARTED", True),
    "no capacity came in time": (
        unstarted("Unexpected EC2 error while attempting to Create Network Interface", NOT_MADE),
        "WORKER_NEVER_STARTED", True),
    "secrets could not be fetched": (
        unstarted("ResourceInitializationError: unable to pull secrets: access denied", NOT_MADE),
        "WORKER_NEVER_STARTED", True),
    "the container was made and could not be started": (
        unstarted("Task failed to start", worker(None, "CannotStartContainerError: exec: not found in $PATH")),
        "WORKER_NEVER_STARTED", True),
    "failed to start, but the worker has an exit code": (unstarted("no", worker(1)), "WORKER_FAILED", False),
    "failed to start, but it was RUNNING": (unstarted("no", worker(), startedAt=AT), "WORKER_LOST", False),
    "failed to start after another container had run": (
        unstarted("no", NOT_MADE, worker(0, name="log-router")), "WORKER_NEVER_STARTED", True),
    "failed to start, a container ran, and which is the worker is not said": (
        unstarted("no", NOT_MADE, worker(2, name="log-router"), overrides=None), "WORKER_FAILED", False),
    "Spot came when only another container had been made": (
        taken("SpotInterruption", NOT_MADE, worker(name="log-router"), startedAt=None), "WORKER_PREEMPTED", True),
    # Images
    "no such tag": (unstarted(f"{ECR}worker:9: not found", NOT_MADE), "IMAGE_ERROR", True),
    "no such tag, told in the container": (
        unstarted("Task failed to start", {**NOT_MADE, "reason": "CannotPullContainerError: manifest unknown"}),
        "IMAGE_ERROR", True),
    "no such repository": (unstarted(f"{ECR}repository does not exist", NOT_MADE), "IMAGE_ERROR", True),
    "pull denied": (unstarted(f"{ECR}pull access denied, 403 Forbidden", NOT_MADE), "IMAGE_ERROR", True),
    "pull unauthorised": (unstarted(f"{ECR}401 Unauthorized", NOT_MADE), "IMAGE_ERROR", True),
    "wrong processor": (
        unstarted("CannotPullContainerError: image Manifest does not contain descriptor matching platform 'arm64'"),
        "IMAGE_ERROR", True),
    "registry too slow": (unstarted(f"{ECR}dial tcp: i/o timeout", NOT_MADE), "WORKER_NEVER_STARTED", True),
    "registry too busy": (unstarted(f"{ECR}429 toomanyrequests", NOT_MADE), "WORKER_NEVER_STARTED", True),
    "registry down": (unstarted(f"{ECR}503 Service Unavailable", NOT_MADE), "WORKER_NEVER_STARTED", True),
    "a name server that is away looks like not found": (
        unstarted(f"{ECR}lookup registry: no such host, not found", NOT_MADE), "WORKER_NEVER_STARTED", True),
    "a pull that failed for a reason we do not know": (unstarted(f"{ECR}hm", NOT_MADE), "WORKER_NEVER_STARTED", True),
    # Codes to come, and none
    "an unknown stop code with an exit code": (taken("SolarFlare", worker(1)), "WORKER_FAILED", False),
    "an unknown stop code, nothing known": (taken("SolarFlare", worker()), "WORKER_LOST", False),
    "an unknown stop code proves no failed start": (
        taken("SolarFlare", NOT_MADE, startedAt=None), "WORKER_LOST", False),
    "no stop code": (task(containers=[worker()]), "WORKER_LOST", False),
    "no stop code, never RUNNING, no containers": (task(startedAt=None, containers=None), "WORKER_LOST", False),
    "nothing but the status": ({"lastStatus": "STOPPED"}, "WORKER_LOST", False),
    "DELETED is over too": (ended(worker(1), lastStatus="DELETED"), "WORKER_FAILED", False),
}
# fmt: on


@pytest.mark.parametrize(("told", "code", "never_started"), STOPPED.values(), ids=STOPPED)
def test_what_a_stopped_task_died_of(told: dict[str, Any], code: str | None, never_started: bool) -> None:
    assert finding_from_task(told) == Finding(code, never_started)
    assert code is None or code in OUR_ERROR_CODES
    observation = observation_from_task(told, ARN)
    assert (observation.worker_id, observation.source) == (ARN, SOURCE)
    assert (observation.state, observation.never_started) == (WorkerState.STOPPED, never_started)
    assert observation.detail.startswith(f"{code}: " if code else "STOPPED")
    # Proof that it never ran and an exit code of it exclude each other.
    assert not (observation.never_started and observation.exit_code is not None)


@pytest.mark.parametrize(
    ("told", "state", "said"),
    [
        ({"lastStatus": "PROVISIONING"}, WorkerState.STARTING, "PROVISIONING"),
        ({"lastStatus": "PENDING"}, WorkerState.STARTING, "PENDING"),
        ({"lastStatus": "ACTIVATING"}, WorkerState.STARTING, "ACTIVATING"),
        ({"lastStatus": "PENDING", "desiredStatus": "STOPPED"}, WorkerState.STARTING, "PENDING, is to stop"),
        ({"lastStatus": "RUNNING", "desiredStatus": "RUNNING"}, WorkerState.RUNNING, "RUNNING"),
        # A Spot notice comes two minutes ahead: the worker still runs and may still report.
        (
            {"lastStatus": "RUNNING", "desiredStatus": "STOPPED", "stopCode": "TerminationNotice"},
            WorkerState.RUNNING,
            "RUNNING, is to stop, TerminationNotice",
        ),
        # aws/containers-roadmap#2040: agents reconnect several times an hour.
        (
            {"lastStatus": "RUNNING", "connectivity": "DISCONNECTED"},
            WorkerState.RUNNING,
            "RUNNING, its agent is disconnected, which proves nothing",
        ),
        ({"lastStatus": "RUNNING", "connectivity": "CONNECTED", "healthStatus": "UNHEALTHY"}, WorkerState.RUNNING, ""),
        ({"lastStatus": "DEACTIVATING"}, WorkerState.RUNNING, "DEACTIVATING"),
        ({"lastStatus": "STOPPING", "stopCode": "UserInitiated"}, WorkerState.RUNNING, "STOPPING, UserInitiated"),
        ({"lastStatus": "DEPROVISIONING", "containers": [worker(1)]}, WorkerState.RUNNING, "exit code 1"),
        ({"lastStatus": "HIBERNATING"}, WorkerState.RUNNING, "HIBERNATING"),
        ({}, WorkerState.RUNNING, "no status"),
        ({"lastStatus": "RUNNING", "capacityProviderName": "FARGATE_SPOT"}, WorkerState.RUNNING, "on FARGATE_SPOT"),
    ],
)
def test_a_task_that_is_not_stopped_is_present(told: dict[str, Any], state: WorkerState, said: str) -> None:
    observation = observation_from_task(told, ARN)
    assert (observation.state, observation.never_started) == (state, False)
    assert said in observation.detail


def test_the_detail_tells_a_person_everything_once() -> None:
    told = ended(
        worker(137, "OutOfMemoryError: Container killed due to memory usage"), capacityProviderName="FARGATE_SPOT"
    )
    observation = observation_from_task(told, ARN)
    assert observation.exit_code == 137
    assert observation.detail == (
        "WORKER_OOM: STOPPED, EssentialContainerExited, Essential container in task exited, exit code 137, "
        "worker: OutOfMemoryError: Container killed due to memory usage, on FARGATE_SPOT, version 6"
    )


def test_the_detail_holds_no_line_break_and_no_end_without_one() -> None:
    observation = observation_from_task(task(stoppedReason="a\nb\x1b[31m" + "x" * 5000), ARN)
    assert observation.detail.isprintable()
    assert len(observation.detail) <= 512


@pytest.mark.parametrize("reason", ["MISSING", "ACCESS_DENIED", "", None])
def test_only_missing_is_a_look(reason: str | None) -> None:
    observation = observation_of_failure({"arn": ARN, "reason": reason}, ARN)
    assert (observation is not None) == (reason == "MISSING")
    if observation is not None:
        assert (observation.state, observation.never_started) == (WorkerState.MISSING, False)


def test_every_stop_code_of_the_api_model_is_in_the_table() -> None:
    """A new version of botocore with a new stop code ends here, so that somebody reads what it means."""
    path = Path(botocore.__file__).parent / "data/ecs/2014-11-13/service-2.json.gz"
    model = json.loads(gzip.decompress(path.read_bytes()))
    codes = set(model["shapes"]["TaskStopCode"]["enum"])
    assert codes <= {told.get("stopCode") for told, _, _ in STOPPED.values()}
    read = {"lastStatus", "desiredStatus", "stopCode", "stoppedReason", "startedAt", "containers", "overrides"}
    assert read | {"connectivity", "capacityProviderName", "version"} <= set(model["shapes"]["Task"]["members"])
    assert {"name", "exitCode", "reason", "runtimeId"} <= set(model["shapes"]["Container"]["members"])
