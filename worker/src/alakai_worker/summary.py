"""The worker's summary event: one JSON line at its end, joined with the other components' by ``trace_id``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from alakai_worker.client import Claimed
from alakai_worker.launch import Launch
from alakai_worker.log import INFO, Log, opening
from alakai_worker.outcome import Outcome
from alakai_worker.redaction import sanitised

_PULL_REQUEST = re.compile(r"/pull/(\d+)(?:$|[/?#])")


class Summary:
    """Collects what happened and writes the event once."""

    def __init__(self, launch: Launch, log: Log, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._launch = launch
        self._log = log
        self._clock = clock
        self._started = clock()
        self._task: dict[str, Any] = {}
        self.steps = {"claim": "-", "work": "-", "report": "-"}

    def claimed(self, claimed: Claimed) -> None:
        """Take over what only the claimed message tells."""
        self._task = dict(claimed.task)
        task_type = _text(self._task, "taskType") or self._launch.task_type
        self._launch = replace(self._launch, trace_id=claimed.trace_id, task_type=task_type)
        self.steps["claim"] = "ok"

    def write(
        self,
        event_outcome: str,
        final_status: str,
        *,
        error_type: str | None = None,
        error_message: str | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        """Write the event. ``event_outcome`` is ``success``, ``error`` or ``skipped``."""
        launch = self._launch
        payload = self._part("payload")
        source = _text(payload, "source")
        name = sanitised(source or launch.task_type)
        begun = opening(launch, INFO, self._log.now())
        context = begun.pop("context")
        failed = event_outcome == "error"
        event = {
            **begun,
            "event": name,
            "outcome": event_outcome,
            "final_status": final_status,
            "duration_ms": round((self._clock() - self._started) * 1000),
            "context": context,
            "steps": dict(self.steps),
            "error": {"type": error_type or "Error", "message": sanitised(error_message or "")} if failed else None,
            "repo": {
                "full_name": _text(payload, "repo"),
                "base_ref": _text(payload, "baseRef") or _text(payload, "base_ref"),
            },
            "task": {"task_id": launch.task_id, "task_type": launch.task_type, "source": source},
            "msg": f"[event] {name} -> {event_outcome}",
        }
        self._log.write({**event, **self._known(outcome)})

    def _known(self, outcome: Outcome | None) -> dict[str, Any]:
        """The parts that are there only where they are known."""
        known: dict[str, Any] = {}
        agent = outcome.told_agent() if outcome else None
        if agent:
            known["agent"] = {"provider": agent.get("provider"), "model": agent.get("model")}
        url = outcome.pull_request_url if outcome else None
        if url:
            number = _PULL_REQUEST.search(url)
            known["pull_request"] = {"url": url, "number": int(number[1]) if number else None}
        actor = self._part("metadata").get("actor")
        if isinstance(actor, dict) and actor.get("provider") == "slack":
            known["slack"] = {"user_id": _text(actor, "id")}
        return known

    def _part(self, name: str) -> dict[str, Any]:
        part = self._task.get(name)
        return part if isinstance(part, dict) else {}


def _text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None
