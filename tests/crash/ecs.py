"""The ECS shim with real workers: each task that starts is a process, whose end is the task's, on a thread of its own.

What a container gets is the environment of RunTask's overrides and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from tests.support.ecs_shim import EcsShim, Fault, Refusal, Started

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 20.0


@dataclass(slots=True)
class Container:
    """One task's worker, in the shim's own log of launches. Times are seconds of one clock."""

    started: Started
    environment: Mapping[str, str]
    process: asyncio.subprocess.Process
    from_seconds: float
    until_seconds: float | None = None


class _Shim(EcsShim):
    def __init__(self, upstream: str, logs: Path) -> None:
        super().__init__(upstream)
        self.stops_at_once = False
        self.containers: list[Container] = []
        self._logs = logs
        self._ends: set[asyncio.Task[None]] = set()

    async def _run_task(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any] | Refusal:
        before = len(self.launches)
        done = await super()._run_task(request, body)
        for started in self.launches[before:]:
            await self._start(started)
        return done

    def _stop_task(self, body: dict[str, Any]) -> dict[str, Any] | Refusal:
        for container in self.containers:
            if container.started.arn == body["task"] and container.until_seconds is None:
                _signal(container.process, signal.SIGTERM)
        return super()._stop_task(body)

    async def _start(self, started: Started) -> None:
        (override,) = started.request["overrides"]["containerOverrides"]
        variables = {item["name"]: item["value"] for item in override["environment"]}
        name = ".".join(variables[f"ALAKAI_{part}"] for part in ("TASK_ID", "ATTEMPT", "LAUNCH_TRY"))
        with (self._logs / f"{name}.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.crash.container"),
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], **variables},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        container = Container(started, variables, process, time.monotonic())
        self.containers.append(container)
        self._ends.add(asyncio.create_task(self._end(container)))

    async def _end(self, container: Container) -> None:
        code = await container.process.wait()
        container.until_seconds = time.monotonic()
        self.finish(container.started.arn, exit_code=128 - code if code < 0 else code)

    async def __aexit__(self, *_: object) -> None:
        for container in self.containers:
            if container.until_seconds is None:
                _signal(container.process, signal.SIGKILL)
        await asyncio.gather(*self._ends)
        await super().__aexit__()


class EcsServer(AbstractContextManager["EcsServer"]):
    """The shim beside a test that blocks. ``url`` is what AWS_ENDPOINT_URL_ECS must be."""

    def __init__(self, moto_url: str, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ecs-shim", daemon=True)
        self._thread.start()
        self._shim = self._call(lambda: _made(moto_url, logs))
        self.url = self._shim.url

    def containers(self) -> list[Container]:
        return list(self._shim.containers)

    def fail(self, operation: str, fault: Fault | Refusal, times: int) -> None:
        """The next calls of that operation meet this fault."""
        self._loop.call_soon_threadsafe(self._shim.fail, operation, fault, times)

    def heal(self) -> None:
        self._loop.call_soon_threadsafe(self._shim.heal)

    def calls(self, operation: str) -> int:
        return self._shim.calls[operation]

    def event(self, arn: str) -> dict[str, Any]:
        """What EventBridge sends of the task as it is now."""
        return self._shim.event(arn)

    def __exit__(self, *_: object) -> None:
        self._call(self._shim.__aexit__)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(WAIT_SECONDS)


async def _made(moto_url: str, logs: Path) -> _Shim:
    shim = _Shim(moto_url, logs)
    await shim.__aenter__()
    return shim


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
