"""The summary event: one JSON line at the end of each slice of work, joined across components by ``trace_id``.

A slice is opened with what is known, its steps are noted as they happen, and it is closed once; the event's shape,
its ``msg`` and the cut of its error are decided here, so that no caller can write a wrong one.
Writing it is the caller's: pass ``Slice.event`` to the structured logger (``controller``, ``api``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from alakai_worker.redaction import sanitised

from executions.moment import iso_from_ms
from executions.outcome import Agent
from executions.task import Task

Component = Literal["core", "orchestrator"]
SliceOutcome = Literal["success", "error", "skipped"]
_SERVICES: dict[Component, str] = {"core": "alakai-core", "orchestrator": "alakai-orchestrator"}
_PULL_REQUEST = re.compile(r"/pull/(\d+)(?:$|[/?#])")


@dataclass(slots=True)
class Slice:
    """One slice of work of one component, from ``started_ms`` until ``event`` is called."""

    component: Component
    name: str
    """The event's name: ``payload.source``, else the task type."""
    trace_id: str
    started_ms: int
    task_id: str | None = None
    task_type: str | None = None
    source: str | None = None
    repo: str | None = None
    base_ref: str | None = None
    slack_user_id: str | None = None
    steps: dict[str, Literal["ok", "error", "-"]] = field(default_factory=dict)

    @classmethod
    def of_task(cls, component: Component, task: Task, started_ms: int) -> Slice:
        """A slice about a task, with everything that the task tells."""
        actor = task.metadata.actor
        base_ref = task.payload.get("baseRef", task.payload.get("base_ref"))
        source = task.payload.get("source")
        return cls(
            component=component,
            name=task.source,
            trace_id=task.trace_id,
            started_ms=started_ms,
            task_id=task.task_id,
            task_type=task.task_type,
            source=source if isinstance(source, str) else None,
            repo=task.project,
            base_ref=base_ref if isinstance(base_ref, str) else None,
            slack_user_id=actor.id if actor is not None and actor.provider == "slack" else None,
        )

    def ok(self, step: str) -> None:
        self.steps[step] = "ok"

    def failed(self, step: str) -> None:
        self.steps[step] = "error"

    def left_out(self, step: str) -> None:
        self.steps[step] = "-"

    def event(
        self,
        outcome: SliceOutcome,
        final_status: str,
        *,
        now_ms: int,
        error_type: str | None = None,
        error_message: str | None = None,
        agent: Agent | None = None,
        pull_request_url: str | None = None,
    ) -> dict[str, Any]:
        """The finished event. ``error_type`` and a cleaned ``error_message`` appear only with outcome ``error``."""
        name = sanitised(self.name)
        failed = outcome == "error"
        event: dict[str, Any] = {
            "time": iso_from_ms(now_ms),
            "level": 30,
            "service": _SERVICES[self.component],
            "component": self.component,
            "trace_id": self.trace_id,
            "event": name,
            "outcome": outcome,
            "final_status": final_status,
            "duration_ms": max(now_ms - self.started_ms, 0),
            "context": {"trace_id": self.trace_id, "component": self.component},
            "steps": dict(self.steps),
            "error": {"type": error_type or "Error", "message": sanitised(error_message or "")} if failed else None,
            "repo": {"full_name": self.repo, "base_ref": self.base_ref},
            "task": {"task_id": self.task_id, "task_type": self.task_type, "source": self.source},
            "msg": f"[event] {name} -> {outcome}",
        }
        if agent is not None:
            event["agent"] = {"provider": agent.provider, "model": agent.model}
        if pull_request_url is not None:
            number = _PULL_REQUEST.search(pull_request_url)
            event["pull_request"] = {"url": sanitised(pull_request_url), "number": int(number[1]) if number else None}
        if self.slack_user_id is not None:
            event["slack"] = {"user_id": self.slack_user_id}
        return event
