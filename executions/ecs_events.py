"""What an EventBridge event ``ECS Task State Change`` tells: which task's worker changed, and nothing more.

The event's own status is never used: events come late, twice and in any order, and what counts is what a look at the
worker shows (``ecs_evidence``). Shape: Amazon ECS developer guide, "Task state change events".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from executions.errors import InvalidEvent, InvalidTask
from executions.names import TASK_ID_VARIABLE, checked_task_id

_SOURCE, _KIND = "aws.ecs", "ECS Task State Change"


@dataclass(frozen=True, slots=True)
class WorkerChanged:
    """A worker changed. ``version`` counts the changes of one ECS task and orders its events."""

    task_id: str
    worker_id: str
    version: int


def worker_changed_from_body(body: str) -> WorkerChanged | None:
    """None for an event about anything but a worker of ours: another service, another kind, somebody else's task.

    Raises InvalidEvent for what is no event at all.
    """
    try:
        event = orjson.loads(body)
    except ValueError as error:
        raise InvalidEvent("the message is not JSON; give the events a queue of their own") from error
    if not isinstance(event, dict) or not isinstance(event.get("source"), str) or "detail-type" not in event:
        raise InvalidEvent("the message is not an EventBridge event; give the events a queue of their own")
    if (event["source"], event["detail-type"]) != (_SOURCE, _KIND):
        return None
    detail = event.get("detail")
    detail = detail if isinstance(detail, dict) else {}
    worker_id, version = detail.get("taskArn"), detail.get("version")
    if not isinstance(worker_id, str) or not isinstance(version, int) or isinstance(version, bool):
        raise InvalidEvent("the event names no taskArn or no version; let the rule pass events on unchanged")
    task_id = _task_id(detail)
    return WorkerChanged(task_id, worker_id, version) if task_id is not None else None


def _task_id(detail: Mapping[str, Any]) -> str | None:
    """Of the overrides that a launch of ours has; whatever else stands there is somebody else's."""
    for override in _mappings(detail.get("overrides"), "containerOverrides"):
        for variable in _mappings(override, "environment"):
            if variable.get("name") == TASK_ID_VARIABLE:
                try:
                    return checked_task_id(variable.get("value"))
                except InvalidTask:
                    return None
    return None


def _mappings(holder: object, key: str) -> list[Mapping[str, Any]]:
    found = holder.get(key) if isinstance(holder, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
