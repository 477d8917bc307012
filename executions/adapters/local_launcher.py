"""Workers on this machine: a real process, or none at all and a callback made by hand.

A worker's id is an ARN that only looks like one of ECS, and it says by itself which of the two it is; so there is
nothing to remember, and the next controller finds what this one started. Never judges a worker: that is ``evidence``.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from executions.adapters import local_processes
from executions.adapters.launchers import (
    CALLBACK_TOKEN_VARIABLE,
    LauncherContext,
    found_worker,
    lay_down,
    worker_variables,
)
from executions.adapters.settings import Settings
from executions.errors import InvalidSettings, LaunchRefused, LaunchUnclear
from executions.evidence import Observation, WorkerState
from executions.ports import FoundWorker, Launched, LaunchIntent, LaunchOrder, Payloads
from executions.record import Rung

KILL_AFTER_SECONDS = 5.0
"""How long a worker may take to stop before it is killed."""
LOGS_VARIABLE = "ALAKAI_LOCAL_WORKER_LOGS"
"""A folder for the workers' output, one file per launch."""

T = TypeVar("T")
_ARN = "arn:aws:ecs:local:000000000000:task"
_WORKER_ID = re.compile(re.escape(_ARN) + r"/(manual|process)/([\w-]{1,128})", re.ASCII)
_SCENARIO = re.compile(r"(manual|succeed|slow)|(fail|transient|die|hang)(?::([1-9][0-9]{0,2}|all))?", re.ASCII)
_ALLOWED = "manual, succeed, slow, fail, transient, die, hang (the last four also as die:3 or die:all)"
_PASSED_ON = ("PATH", "HOME", "LANG", "PYTHONPATH", "ALAKAI_GIVE_UP_SECONDS")
"""All that a worker gets of the controller's environment, which holds credentials of Redis and AWS."""
_REAP_INTERVAL_SECONDS = 0.5
_STOPS_REMEMBERED = 10_000


def create(context: LauncherContext) -> LocalLauncher:
    """The entry point. Raises InvalidSettings when the folder for the workers' output cannot be made."""
    logs = Path(os.environ[LOGS_VARIABLE]) if os.environ.get(LOGS_VARIABLE) else None
    try:
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSettings(
            f"{LOGS_VARIABLE} names no usable folder: {error.strerror}; correct or unset it"
        ) from error
    return LocalLauncher(context.settings, context.payloads, environment=os.environ, logs=logs)


def scenario_for(payload: Mapping[str, Any], attempt: int, default: str) -> str:
    """What the worker of an attempt plays: ``payload.scenario``, else ``default``. Raises LaunchRefused.

    ``fail``, ``transient``, ``die`` and ``hang`` are for attempt 1, ``die:3`` for attempts 1 to 3, ``die:all`` for all;
    the other attempts succeed.
    """
    wanted = payload.get("scenario") or default
    match = _SCENARIO.fullmatch(wanted) if isinstance(wanted, str) else None
    if match is None:
        raise LaunchRefused(f"payload.scenario must be one of {_ALLOWED}", code="LAUNCH_REJECTED", permanent=True)
    always, bounded, scope = match.groups()
    if always is not None:
        return str(always)
    acts = scope == "all" or attempt <= int(scope or 1)
    return str(bounded) if acts else "succeed"


class LocalLauncher:
    """``ports.Launcher`` on the processes of this machine."""

    name = "local"
    replay_limit_ms: int | None = None
    """None: a replay after any time finds the process, or starts one whose claim is refused."""

    def __init__(
        self,
        settings: Settings,
        payloads: Payloads,
        *,
        environment: Mapping[str, str],
        logs: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._payloads = payloads
        self._environment = {name: environment[name] for name in _PASSED_ON if name in environment}
        self._logs = logs
        self._clock = clock
        self._starting = asyncio.Lock()
        self._stop_asked: dict[str, float] = {}
        self._reaper: asyncio.Task[None] | None = None

    def prepare(self, order: LaunchOrder) -> dict[str, Any]:
        payload = order.task.get("payload")
        known = payload if isinstance(payload, Mapping) else {}
        return {"mode": scenario_for(known, order.attempt, self._settings.local_worker)}

    async def launch(self, intent: LaunchIntent) -> Launched:
        order, mode = intent.order, str(intent.request.get("mode"))
        await lay_down(self._payloads, order)
        if mode == "manual":
            return Launched(f"{_ARN}/manual/{order.token}", Rung.SENT)
        if self._reaper is None:
            self._reaper = asyncio.create_task(_reap_children())
        # One at a time, so that repeats within this controller see each other's process. Of two controllers that
        # launch at once each may start one; the claim lets only the first of them work.
        async with self._starting:
            if order.token not in await _live_workers():
                await self._start(order, mode)
        return Launched(f"{_ARN}/process/{order.token}", Rung.SENT)

    async def find(self, intent: LaunchIntent) -> str | None:
        """A process that carries the launch token, or one of ours that ended.

        A manual worker is nothing that could be missing, so it is always found: it waits for its callback.
        """
        token = intent.order.token
        if intent.request.get("mode") == "manual":
            return f"{_ARN}/manual/{token}"
        has_one = token in await _live_workers() or local_processes.exit_code(token) is not None
        return f"{_ARN}/process/{token}" if has_one else None

    async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
        matches = {worker_id: _WORKER_ID.fullmatch(worker_id) for worker_id in worker_ids}
        some_process = any(match is not None and match[1] == "process" for match in matches.values())
        live = await _live_workers() if some_process else {}
        return [self._observation(worker_id, match, live) for worker_id, match in matches.items()]

    async def stop(self, worker_id: str, reason: str) -> bool:
        match = _WORKER_ID.fullmatch(worker_id)
        if match is None:
            return True
        token, now = match[2], self._clock()
        pids = (await _live_workers()).get(token) if match[1] == "process" else None
        asked = self._stop_asked.setdefault(token, now)
        if len(self._stop_asked) > _STOPS_REMEMBERED:
            del self._stop_asked[next(iter(self._stop_asked))]
        if not pids:
            return True
        number = signal.SIGKILL if now - asked >= KILL_AFTER_SECONDS else signal.SIGTERM
        await asyncio.to_thread(local_processes.send, number, token, pids)
        return False

    async def workers(self) -> list[FoundWorker]:
        """A manual worker is no process and never among them."""
        found = (
            found_worker(f"{_ARN}/process/{token}", environment, self._settings)
            for token, environment in (await _read(local_processes.environments)).items()
        )
        return [worker for worker in found if worker is not None]

    async def close(self) -> None:
        """Stop looking after the children; the workers run on."""
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.gather(self._reaper, return_exceptions=True)
            self._reaper = None

    def _observation(self, worker_id: str, match: re.Match[str] | None, live: Mapping[str, list[int]]) -> Observation:
        if match is None:
            return Observation(worker_id, WorkerState.MISSING, "local", "not a worker of the local launcher")
        token = match[2]
        if match[1] == "manual":
            # Only this process knows that it was asked to stop; for any other it runs until its callback.
            if token in self._stop_asked:
                return Observation(worker_id, WorkerState.STOPPED, "local:manual", "stopped on request")
            detail = "no process: it waits for a callback made by hand"
            return Observation(worker_id, WorkerState.RUNNING, "local:manual", detail)
        if pids := live.get(token):
            detail = f"process {pids[0]} carries its launch token"
            return Observation(worker_id, WorkerState.RUNNING, "local:processes", detail)
        code = local_processes.exit_code(token)
        ended = "" if code is None else f"; it ended with exit code {code}"
        detail = f"no process carries its launch token{ended}"
        return Observation(worker_id, WorkerState.STOPPED, "local:processes", detail, exit_code=code)

    async def _start(self, order: LaunchOrder, mode: str) -> None:
        environment = {
            **self._environment,
            **worker_variables(order, self._settings),
            **({} if order.callback_token is None else {CALLBACK_TOKEN_VARIABLE: order.callback_token}),
        }
        log = self._logs / f"{order.task_id}.{order.attempt}.{order.launch_try}.log" if self._logs else None
        try:
            await asyncio.to_thread(local_processes.start, mode, order.token, environment, log)
        except OSError as error:
            raise LaunchRefused(
                f"no worker process could be started: {error.strerror}", code="LAUNCH_CAPACITY", permanent=False
            ) from error


async def _live_workers() -> dict[str, list[int]]:
    return await _read(local_processes.live_workers)


async def _read(look: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(look)
    except (psutil.Error, OSError) as error:
        raise LaunchUnclear(f"the process table could not be read: {type(error).__name__}") from error


async def _reap_children() -> None:
    while True:
        await asyncio.sleep(_REAP_INTERVAL_SECONDS)
        local_processes.reap()
