"""What each answer of DescribeTasks says: a table over the fields of ``Task`` and ``Container`` in the API model."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from executions.evidence import OWN_STOP, Fate, Observation, Verdict, WorkerState, judge
from executions.names import OUR_ERROR_CODES
from executions.record import Grade
from tests.support.builders import NOW_MS, POLICY, running

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


@dataclass(frozen=True)
class Says:
    """What is found, and the verdict that two such looks, a grace apart, lead to."""

    found: str
    never_started: bool
    fate: Fate
    grade: Grade
    code: str


def _lost(found: str, grade: Grade = Grade.CONFIRMED, code: str | None = None) -> Says:
    return Says(found, False, Fate.LOST, grade, code or found)


def _unstarted(found: str, code: str | None = None, fate: Fate = Fate.NEVER_STARTED) -> Says:
    return Says(found, True, fate, Grade.CONFIRMED, code or found)


FAILED = _lost("WORKER_FAILED")
UNREPORTED = _lost("COMPLETED_UNREPORTED")
OOM = _lost("WORKER_OOM")
UNEXPLAINED = _lost("WORKER_LOST", Grade.PROBABLE)
STOPPED_BY_OTHERS = _lost("WORKER_STOPPED_EXTERNALLY")
OURS = _lost(OWN_STOP, code="WORKER_STOPPED_EXTERNALLY")
"""Of a stop of ours the record knows why; these records do not."""
TAKEN = Says("WORKER_PREEMPTED", False, Fate.PREEMPTED, Grade.CONFIRMED, "WORKER_PREEMPTED")
TAKEN_EARLY = _unstarted("WORKER_PREEMPTED", fate=Fate.PREEMPTED)
OURS_EARLY = _unstarted(OWN_STOP, code="WORKER_NEVER_STARTED")
STOPPED_EARLY = _unstarted("WORKER_STOPPED_EXTERNALLY")
UNSTARTED = _unstarted("WORKER_NEVER_STARTED")
NO_IMAGE = _unstarted("IMAGE_ERROR")

# fmt: off
STOPPED = {
    # The worker's own end
    "exit code 1": (ended(worker(1)), FAILED),
    "exit code 143, though nobody stopped the task": (ended(worker(143)), FAILED),
    "exit code 139, a crash": (ended(worker(139)), FAILED),
    "exit code 0 and no callback is no success": (ended(worker(0)), UNREPORTED),
    "exit code 137 is the kernel's memory killer": (ended(worker(137)), OOM),
    "dagster#17448: memory told in the container's reason": (
        ended(worker(1, "OutOfMemoryError: Container killed due to memory usage")), OOM),
    "memory told without an exit code": (ended(worker(None, "OutOfMemoryError: killed")), OOM),
    "memory told in the task's reason only": (
        task(stopCode="EssentialContainerExited", stoppedReason="OutOfMemory", containers=[worker(1)]),
        OOM),
    "ended without an exit code": (ended(worker()), UNEXPLAINED),
    "ended before the task was RUNNING, but it did run": (ended(worker(2), startedAt=None), FAILED),
    "ended, no exit code, never RUNNING: a contradiction proves nothing": (
        ended(NOT_MADE, startedAt=None), UNEXPLAINED),
    # Whose exit code
    "a sidecar that was killed along is not the worker": (
        ended(worker(1), worker(137, name="log-router")), FAILED),
    "the worker ended well, its sidecar badly": (
        ended(worker(1, name="log-router"), worker(0)), UNREPORTED),
    "a sidecar ran out of memory, the worker did not": (
        ended(worker(143), worker(137, "OutOfMemoryError", name="log-router")), FAILED),
    "no overrides, one container": (ended(worker(3), overrides=None), FAILED),
    "no overrides, several containers: the one that failed": (
        ended(worker(0, name="a"), worker(5, name="b"), overrides={}), FAILED),
    "no overrides, several containers that ended well": (
        ended(worker(0, name="a"), worker(0, name="b"), overrides={"containerOverrides": []}),
        UNREPORTED),
    "the overridden container is not in the answer": (ended(worker(1, name="other")), UNEXPLAINED),
    # Taken away
    "Spot": (taken("SpotInterruption", worker(137)), TAKEN),
    "Spot, without exit codes": (taken("SpotInterruption", worker()), TAKEN),
    "Spot notice": (taken("TerminationNotice", worker(143)), TAKEN),
    "a bad host": (taken("InfrastructureHealth", worker()), TAKEN),
    "Spot, before anything was made": (taken("SpotInterruption", NOT_MADE, startedAt=None), TAKEN_EARLY),
    "Spot, made but not RUNNING: it may have worked": (
        taken("SpotInterruption", worker(), startedAt=None), TAKEN),
    "a bad host, before there were containers": (
        taken("InfrastructureHealth", startedAt=None), TAKEN_EARLY),
    # Stopped by somebody
    "by us": (task(stopCode="UserInitiated", stoppedReason=f"{OUR_STOP}cancelled by dev@example.com"), OURS),
    "by us, before it began": (
        task(stopCode="UserInitiated", stoppedReason=f"{OUR_STOP}too late", startedAt=None, containers=[NOT_MADE]),
        OURS_EARLY),
    "by us, killed because it did not stop": (
        task(stopCode="UserInitiated", stoppedReason=f"{OUR_STOP}cancelled", containers=[worker(137)]), OURS),
    "by somebody in the console": (
        task(stopCode="UserInitiated", stoppedReason="Task stopped by user"), STOPPED_BY_OTHERS),
    "by somebody, killed: not a lack of memory": (
        task(stopCode="UserInitiated", stoppedReason="Task stopped by user", containers=[worker(137)]),
        STOPPED_BY_OTHERS),
    "by somebody without a reason": (task(stopCode="UserInitiated"), STOPPED_BY_OTHERS),
    "by somebody, before it began": (
        task(stopCode="UserInitiated", stoppedReason="no", startedAt=None, containers=[NOT_MADE]),
        STOPPED_EARLY),
    "somebody who only quotes us": (
        task(stopCode="UserInitiated", stoppedReason=f"see {OUR_STOP}cancelled"), STOPPED_BY_OTHERS),
    "by a service's scheduler": (taken("ServiceSchedulerInitiated", worker(143)), STOPPED_BY_OTHERS),
    # Never started
    "prefect#22410: failed to start without containers": (
        unstarted("Timeout waiting for network interface provisioning to complete."), UNSTARTED),
    "failed to start, no word why": (unstarted(None, NOT_MADE), UNSTARTED),
    "no capacity came in time": (
        unstarted("Unexpected EC2 error while attempting to Create Network Interface", NOT_MADE),
        UNSTARTED),
    "secrets could not be fetched": (
        unstarted("ResourceInitializationError: unable to pull secrets: access denied", NOT_MADE),
        UNSTARTED),
    "the container was made and could not be started": (
        unstarted("Task failed to start", worker(None, "CannotStartContainerError: exec: not found in $PATH")),
        UNSTARTED),
    "failed to start, but the worker has an exit code": (unstarted("no", worker(1)), FAILED),
    "failed to start, but it was RUNNING": (unstarted("no", worker(), startedAt=AT), UNEXPLAINED),
    "failed to start after another container had run": (
        unstarted("no", NOT_MADE, worker(0, name="log-router")), UNSTARTED),
    "failed to start, a container ran, and which is the worker is not said": (
        unstarted("no", NOT_MADE, worker(2, name="log-router"), overrides=None), FAILED),
    "Spot came when only another container had been made": (
        taken("SpotInterruption", NOT_MADE, worker(name="log-router"), startedAt=None), TAKEN_EARLY),
    # Images
    "no such tag": (unstarted(f"{ECR}worker:9: not found", NOT_MADE), NO_IMAGE),
    "no such tag, told in the container": (
        unstarted("Task failed to start", {**NOT_MADE, "reason": "CannotPullContainerError: manifest unknown"}),
        NO_IMAGE),
    "no such repository": (unstarted(f"{ECR}repository does not exist", NOT_MADE), NO_IMAGE),
    "pull denied": (unstarted(f"{ECR}pull access denied, 403 Forbidden", NOT_MADE), NO_IMAGE),
    "pull unauthorised": (unstarted(f"{ECR}401 Unauthorized", NOT_MADE), NO_IMAGE),
    "wrong processor": (
        unstarted("CannotPullContainerError: image Manifest does not contain descriptor matching platform 'arm64'"),
        NO_IMAGE),
    "registry too slow": (unstarted(f"{ECR}dial tcp: i/o timeout", NOT_MADE), UNSTARTED),
    "registry too busy": (unstarted(f"{ECR}429 toomanyrequests", NOT_MADE), UNSTARTED),
    "registry down": (unstarted(f"{ECR}503 Service Unavailable", NOT_MADE), UNSTARTED),
    "a name server that is away looks like not found": (
        unstarted(f"{ECR}lookup registry: no such host, not found", NOT_MADE), UNSTARTED),
    "a pull that failed for a reason we do not know": (unstarted(f"{ECR}hm", NOT_MADE), UNSTARTED),
    # Codes to come, and none
    "an unknown stop code with an exit code": (taken("SolarFlare", worker(1)), FAILED),
    "an unknown stop code, nothing known": (taken("SolarFlare", worker()), UNEXPLAINED),
    "an unknown stop code proves no failed start": (
        taken("SolarFlare", NOT_MADE, startedAt=None), UNEXPLAINED),
    "no stop code": (task(containers=[worker()]), UNEXPLAINED),
    "no stop code, never RUNNING, no containers": (task(startedAt=None, containers=None), UNEXPLAINED),
    "nothing but the status": ({"lastStatus": "STOPPED"}, UNEXPLAINED),
    "DELETED is over too": (ended(worker(1), lastStatus="DELETED"), FAILED),
    # More of the same enumeration, and fields that are missing
    "a service's scheduler, before it began": (
        taken("ServiceSchedulerInitiated", NOT_MADE, startedAt=None), STOPPED_EARLY),
    "a bad host, with an exit code": (taken("InfrastructureHealth", worker(137)), TAKEN),
    "Spot notice, before anything was made": (taken("TerminationNotice", startedAt=None), TAKEN_EARLY),
    "exit code 255": (ended(worker(255)), FAILED),
    "exit code -1 of a platform that counts so": (ended(worker(-1)), FAILED),
    "an exit code that is no number": (ended(worker(reason="x", exitCode="1")), UNEXPLAINED),
    "a worker of the SDK that could not deliver its outcome (75)": (ended(worker(75)), FAILED),
    "the agent lost the container": (
        ended(worker(None, "DockerStateError: no such container")), UNEXPLAINED),
    "by us, memory told as well": (
        task(stopCode="UserInitiated", stoppedReason=f"{OUR_STOP}late", containers=[worker(137, "OutOfMemoryError")]),
        OURS),
    "no version, no times": (ended(worker(1), version=None, stoppedAt=None, createdAt=None), FAILED),
    "containers without a name": (ended({"exitCode": 3}, overrides=None), FAILED),
    "secrets that a container cannot get at": (
        unstarted("ResourceInitializationError: unable to pull secrets or registry auth: timed out", NOT_MADE),
        UNSTARTED),
    "no space left for the image: another host may have some": (
        unstarted(f"{ECR}write /var/lib: no space left on device", NOT_MADE), UNSTARTED),
    "the image's name is none": (
        unstarted("CannotPullContainerError: invalid reference format", NOT_MADE), NO_IMAGE),
    "a file that is not found is no image": (
        unstarted("CannotStartContainerError: no such file or directory: not found", NOT_MADE), UNSTARTED),
}
# fmt: on


@pytest.mark.parametrize(("told", "says"), STOPPED.values(), ids=STOPPED)
def test_what_a_stopped_task_died_of_and_the_verdict_on_it(told: dict[str, Any], says: Says) -> None:
    assert finding_from_task(told) == Finding(says.found, says.never_started)
    observation = observation_from_task(told, ARN)
    assert (observation.worker_id, observation.source) == (ARN, SOURCE)
    assert (observation.state, observation.never_started) == (WorkerState.STOPPED, says.never_started)
    assert (observation.code, observation.version) == (says.found, told.get("version"))
    # Proof that it never ran and an exit code of it exclude each other.
    assert not (observation.never_started and observation.exit_code is not None)
    verdict = verdict_after(observation, observation)
    assert verdict.spoken is not None
    assert (verdict.fate, verdict.spoken.grade, verdict.spoken.code) == (says.fate, says.grade, says.code)
    assert says.code in OUR_ERROR_CODES
    assert verdict.is_permanent == (says is NO_IMAGE)


def verdict_after(*looks: Observation) -> Verdict:
    """The verdict on a worker that runs without a claim, the looks a grace apart, as far as the first spoken one."""
    attempt, verdict = running().latest, Verdict(Fate.ALIVE)
    for number, observation in enumerate(looks):
        now_ms = NOW_MS + number * POLICY.lost_worker_grace_ms
        verdict = judge(attempt, observation, now_ms=now_ms, policy=POLICY)
        if verdict.spoken is not None:
            break
        attempt = attempt.model_copy(update={"suspicion": verdict.suspicion})
    return verdict


PRESENT = [
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
    ({"lastStatus": "RUNNING", "containers": []}, WorkerState.RUNNING, "RUNNING"),
    ({"lastStatus": "PROVISIONING", "containers": [], "attachments": []}, WorkerState.STARTING, "PROVISIONING"),
    (
        {"lastStatus": "RUNNING", "desiredStatus": "STOPPED", "stopCode": "SpotInterruption"},
        WorkerState.RUNNING,
        "SpotInterruption",
    ),
    ({"lastStatus": "PENDING", "stopCode": "InfrastructureHealth"}, WorkerState.STARTING, "InfrastructureHealth"),
    ({"lastStatus": "running"}, WorkerState.RUNNING, "running"),
]


@pytest.mark.parametrize(("told", "state", "said"), PRESENT)
def test_a_task_that_is_not_stopped_is_present_and_alive(told: dict[str, Any], state: WorkerState, said: str) -> None:
    observation = observation_from_task({**told, "version": 2}, ARN)
    assert (observation.state, observation.never_started, observation.version) == (state, False, 2)
    assert said in observation.detail
    is_taken = told.get("stopCode") in ("SpotInterruption", "TerminationNotice", "InfrastructureHealth")
    assert observation.code == ("WORKER_PREEMPTED" if is_taken else None)
    assert verdict_after(observation, observation).fate is Fate.ALIVE


def test_the_detail_tells_a_person_everything_once() -> None:
    told = ended(
        worker(137, "OutOfMemoryError: Container killed due to memory usage"), capacityProviderName="FARGATE_SPOT"
    )
    observation = observation_from_task(told, ARN)
    assert observation.exit_code == 137
    assert observation.detail == (
        "STOPPED, EssentialContainerExited, Essential container in task exited, exit code 137, "
        "worker: OutOfMemoryError: Container killed due to memory usage, on FARGATE_SPOT"
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
        assert (observation.code, observation.version, observation.happened_ms) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, AT, id="when the task was stopped"),
        pytest.param(
            {"executionStoppedAt": AT - timedelta(seconds=40)}, AT - timedelta(seconds=40), id="its execution"
        ),
        pytest.param({"stoppedAt": None}, None, id="not told"),
        pytest.param({"stoppedAt": "yesterday"}, None, id="not a time"),
    ],
)
def test_when_it_happened_is_taken_from_the_platform(fields: dict[str, Any], expected: datetime | None) -> None:
    found = observation_from_task(ended(worker(1), **fields), ARN).happened_ms
    assert found == (None if expected is None else round(expected.timestamp() * 1000))


def test_every_stop_code_of_the_api_model_is_in_the_table() -> None:
    """A new version of botocore with a new stop code ends here, so that somebody reads what it means."""
    path = Path(botocore.__file__).parent / "data/ecs/2014-11-13/service-2.json.gz"
    model = json.loads(gzip.decompress(path.read_bytes()))
    codes = set(model["shapes"]["TaskStopCode"]["enum"])
    assert codes <= {told.get("stopCode") for told, _ in STOPPED.values()}
    read = {"lastStatus", "desiredStatus", "stopCode", "stoppedReason", "startedAt", "containers", "overrides"}
    read |= {"executionStoppedAt", "stoppedAt"}
    assert read | {"connectivity", "capacityProviderName", "version"} <= set(model["shapes"]["Task"]["members"])
    assert {"name", "exitCode", "reason", "runtimeId"} <= set(model["shapes"]["Container"]["members"])
