"""The controller under measurement: its own code and wiring, with two parts of the benchmark's plugged in.

`python -m bench.subject WORKER_SECONDS memory|sqs` is `python -m controller` with workers that live in this process and
report success after so long (no HTTP, no process each), so that the control plane is measured and not the workers.
With `memory` its task queue is in memory too: each line on standard input, a number, puts so many new messages on it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from bench.tasks import LAUNCHER, message, worker_id
from controller.app import App
from executions.adapters.logging import configure_logging
from executions.adapters.settings import settings_from_environment
from executions.adapters.sqs_queue import SqsQueue
from executions.evidence import Observation, WorkerState
from executions.operations.commands import Commands
from executions.outcome import Outcome
from executions.ports import Launched, LaunchIntent, LaunchOrder, Message
from executions.record import Rung

_LONGEST_WAIT_SECONDS = 0.5


class MemoryQueue:
    """`ports.Queue` without a server: gives each message once."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._arrived = asyncio.Event()

    def put_new(self, amount: int) -> None:
        """Put messages of tasks that nobody heard of before."""
        for _ in range(amount):
            name = f"task-{secrets.token_hex(6)}"
            body = orjson.dumps(message(name)).decode()
            self._waiting.append(Message(message_id=name, body=body, receipt=name))
        self._arrived.set()

    async def receive(self, *, maximum: int = 10, wait_seconds: float = 20) -> list[Message]:
        if not self._waiting:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), min(wait_seconds, _LONGEST_WAIT_SECONDS))
            except TimeoutError:
                return []
        return [self._waiting.popleft() for _ in range(min(maximum, len(self._waiting)))]

    async def delete(self, messages: Sequence[Message]) -> list[Message]:
        return []

    async def release(self, messages: Sequence[Message]) -> None:
        self._waiting.extendleft(messages)

    async def waiting(self) -> int:
        return len(self._waiting)

    async def send(self, document: Mapping[str, Any]) -> str:
        raise NotImplementedError("nothing is retried in these measurements")

    async def close(self) -> None: ...


class BenchLauncher:
    """`ports.Launcher` whose workers are timers of this process: each reports success after `worker_seconds`."""

    name = LAUNCHER

    def __init__(self, worker_seconds: float) -> None:
        self.commands: Commands | None = None
        self._worker_seconds = worker_seconds
        self._reports: set[asyncio.Task[None]] = set()

    def prepare(self, order: LaunchOrder) -> dict[str, Any]:
        return {"taskId": order.task_id, "attempt": order.attempt}

    async def launch(self, intent: LaunchIntent) -> Launched:
        report = asyncio.create_task(self._work(intent.order))
        self._reports.add(report)
        report.add_done_callback(self._reports.discard)
        return Launched(worker_id(intent.order.token), Rung.SENT)

    async def find(self, intent: LaunchIntent) -> str | None:
        return None

    async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
        return [Observation(item, WorkerState.RUNNING, "bench", "a timer") for item in worker_ids]

    async def stop(self, worker_id: str, reason: str) -> bool:
        return True

    async def close(self) -> None: ...

    async def _work(self, order: LaunchOrder) -> None:
        await asyncio.sleep(self._worker_seconds)
        assert self.commands is not None
        await self.commands.complete(Outcome(task_id=order.task_id, succeeded=True, attempt=order.attempt))


async def _run(worker_seconds: float, queue: str) -> None:
    settings = settings_from_environment()
    configure_logging(settings)
    app = App.from_settings(settings)
    launcher, tasks, unused = BenchLauncher(worker_seconds), MemoryQueue(), MemoryQueue()
    app.launcher = launcher
    # App names the class where the port would do.
    if queue == "memory":
        app.tasks = cast(SqsQueue, tasks)
    app.retries = app.kept_outcomes = cast(SqsQueue, unused)
    launcher.commands = Commands(app.store, unused, settings.policy, LAUNCHER)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    feeding = asyncio.create_task(_feed(tasks, lines))
    await app.run(asyncio.Event())
    feeding.cancel()


async def _feed(tasks: MemoryQueue, lines: asyncio.StreamReader) -> None:
    while line := await lines.readline():
        tasks.put_new(int(line))


if __name__ == "__main__":
    asyncio.run(_run(float(sys.argv[1]), sys.argv[2]))
