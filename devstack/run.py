"""`make run` and `make demo`: the whole stack, both processes and three tasks that show what the operator does.

One task succeeds; one fails and is retried over HTTP; the worker of one dies silently, is found lost and stays to be
looked at. What is shown is read from the custom resources, as kubectl would.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from kubernetes import client
from rich.console import Console
from rich.live import Live
from rich.table import Table

from devstack import environment, infra, stack
from devstack.console import say
from devstack.errors import DevstackError, PortTaken
from devstack.ports import require_free

DEMO_SECONDS = 120.0
START_SECONDS = 60.0
STOP_SECONDS = 20.0
QUICK = {
    # The demo should take seconds: look often, and give a silent worker little grace.
    "ENV": "local",
    "LOCAL_WORKER": "succeed",
    "SWEEP_INTERVAL_SECONDS": "1",
    "RESYNC_INTERVAL_SECONDS": "10",
    "LOST_WORKER_GRACE_SECONDS": "3",
}
DEV_USER = "you@local"


@dataclass(slots=True)
class DemoTask:
    """A task, what its worker is told to do, and where it must end."""

    task_id: str
    scenario: str
    about: str
    phase: str
    attempt: int
    reason: str
    seen: dict[str, Any] = field(default_factory=dict)
    is_retried: bool = False

    @property
    def is_there(self) -> bool:
        found = (self.seen.get("phase"), self.seen.get("attempt"), self.seen.get("reason"))
        return found == (self.phase, self.attempt, self.reason)


def demo_tasks(suffix: str) -> list[DemoTask]:
    return [
        DemoTask(f"demo-succeeds-{suffix}", "succeed", "its worker succeeds", "Succeeded", 1, "WorkerSucceeded"),
        DemoTask(f"demo-retried-{suffix}", "fail", "fails, is retried by HTTP", "Succeeded", 2, "WorkerSucceeded"),
        DemoTask(f"demo-lost-{suffix}", "die", "its worker dies silently", "Failed", 1, "WorkerLost"),
    ]


def main() -> int:
    """Exit status 0 when every demo task ended where it should."""
    parser = argparse.ArgumentParser(prog="python -m devstack.run")
    parser.add_argument("--exit", action="store_true", help="stop everything after the demo")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with demo() as shown:
            say("\nEvery task is where it should be." if shown.is_there else _what_is_wrong(shown.tasks))
            if not options.exit:
                print(_next_commands(shown.tasks, shown.values), flush=True)
                signal.pause()
            return 0 if shown.is_there else 1
    except DevstackError as error:
        say(f"error: {error}")
    except KeyboardInterrupt:
        say("stopped")
        return 0 if not options.exit else 1
    return 1


@dataclass(frozen=True, slots=True)
class Demo:
    """What runs, by which settings, and whether its tasks got where they should."""

    tasks: list[DemoTask]
    values: Mapping[str, str]
    is_there: bool


@contextmanager
def demo() -> Iterator[Demo]:
    """The stack and both processes, with the demo's tasks sent and followed to their end. Raises DevstackError."""
    with ExitStack() as cleanup:
        values = _started(cleanup)
        tasks = demo_tasks(secrets.token_hex(2))
        send(values, *(message(task.task_id, task.scenario, task.about) for task in tasks))
        yield Demo(tasks, values, _follow(tasks, values))


def _started(cleanup: ExitStack) -> dict[str, str]:
    """The settings of what runs now, until `cleanup`."""
    for variable, default in (("PORT", "3000"), ("CONTROLLER_PORT", "8080")):
        _require_port(variable, int(os.environ.get(variable) or default))
    # What was started is stopped even when a later step fails; what ran before is left as it was.
    before = {part.variable for part in stack.components() if part.is_running}
    cleanup.callback(_stop_stack, before)
    stack.up()
    values = os.environ | environment.current(environment.LOCAL / "env")
    os.environ.update(values)
    infra.infra(values)
    values = QUICK | {name: text for name, text in values.items() if name not in QUICK or name in os.environ}
    values["ENV"] = "local"
    values["ALAKAI_LOCAL_WORKER_LOGS"] = str(environment.LOCAL / "workers")
    cleanup.enter_context(_process("controller", values))
    cleanup.enter_context(_process("api", values))
    _wait_until_ready(values)
    say(f"dashboard: http://localhost:{values['PORT']}/dashboard (sign in as anybody, for instance {DEV_USER})")
    return values


def _stop_stack(before: set[str]) -> None:
    started = {part.variable for part in stack.components() if part.is_running} - before
    if started:
        stack.down(only=started)


@contextmanager
def _process(name: str, values: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m controller` or `python -m api`, its log in `.local/`; ended with us."""
    log_path = environment.LOCAL / f"{name}.log"
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", name],
            cwd=environment.ROOT,
            env=dict(values),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to pass on, in the right order
        )
    say(f"{name}: started, log in {log_path.relative_to(environment.ROOT)}")
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(STOP_SECONDS)
        say(f"{name}: stopped")


def _wait_until_ready(values: Mapping[str, str]) -> None:
    urls = {
        "controller": f"http://localhost:{values.get('CONTROLLER_PORT') or 8080}/readyz",
        "api": f"http://localhost:{values['PORT']}/readyz",
    }
    deadline = time.monotonic() + START_SECONDS
    for name, url in urls.items():
        while not _answers(url):
            if time.monotonic() > deadline:
                raise DevstackError(f"{name} was not ready after {START_SECONDS:.0f} s; see .local/{name}.log")
            time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            return int(answer.status) == 200
    except (URLError, OSError):
        return False


def send(values: Mapping[str, str], *messages: Mapping[str, Any]) -> None:
    """Put messages on the task queue."""
    sqs = infra.sqs_client(dict(values))
    for item in messages:
        sqs.send_message(QueueUrl=values["SQS_QUEUE_URL"], MessageBody=json.dumps(item))


def message(task_id: str, scenario: str, about: str, **payload: Any) -> dict[str, Any]:
    """A task whose worker does what the scenario says."""
    return {
        "taskId": task_id,
        "taskType": "implementation",
        "payload": {
            "repo": "my-org/my-repo",
            "source": "coding.implementation",
            "prompt": about,
            "scenario": scenario,
            **payload,
        },
        "metadata": {"createdAt": round(time.time() * 1000), "trace_id": f"trace-{task_id}"},
        "callbacks": {},
    }


def _follow(tasks: list[DemoTask], values: Mapping[str, str]) -> bool:
    resources = client.CustomObjectsApi(infra.kubernetes_client(values["KUBECONFIG"]))
    deadline = time.monotonic() + DEMO_SECONDS
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=120)  # a log has no width of its own
    with Live(_table(tasks), console=console, refresh_per_second=8) as live:
        while time.monotonic() < deadline:
            _look(tasks, resources, values["EXECUTIONS_NAMESPACE"])
            live.update(_table(tasks))
            if all(task.is_there for task in tasks):
                return True
            for task in tasks:
                if task.scenario == "fail" and task.seen.get("phase") == "Failed" and not task.is_retried:
                    task.is_retried = _retry(task, values)
            time.sleep(0.25)
    return False


def _look(tasks: list[DemoTask], resources: client.CustomObjectsApi, namespace: str) -> None:
    found: Any = resources.list_namespaced_custom_object("alakai.dev", "v1alpha1", namespace, "workerexecutions")
    by_name = {item["metadata"]["name"]: item for item in found["items"]}
    for task in tasks:
        item = by_name.get(task.task_id)
        if item is not None:
            task.seen = item.get("status", {})


def _retry(task: DemoTask, values: Mapping[str, str]) -> bool:
    request = Request(
        f"http://localhost:{values['PORT']}/dashboard/executions/{task.task_id}/retry",
        data=b"{}",
        headers={"content-type": "application/json", "x-dev-user": DEV_USER},
        method="POST",
    )
    try:
        with urlopen(request, timeout=10) as answer:
            return int(answer.status) == 202
    except (URLError, OSError):
        return False


def _table(tasks: list[DemoTask]) -> Table:
    table = Table(title="executions", title_justify="left")
    for name in ("NAME", "WHAT HAPPENS", "PHASE", "ATTEMPT", "REASON", ""):
        table.add_column(name)
    colours = {"Succeeded": "green", "Failed": "red", "Running": "cyan"}
    for task in tasks:
        phase = str(task.seen.get("phase") or "queued")
        table.add_row(
            task.task_id,
            task.about,
            f"[{colours.get(phase, 'default')}]{phase}[/]",
            str(task.seen.get("attempt") or ""),
            str(task.seen.get("reason") or ""),
            "✓" if task.is_there else "…",
        )
    return table


def _what_is_wrong(tasks: list[DemoTask]) -> str:
    lines = [
        f"  {task.task_id}: wanted {task.phase} at attempt {task.attempt}, found {task.seen.get('phase') or 'nothing'}"
        for task in tasks
        if not task.is_there
    ]
    return "\n".join([f"After {DEMO_SECONDS:.0f} s not every task is where it should be:", *lines, "See .local/*.log"])


def _next_commands(tasks: list[DemoTask], values: Mapping[str, str]) -> str:
    lost = tasks[-1].task_id
    return f"""
Everything runs until Ctrl-C. Look at it in a browser, signed in as anybody, for instance {DEV_USER}:

  http://localhost:{values["PORT"]}/dashboard

In another terminal, in this folder:

  set -a; . .local/env; set +a
  kubectl get executions -o wide
  kubectl describe execution {lost}
  redis-cli -u "$REDIS_URL" HGET alakai-executions:{lost} 1 | python3 -m json.tool
  curl -sS -X POST http://localhost:{values["PORT"]}/dashboard/executions/{lost}/retry -H 'x-dev-user: {DEV_USER}'
  kubectl wait --for=condition=Succeeded execution/{lost} --timeout=60s
  make send-sqs TASK_ID=my-first-task
"""


def _require_port(variable: str, port: int) -> None:
    try:
        require_free(port)
    except PortTaken as taken:
        raise DevstackError(
            f"port {port} is taken: set {variable} to a free one, for instance `{variable}={port + 10000} make run`"
        ) from taken


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
