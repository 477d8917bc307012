"""What a look at a Job and its pods says about a worker, as an observation that the verdict is made from.

Pure tables over the fields of ``batch/v1 Job`` and ``core/v1 Pod``. A worker is gone only when no pod of its Job can
run any more: a pod that terminates is still there. Never decides whether an attempt is lost: that is
``evidence.judge``, which also knows the record and the time.

Reasons and messages are those of the kubelet, the Job controller and the scheduler of Kubernetes 1.36
(``pkg/kubelet``, ``pkg/controller/job/pod_failure_policy.go``, ``PodReason*`` in the core API).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from alakai_worker.redaction import sanitised

from executions.evidence import LOST, PREEMPTED, STOPPED_EXTERNALLY, Observation, WorkerState
from executions.image_pull import fails_for_good
from executions.names import TASK_ID_VARIABLE

SOURCE = "kubernetes:pods"

_ENDED = frozenset({"Succeeded", "Failed"})
_KILLED = 137
_UNKNOWN_STATUS = "ContainerStatusUnknown"
"""The kubelet does not know how the container ended, or whether there was one; the exit code beside it is made up."""
_NOT_RUN = frozenset({"StartError", "ContainerCannotRun"})
_TAKEN_AWAY = frozenset({"Evicted", "NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated"})
_ITS_OWN_LIMIT = re.compile(r"exceed(?:s|ed) (?:the|its)", re.IGNORECASE)
"""An eviction for what the pod itself used, against its own limits: it would happen to the next one too."""
_REJECTED = "Pod was rejected"
_BAD_IMAGE = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_NO_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "ImageInspectError"})
_DISRUPTED = re.compile(r"has condition DisruptionTarget")
_FAILED_WITH = re.compile(r"failed with exit code (\d+)")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a worker died of: the error code that fits."""

    code: str
    never_started: bool = False
    exit_code: int | None = None


def observation_from_look(
    worker_id: str, job: Json | None, pods: Sequence[Json], *, last: Json | None = None, trouble: str = ""
) -> Observation:
    """One look at one worker.

    ``last`` is a pod of this Job as a watch saw it at its end, for when the API server has dropped it since;
    ``trouble`` is what the Job controller says of a pod that it cannot create.
    """
    alive = [pod for pod in pods if _phase(pod) not in _ENDED]
    if alive:
        return _present(worker_id, job, alive[-1])
    pod = max(pods, key=_created, default=last)
    if pod is None and job is not None and not _is_over(job):
        what = "is to be deleted" if _is_deleting(job) else trouble or _why_no_pod(job)
        return Observation(worker_id, WorkerState.STARTING, SOURCE, sanitised(f"the Job has no pod: {what}"))
    found = _finding(job, pod)
    details = [_ending(job)] + ([_detail(pod)] if pod is not None else [])
    return Observation(
        worker_id=worker_id,
        state=WorkerState.STOPPED,
        source=SOURCE,
        detail=sanitised("; ".join(filter(None, details))),
        exit_code=found.exit_code,
        never_started=found.never_started,
        code=found.code,
        happened_ms=_ended_ms(job, pod),
    )


def is_over(job: Json | None, pods: Sequence[Json]) -> bool:
    """Whether nothing of it runs, and nothing will: a Job of ours has one pod and never a second one."""
    return all(_phase(pod) in _ENDED for pod in pods) and (bool(pods) or job is None or _is_over(job))


def _present(worker_id: str, job: Json | None, pod: Json) -> Observation:
    state = _container(pod).get("state") or {}
    has_run = bool(state.get("running") or state.get("terminated")) or _phase(pod) == "Running"
    code = None if has_run else _image_code(state.get("waiting") or {})
    detail = _detail(pod)
    if _is_deleting(pod) or (job is not None and _is_deleting(job)):
        detail += ", is to stop"
    worker_state = WorkerState.RUNNING if has_run else WorkerState.STARTING
    return Observation(worker_id, worker_state, SOURCE, sanitised(detail), code=code)


def _finding(job: Json | None, pod: Json | None) -> Finding:
    if pod is None:
        return _finding_from_job(job)
    if _never_started(pod):
        return Finding(_code_before_start(job, pod), never_started=True)
    ended = _terminated(pod)
    exit_code = _exit_code(ended)
    if exit_code == 0:
        return Finding("COMPLETED_UNREPORTED", exit_code=0)
    if ended.get("reason") == "OOMKilled":
        return Finding("WORKER_OOM", exit_code=exit_code)
    if _was_taken_away(pod):
        return Finding(PREEMPTED, exit_code=exit_code)
    if _condition(job, "Failed").get("reason") == "DeadlineExceeded" or _reason(pod) == "DeadlineExceeded":
        return Finding("ATTEMPT_TIMEOUT", exit_code=exit_code)
    if job is None or _is_deleting(job) or _is_deleting(pod):
        return Finding(STOPPED_EXTERNALLY, exit_code=exit_code)
    return Finding(_code_from_exit(exit_code), exit_code=exit_code)


def _finding_from_job(job: Json | None) -> Finding:
    """Without a pod to ask: what the Job controller wrote down before it let the pod go."""
    if job is None:
        return Finding(STOPPED_EXTERNALLY)
    failed = _condition(job, "Failed")
    if not failed:
        return Finding("COMPLETED_UNREPORTED", exit_code=0)
    said = str(failed.get("message") or "")
    if failed.get("reason") == "DeadlineExceeded":
        return Finding("ATTEMPT_TIMEOUT")
    if _DISRUPTED.search(said):
        return Finding(PREEMPTED)
    if match := _FAILED_WITH.search(said):
        return Finding(_code_from_exit(int(match[1])), exit_code=int(match[1]))
    return Finding(LOST)


def _code_from_exit(exit_code: int | None) -> str:
    if exit_code is None:
        return LOST
    return "WORKER_OOM" if exit_code == _KILLED else "WORKER_FAILED"


def _never_started(pod: Json) -> bool:
    """Whether the worker's program provably never ran. A doubt is a no: the worker may have worked."""
    if not (pod.get("spec") or {}).get("nodeName") or _message(pod).startswith(_REJECTED):
        return True
    container = _container(pod)
    if _phase(pod) not in _ENDED or not container or container.get("lastState"):
        return False  # One that vanished before its node told its end (deleted by force) may run there still.
    ended = (container.get("state") or {}).get("terminated") or {}
    if ended.get("reason") in _NOT_RUN:
        return True
    is_unknown = not ended or ended.get("reason") == _UNKNOWN_STATUS
    has_run = container.get("containerID") or (container.get("state") or {}).get("running")
    return bool(is_unknown and not has_run)


def _code_before_start(job: Json | None, pod: Json) -> str:
    waiting = (_container(pod).get("state") or {}).get("waiting") or {}
    if code := _image_code(waiting):
        return code
    if _was_taken_away(pod):
        return PREEMPTED
    if job is None or _is_deleting(job) or _is_deleting(pod):
        return STOPPED_EXTERNALLY
    return "WORKER_NEVER_STARTED"


def _image_code(waiting: Json) -> str | None:
    """IMAGE_ERROR for an image that will not be there at the next try either."""
    reason, said = waiting.get("reason"), str(waiting.get("message") or "")
    if reason in _BAD_IMAGE:
        return "IMAGE_ERROR"
    if reason in _NO_IMAGE and fails_for_good(said):
        return "IMAGE_ERROR"
    return None


def _was_taken_away(pod: Json) -> bool:
    if _reason(pod) == "Evicted" and _ITS_OWN_LIMIT.search(_message(pod)):
        return False
    return _condition(pod, "DisruptionTarget").get("status") == "True" or _reason(pod) in _TAKEN_AWAY


def _container(pod: Json) -> Json:
    """The status of the container that carries the launch; {} when there is none (yet)."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    name = next(
        (
            container.get("name")
            for container in spec.get("containers") or []
            if any(item.get("name") == TASK_ID_VARIABLE for item in container.get("env") or [])
        ),
        None,
    )
    return next((item for item in status.get("containerStatuses") or [] if item.get("name") == name), {})


def _terminated(pod: Json) -> Json:
    return (_container(pod).get("state") or {}).get("terminated") or {}


def _exit_code(ended: Json) -> int | None:
    code = ended.get("exitCode")
    return code if isinstance(code, int) and ended.get("reason") != _UNKNOWN_STATUS else None


def _phase(pod: Json) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def _reason(pod: Json) -> str:
    return str((pod.get("status") or {}).get("reason") or "")


def _message(pod: Json) -> str:
    return str((pod.get("status") or {}).get("message") or "")


def _created(pod: Json) -> str:
    return str(pod["metadata"].get("creationTimestamp") or "")


def _is_deleting(thing: Json) -> bool:
    return "deletionTimestamp" in thing["metadata"]


def _is_over(job: Json) -> bool:
    return any(_condition(job, kind) for kind in ("Complete", "Failed"))


def _condition(thing: Json | None, kind: str) -> Json:
    """The condition of a Job or a pod while it is true, else {}."""
    conditions = ((thing or {}).get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item.get("type") == kind and item.get("status") == "True"), {})


def _ended_ms(job: Json | None, pod: Json | None) -> int | None:
    moments = [_terminated(pod).get("finishedAt") if pod is not None else None]
    moments += [_condition(job, kind).get("lastTransitionTime") for kind in ("Failed", "Complete")]
    for moment in moments:
        if isinstance(moment, str):
            try:
                return round(datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() * 1000)
            except ValueError:
                continue
    return None


def _why_no_pod(job: Json) -> str:
    return "it is suspended" if (job.get("spec") or {}).get("suspend") else "it was not created yet"


def _ending(job: Json | None) -> str:
    """How the Job ended, in words for a person."""
    if job is None:
        return "the Job is gone: it was deleted"
    failed = _condition(job, "Failed")
    if failed:
        return f"the Job failed: {failed.get('reason')}: {failed.get('message')}"
    return "the Job is complete" if _condition(job, "Complete") else ""


def _detail(pod: Json) -> str:
    """The pod in words for a person."""
    spec, state = pod.get("spec") or {}, _container(pod).get("state") or {}
    parts = [f"pod {pod['metadata'].get('name')} is {_phase(pod)}"]
    if node := spec.get("nodeName"):
        parts[0] += f" on {node}"
    parts += [f"{_reason(pod)}: {_message(pod)}"] if _reason(pod) else []
    for kind in ("waiting", "terminated"):
        said = state.get(kind) or {}
        if said.get("reason"):
            parts.append(": ".join(str(said[name]) for name in ("reason", "message") if said.get(name)))
    if (code := _exit_code(_terminated(pod))) is not None:
        parts.append(f"exit code {code}")
    for condition in (pod.get("status") or {}).get("conditions") or []:
        kind, status = condition.get("type"), condition.get("status")
        if (kind, status) in (("PodScheduled", "False"), ("DisruptionTarget", "True")) or (
            (kind, condition.get("reason")) == ("Ready", "NodeStatusUnknown")
        ):
            parts.append(f"{kind} is {status}: {condition.get('reason')}: {condition.get('message')}")
    return ", ".join(parts)
