"""What an answer of ECS DescribeTasks says about a worker, as an observation that the verdict is made from.

Pure tables over the fields of ``Task`` and ``Container`` in the ECS API model (2014-11-13). Never decides whether an
attempt is lost: that is ``evidence.judge``, which also knows the record and the time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from alakai_worker.redaction import sanitised

from executions.evidence import LOST, OWN_STOP, PREEMPTED, STOPPED_EXTERNALLY, Observation, WorkerState
from executions.image_pull import fails_for_good
from executions.names import TASK_ID_VARIABLE

SOURCE = "ecs:DescribeTasks"
OUR_STOP = "alakai: "
"""Begins the reason of every StopTask of ours, so that our own stops are recognised in ``stoppedReason``."""

_STARTING = frozenset({"PROVISIONING", "PENDING", "ACTIVATING"})
_GONE = frozenset({"STOPPED", "DELETED"})
_TAKEN_AWAY = frozenset({"SpotInterruption", "TerminationNotice", "InfrastructureHealth"})
_BEFORE_START = _TAKEN_AWAY | {"UserInitiated", "ServiceSchedulerInitiated"}
_KILLED = 137
_OUT_OF_MEMORY = re.compile(r"OutOfMemory|OOM.?Killed|out of memory", re.IGNORECASE)
_CANNOT_PULL = re.compile(r"CannotPull\w*|pull image manifest|image.{0,40}(?:not found|does not exist)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a stopped task died of: the error code that fits, or OWN_STOP."""

    code: str
    never_started: bool = False


def observation_from_task(task: Mapping[str, Any], worker_id: str) -> Observation:
    """One look at one task, as boto3 gives it."""
    status = str(task.get("lastStatus") or "UNKNOWN")
    worker = _worker_container(task)
    exit_code, version, detail = _exit_code(worker), _version(task), _detail(task, worker)
    if status in _GONE:
        finding = finding_from_task(task)
        return Observation(
            worker_id,
            WorkerState.STOPPED,
            SOURCE,
            detail,
            exit_code,
            finding.never_started,
            finding.code,
            version,
            _stopped_ms(task),
        )
    # Also while it stops and in a status that this table does not know: only a positive look ends a worker. That it is
    # being taken away is known before it is gone, from a Spot notice for instance.
    state = WorkerState.STARTING if status in _STARTING else WorkerState.RUNNING
    code = PREEMPTED if task.get("stopCode") in _TAKEN_AWAY else None
    return Observation(worker_id, state, SOURCE, detail, exit_code, code=code, version=version)


def observation_of_failure(failure: Mapping[str, Any], worker_id: str) -> Observation | None:
    """An entry of ``failures[]``: only MISSING is a look, any other reason says nothing about the task."""
    if failure.get("reason") != "MISSING":
        return None
    detail = "ECS does not know the task: too young to be seen, or gone for an hour or longer"
    return Observation(worker_id, WorkerState.MISSING, SOURCE, detail)


def finding_from_task(task: Mapping[str, Any]) -> Finding:
    """Why a stopped task is stopped, by its stop code first and the exit code of the worker's container second."""
    stop_code, said = task.get("stopCode"), str(task.get("stoppedReason") or "")
    if stop_code == "UserInitiated" and said.startswith(OUR_STOP):
        return Finding(OWN_STOP, _never_started(task))
    if _never_started(task):
        return Finding(_code_before_start(task, said), never_started=True)
    if stop_code in _TAKEN_AWAY:
        return Finding(PREEMPTED)
    if stop_code in ("UserInitiated", "ServiceSchedulerInitiated"):
        return Finding(STOPPED_EXTERNALLY)
    worker = _worker_container(task)
    code = _exit_code(worker)
    if _OUT_OF_MEMORY.search(f"{said} {_reason(worker)}") or code == _KILLED:
        return Finding("WORKER_OOM")
    if code is None:
        return Finding(LOST)
    return Finding("WORKER_FAILED" if code else "COMPLETED_UNREPORTED")


def _never_started(task: Mapping[str, Any]) -> bool:
    """Whether ECS proves that the worker's program never ran. A doubt is a no: the worker may have worked."""
    launched = _launched_container(task)
    containers = _containers(task) if launched is None else [launched]
    if task.get("startedAt") is not None or any(_exit_code(item) is not None for item in containers):
        return False
    if task.get("stopCode") == "TaskFailedToStart":
        return True
    # A container that was made may have run for a moment while others of the task were still pending.
    return task.get("stopCode") in _BEFORE_START and not any(item.get("runtimeId") for item in containers)


def _code_before_start(task: Mapping[str, Any], said: str) -> str:
    text = " ".join((said, *(_reason(item) for item in _containers(task))))
    if _CANNOT_PULL.search(text) and fails_for_good(text):
        return "IMAGE_ERROR"
    if task.get("stopCode") in _TAKEN_AWAY:
        return PREEMPTED
    if task.get("stopCode") in ("UserInitiated", "ServiceSchedulerInitiated"):
        return STOPPED_EXTERNALLY
    return "WORKER_NEVER_STARTED"


def _worker_container(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container that carries the launch; sidecars are killed with it and their exit codes mean nothing."""
    if (launched := _launched_container(task)) is not None:
        return launched
    containers = _containers(task)
    if len(containers) == 1:
        return containers[0]
    # Not launched by us, or an answer without overrides: the first one that failed, else the first that ended.
    ended = [item for item in containers if _exit_code(item) is not None]
    return next((item for item in ended if _exit_code(item)), ended[0] if ended else {})


def _launched_container(task: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The one that our overrides name, {} when ECS does not list it (yet); None when no override is ours."""
    for override in (task.get("overrides") or {}).get("containerOverrides") or []:
        if any(item.get("name") == TASK_ID_VARIABLE for item in override.get("environment") or []):
            return next((item for item in _containers(task) if item.get("name") == override.get("name")), {})
    return None


def _containers(task: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return task.get("containers") or []


def _exit_code(container: Mapping[str, Any]) -> int | None:
    code = container.get("exitCode")
    return code if isinstance(code, int) else None


def _reason(container: Mapping[str, Any]) -> str:
    return str(container.get("reason") or "")


def _version(task: Mapping[str, Any]) -> int | None:
    version = task.get("version")
    return version if isinstance(version, int) else None


def _stopped_ms(task: Mapping[str, Any]) -> int | None:
    """When the worker ended: its execution, or else the task, which takes its time to be cleared away."""
    for name in ("executionStoppedAt", "stoppedAt"):
        if isinstance(at := task.get(name), datetime):
            return round(at.timestamp() * 1000)
    return None


def _detail(task: Mapping[str, Any], worker: Mapping[str, Any]) -> str:
    """In words for a person."""
    parts = [str(task.get("lastStatus") or "no status")]
    if task.get("desiredStatus") == "STOPPED" and task.get("lastStatus") not in _GONE:
        parts.append("is to stop")
    if task.get("connectivity") == "DISCONNECTED":
        parts.append("its agent is disconnected, which proves nothing")
    if stop_code := task.get("stopCode"):
        parts.append(str(stop_code))
    if said := task.get("stoppedReason"):
        parts.append(str(said))
    if (exit_code := _exit_code(worker)) is not None:
        parts.append(f"exit code {exit_code}")
    parts += [f"{item.get('name', 'container')}: {_reason(item)}" for item in _containers(task) if _reason(item)]
    if provider := task.get("capacityProviderName"):
        parts.append(f"on {provider}")
    return sanitised(", ".join(parts))
