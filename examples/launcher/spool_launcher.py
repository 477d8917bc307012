"""A launcher of a third party: it lays each launch into a folder from which a pool of workers of yours takes it.

A worker renames `<token>.new` to `.taken` when it begins and to `.done` when it ends. Because the file is named after
the launch token, a repeated launch finds the first one's file; that is what makes a launcher safe to repeat.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from executions.adapters.launchers import LauncherContext
from executions.evidence import Observation, WorkerState
from executions.ports import Launched, LaunchIntent, LaunchOrder
from executions.record import Rung

STATES = {"new": WorkerState.STARTING, "taken": WorkerState.RUNNING, "done": WorkerState.STOPPED}


class SpoolLauncher:
    name = "spool"
    replay_limit_ms = None  # The files stay, so a launch may be repeated after any time.

    def __init__(self, context: LauncherContext) -> None:
        self.folder = Path(os.environ.get("SPOOL_FOLDER", "spool"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.urls = {"claimUrl": context.settings.claim_url, "callbackUrl": context.settings.callback_url}

    def prepare(self, order: LaunchOrder) -> dict[str, Any]:
        return {"taskId": order.task_id, "attempt": order.attempt, "launchTry": order.launch_try, **self.urls}

    async def launch(self, intent: LaunchIntent) -> Launched:
        token = intent.order.token
        if self._state(token) is WorkerState.MISSING:
            (self.folder / f"{token}.partial").write_text(json.dumps(dict(intent.request)))
            (self.folder / f"{token}.partial").rename(self.folder / f"{token}.new")
        return Launched(token, Rung.SENT)

    async def find(self, intent: LaunchIntent) -> str | None:
        token = intent.order.token
        return token if self._state(token) is not WorkerState.MISSING else None

    async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
        return [Observation(worker_id, self._state(worker_id), "spool", "its file") for worker_id in worker_ids]

    async def stop(self, worker_id: str, reason: str) -> bool:
        if self._state(worker_id) is WorkerState.STARTING:
            (self.folder / f"{worker_id}.new").rename(self.folder / f"{worker_id}.done")
        return self._state(worker_id) is not WorkerState.RUNNING

    async def close(self) -> None: ...

    def _state(self, token: str) -> WorkerState:
        present = (state for name, state in STATES.items() if (self.folder / f"{token}.{name}").exists())
        return next(present, WorkerState.MISSING)
