"""What each look at a Job and its pods says: a table over the fields of ``Job`` and ``Pod`` in the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from executions.evidence import Observation, WorkerState
from executions.kubernetes_evidence import is_over, observation_from_look
from executions.names import OUR_ERROR_CODES

WORKER_ID = "job/workers/task-1-00000000000000000000"
STARTING, RUNNING, STOPPED = WorkerState.STARTING, WorkerState.RUNNING, WorkerState.STOPPED
FINISHED_AT, FINISHED_MS = "2026-01-02T00:00:01Z", 1_767_312_001_000
DELETING = {"deletionTimestamp": "2026-01-02T00:00:00Z"}

# Fragments


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "worker", "containerID": "containerd://1", "restartCount": 0, **fields}


def ended(exit_code: int, reason: str = "Error", **fields: Any) -> dict[str, Any]:
    told = {"exitCode": exit_code, "reason": reason, "finishedAt": FINISHED_AT, "startedAt": FINISHED_AT}
    return container(state={"terminated": told}, **fields)


def waiting(reason: str, message: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "name": "worker",
        "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}},
        **fields,
    }


RUNS = container(state={"running": {"startedAt": FINISHED_AT}})
LOST_TRACK = {"state": {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}}
"""What a kubelet writes of a container that it does not find when the pod ends."""
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "taint"}


def pod(
    phase: str,
    *statuses: dict[str, Any],
    node: str | None = "node-1",
    name: str = "task-1-abcde",
    created: str = FINISHED_AT,
    metadata: dict[str, Any] | None = None,
    **status: Any,
) -> dict[str, Any]:
    worker = {"name": "worker", "env": [{"name": "ALAKAI_TASK_ID", "value": "task-1"}]}
    return {
        "metadata": {"name": name, "creationTimestamp": created, **(metadata or {})},
        "spec": {"containers": [worker], **({} if node is None else {"nodeName": node})},
        "status": {"phase": phase, "containerStatuses": list(statuses), **status},
    }


def job(kind: str = "", reason: str = "", message: str = "", **metadata: Any) -> dict[str, Any]:
    ends = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": FINISHED_AT}
    return {"metadata": {"name": "task-1", **metadata}, "spec": {}, "status": {"conditions": [ends] if kind else []}}


@dataclass(frozen=True)
class Look:
    job: dict[str, Any] | None
    pods: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Any] | None = None
    trouble: str = ""

    def seen(self) -> Observation:
        return observation_from_look(WORKER_ID, self.job, self.pods, last=self.last, trouble=self.trouble)


def ends(*statuses: dict[str, Any], phase: str = "Failed", **options: Any) -> Look:
    return Look(job(), [pod(phase, *statuses, **options)])


NOT_FOUND = 'failed to pull and unpack image "worker:1": manifest unknown'
FAILED_RULE = "Container worker for pod workers/task-1-abcde failed with exit code {} matching FailJob rule at index 1"
DISRUPTED_RULE = "Pod workers/task-1-abcde has condition DisruptionTarget matching FailJob rule at index 0"
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient memory.",
}


@pytest.mark.parametrize(
    ("look", "state", "code"),
    [
        pytest.param(Look(job()), STARTING, None, id="a Job whose pod is not created yet"),
        pytest.param(Look(job(**DELETING)), STARTING, None, id="a Job that is deleted and has no pod any more"),
        pytest.param(Look(job(), [pod("Pending", node=None)]), STARTING, None, id="a pod without a node"),
        pytest.param(
            Look(job(), [pod("Pending", waiting("ContainerCreating"))]), STARTING, None, id="a container being made"
        ),
        pytest.param(
            Look(job(), [pod("Pending", waiting("CreateContainerConfigError", 'secret "x" not found'))]),
            STARTING,
            None,
            id="a secret that may still come",
        ),
        pytest.param(
            Look(job(), [pod("Pending", waiting("ImagePullBackOff", "Back-off pulling image"))]),
            STARTING,
            None,
            id="an image that could not be pulled yet",
        ),
        pytest.param(
            Look(job(), [pod("Pending", waiting("ErrImagePull", "dial tcp: i/o timeout; not found"))]),
            STARTING,
            None,
            id="a registry that does not answer",
        ),
        pytest.param(
            Look(job(), [pod("Pending", waiting("ErrImagePull", NOT_FOUND))]),
            STARTING,
            "IMAGE_ERROR",
            id="an image that does not exist",
        ),
        pytest.param(
            Look(job(), [pod("Pending", waiting("InvalidImageName", "couldn't parse"))]),
            STARTING,
            "IMAGE_ERROR",
            id="a name that no image can have",
        ),
        pytest.param(Look(job(), [pod("Running", RUNS)]), RUNNING, None, id="a worker at work"),
        pytest.param(Look(job(), [pod("Running")]), RUNNING, None, id="a pod that runs, whatever else is not told"),
        pytest.param(
            Look(job(**DELETING), [pod("Running", RUNS, metadata=DELETING)]), RUNNING, None, id="a pod that terminates"
        ),
        pytest.param(Look(None, [pod("Running", RUNS)]), RUNNING, None, id="a pod that outlives its Job"),
        pytest.param(
            Look(job(), [pod("Failed", ended(1), name="first"), pod("Running", RUNS, name="second")]),
            RUNNING,
            None,
            id="one pod of two that still runs",
        ),
        pytest.param(
            Look(job("Failed", "DeadlineExceeded", "too long"), [pod("Running", RUNS, metadata=DELETING)]),
            RUNNING,
            None,
            id="a Job that failed while its pod terminates",
        ),
        pytest.param(
            Look(job(), [pod("Unknown", RUNS, reason="NodeLost")]), RUNNING, None, id="a pod whose node is silent"
        ),
        # Ends
        pytest.param(ends(ended(0, "Completed"), phase="Succeeded"), STOPPED, "COMPLETED_UNREPORTED", id="exit code 0"),
        pytest.param(ends(ended(1)), STOPPED, "WORKER_FAILED", id="another exit code"),
        pytest.param(ends(ended(137, "OOMKilled")), STOPPED, "WORKER_OOM", id="killed for its memory"),
        pytest.param(ends(ended(1, "OOMKilled")), STOPPED, "WORKER_OOM", id="a child killed for its memory"),
        pytest.param(ends(ended(137)), STOPPED, "WORKER_OOM", id="killed"),
        pytest.param(ends(container(**LOST_TRACK)), STOPPED, "WORKER_LOST", id="a container that the kubelet lost"),
        pytest.param(ends(), STOPPED, "WORKER_LOST", id="an end without a container"),
        pytest.param(
            ends(ended(143), conditions=[DISRUPTED]), STOPPED, "WORKER_PREEMPTED", id="a node that was tainted"
        ),
        pytest.param(
            ends(ended(143), reason="Terminated", message="imminent node shutdown"),
            STOPPED,
            "WORKER_PREEMPTED",
            id="a node that shuts down",
        ),
        pytest.param(
            ends(ended(137), reason="Evicted", message="The node was low on resource: memory."),
            STOPPED,
            "WORKER_PREEMPTED",
            id="evicted for the node's sake",
        ),
        pytest.param(
            ends(ended(1), reason="Evicted", message='Usage of EmptyDir volume "x" exceeds the limit "1Gi".'),
            STOPPED,
            "WORKER_FAILED",
            id="evicted for its own use of disk",
        ),
        pytest.param(
            ends(ended(143), metadata=DELETING), STOPPED, "WORKER_STOPPED_EXTERNALLY", id="a pod deleted by hand"
        ),
        pytest.param(
            Look(job(**DELETING), [pod("Failed", ended(143))]),
            STOPPED,
            "WORKER_STOPPED_EXTERNALLY",
            id="a Job deleted by hand",
        ),
        pytest.param(
            Look(job(**DELETING), [pod("Succeeded", ended(0))]),
            STOPPED,
            "COMPLETED_UNREPORTED",
            id="a success before the deletion",
        ),
        pytest.param(
            Look(job("Failed", "DeadlineExceeded", "too long"), [pod("Failed", ended(143), metadata=DELETING)]),
            STOPPED,
            "ATTEMPT_TIMEOUT",
            id="the Job's deadline",
        ),
        pytest.param(
            ends(ended(143), reason="DeadlineExceeded"), STOPPED, "ATTEMPT_TIMEOUT", id="the deadline of the pod"
        ),
        # Ends whose pod is gone
        pytest.param(Look(None), STOPPED, "WORKER_STOPPED_EXTERNALLY", id="a Job that is gone"),
        pytest.param(
            Look(None, last=pod("Failed", ended(137, "OOMKilled"))), STOPPED, "WORKER_OOM", id="gone, but seen ending"
        ),
        pytest.param(
            Look(job("Failed", "PodFailurePolicy", FAILED_RULE.format(3))),
            STOPPED,
            "WORKER_FAILED",
            id="the Job knows the exit code",
        ),
        pytest.param(
            Look(job("Failed", "PodFailurePolicy", FAILED_RULE.format(137))),
            STOPPED,
            "WORKER_OOM",
            id="the Job knows of a kill",
        ),
        pytest.param(
            Look(job("Failed", "PodFailurePolicy", DISRUPTED_RULE)),
            STOPPED,
            "WORKER_PREEMPTED",
            id="the Job knows of a disruption",
        ),
        pytest.param(
            Look(job("Failed", "DeadlineExceeded", "too long")),
            STOPPED,
            "ATTEMPT_TIMEOUT",
            id="the Job's deadline, gone",
        ),
        pytest.param(
            Look(job("Failed", "BackoffLimitExceeded", "limit")), STOPPED, "WORKER_LOST", id="the Job knows nothing"
        ),
        pytest.param(Look(job("Complete")), STOPPED, "COMPLETED_UNREPORTED", id="a complete Job"),
    ],
)
def test_what_a_look_shows(look: Look, state: WorkerState, code: str | None) -> None:
    seen = look.seen()
    assert (seen.state, seen.code, seen.never_started) == (state, code, False)
    assert seen.code is None or seen.code in OUR_ERROR_CODES
    assert seen.worker_id == WORKER_ID
    assert seen.detail


@pytest.mark.parametrize(
    ("look", "code"),
    [
        pytest.param(
            ends(reason="OutOfcpu", message="Pod was rejected: Node didn't have enough resource: cpu"),
            "WORKER_NEVER_STARTED",
            id="rejected by the node",
        ),
        pytest.param(
            ends(reason="NodeShutdown", message="Pod was rejected as the node is shutting down."),
            "WORKER_PREEMPTED",
            id="rejected by a node that shuts down",
        ),
        pytest.param(ends(ended(128, "StartError")), "WORKER_NEVER_STARTED", id="a program that cannot be started"),
        pytest.param(
            ends({"name": "worker", **LOST_TRACK}), "WORKER_NEVER_STARTED", id="a container that was never made"
        ),
        pytest.param(
            ends({"name": "worker", **LOST_TRACK}, conditions=[DISRUPTED]),
            "WORKER_PREEMPTED",
            id="taken away before the container was made",
        ),
        pytest.param(
            ends({"name": "worker", **LOST_TRACK}, metadata=DELETING),
            "WORKER_STOPPED_EXTERNALLY",
            id="deleted before the container was made",
        ),
        pytest.param(
            Look(None, last=pod("Pending", node=None, metadata=DELETING)),
            "WORKER_STOPPED_EXTERNALLY",
            id="deleted without ever having had a node",
        ),
        pytest.param(
            Look(None, last=pod("Failed", waiting("ErrImagePull", NOT_FOUND))),
            "IMAGE_ERROR",
            id="ended while its image was not to be had",
        ),
    ],
)
def test_what_proves_that_a_worker_never_ran(look: Look, code: str) -> None:
    seen = look.seen()
    assert (seen.state, seen.code, seen.never_started) == (STOPPED, code, True)


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(ends(container(**LOST_TRACK)), id="a container that was made and lost"),
        pytest.param(ends(container(state={"waiting": {"reason": "RunContainerError"}})), id="one that was made"),
        pytest.param(
            ends({"name": "worker", "lastState": {"terminated": {"exitCode": 1}}, **LOST_TRACK}),
            id="one that ran before",
        ),
        pytest.param(ends(), id="no word of the container"),
        pytest.param(Look(None), id="no word of the pod"),
        pytest.param(Look(None, last=pod("Pending", waiting("ErrImagePull", NOT_FOUND))), id="one deleted by force"),
    ],
)
def test_a_doubt_is_no_proof(look: Look) -> None:
    assert look.seen().never_started is False


def test_the_time_of_the_end_is_the_containers_else_the_jobs() -> None:
    assert ends(ended(1)).seen().happened_ms == FINISHED_MS
    assert Look(job("Failed", "BackoffLimitExceeded")).seen().happened_ms == FINISHED_MS
    assert Look(None).seen().happened_ms is None
    assert ends(ended(1) | {"state": {"terminated": {"exitCode": 1, "finishedAt": "soon"}}}).seen().happened_ms is None


@pytest.mark.parametrize(
    ("look", "said"),
    [
        (Look(job(), trouble='pods "x" is forbidden: exceeded quota'), "exceeded quota"),
        (Look({**job(), "spec": {"suspend": True}}), "it is suspended"),
        (Look(job(), [pod("Pending", node=None, conditions=[UNSCHEDULABLE])]), "3 Insufficient memory"),
        (Look(job(), [pod("Pending", waiting("ErrImagePull", NOT_FOUND))]), "manifest unknown"),
        (Look(job(), [pod("Running", RUNS)]), "pod task-1-abcde is Running on node-1"),
        (Look(job(), [pod("Running", RUNS, metadata=DELETING)]), "is to stop"),
        (ends(ended(3)), "exit code 3"),
        (ends(ended(143), conditions=[DISRUPTED]), "DeletionByTaintManager: taint"),
        (Look(job("Failed", "BackoffLimitExceeded", "limit")), "the Job failed: BackoffLimitExceeded: limit"),
        (Look(None), "the Job is gone"),
    ],
)
def test_the_detail_tells_a_person_why(look: Look, said: str) -> None:
    assert said in look.seen().detail


def test_of_several_ended_pods_the_latest_counts() -> None:
    first, second = pod("Failed", ended(1), created="2026-01-01T00:00:00Z"), pod("Failed", ended(137, "OOMKilled"))
    assert Look(job(), [second, first]).seen().code == "WORKER_OOM"


def test_the_exit_code_of_a_sidecar_means_nothing() -> None:
    sidecar = {**ended(9), "name": "logs"}
    assert ends(sidecar, ended(0), phase="Succeeded").seen().exit_code == 0


@pytest.mark.parametrize(
    ("its_job", "pods", "over"),
    [
        (None, [], True),
        (job(), [], False),
        (job("Complete"), [], True),
        (job(), [pod("Failed", ended(1))], True),
        (job("Failed"), [pod("Running", RUNS)], False),
        (None, [pod("Running", RUNS)], False),
    ],
)
def test_it_is_over_when_nothing_runs_and_nothing_will(
    its_job: dict[str, Any] | None, pods: list[dict[str, Any]], over: bool
) -> None:
    assert is_over(its_job, pods) is over
