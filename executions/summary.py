"""The summary event: one JSON line at the end of each slice of work, joined across components by ``trace_id``.

A slice is opened with what is known, its steps are noted as they happen, and it is closed once; the event's shape,
its ``msg`` and the cut of its error are decided here, so that no caller can write a wrong one.
Writing it is the caller's: pass ``Slice.event`` to the structured logger (``controller``, ``api``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from executions.moment import iso_from_ms
from executions.names import TASK_TYPE
from executions.outcome import Agent
from executions.task import Task

Component = Literal["core", "orchestrator"]
SliceOutcome = Literal["success", "error", "skipped"]
_SERVICES: dict[Component, str] = {"core": "alakai-core", "orchestrator": "alakai-orchestrator"}
_ERROR_LIMIT = 512
_SECRETS = re.compile(
    r"""(?ix)
    # A name that says so, and its value: quoted, or up to the next space, perhaps after a scheme.
    ((?:token|secret|password|passwd|passphrase|authorization|credentials?|signature|cookie
      |(?:api|access|private|secret|signing)[_-]?key)
      [\\"']*\s*[=:]\s*)
      (?:b?\\*"[^"]*"? | b?\\*'[^']*'? | (?:(?:bearer|basic|digest|token)\s+)?[^\s"'&]+)
    | (\bbearer\s+)[^\s"']+
    # Passwords and tokens in URLs.
    | (://[^\s/:@]*:)[^\s/]+(?=@) | (://)[^\s/:@]{20,}(?=@)
    # Tokens that are known by their looks: JWT, GitHub, Slack, AWS, Google, model providers, private keys.
    | \beyJ[\w-]+\.[\w-]+\.[\w-]*
    | \b(?:gh[opsru]_|github_pat_)\w{16,} | \bxox[a-z]-[\w-]{8,} | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \bya29\.[\w-]+ | \bAIza[\w-]{30,} | \bsk-[\w-]{16,}
    | -----BEGIN[^-]*PRIVATE\sKEY-----.*?(?:-----END[^-]*-----|$)
    """
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
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


def sanitised(text: str) -> str:
    """Text fit for a log line: no secrets that can be recognised, no control or direction characters, cut."""
    # Cleaned first: a control character within a secret would hide it from the pattern.
    return _SECRETS.sub(_mask, _CONTROL.sub(" ", text))[:_ERROR_LIMIT]


def service_of_worker(task_type: str) -> str:
    """``alakai-worker-implementation`` and so on: the ``service`` of a worker's own summary event."""
    return f"alakai-worker-{task_type if TASK_TYPE.fullmatch(task_type) else 'unknown'}"


def _mask(match: re.Match[str]) -> str:
    return f"{match[match.lastindex] if match.lastindex else ''}***"
