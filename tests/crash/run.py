"""One run: an installation with a trap in one of its processes, a dozen tasks of every kind, and what was seen of them.

The run drives what people do (retry, cancel, delete), brings back a process that was killed, wakes one that was paused,
and waits until everything is at rest.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.crash.ecs import EcsServer
from tests.crash.failpoints import MARK_VARIABLE, VARIABLE, Action, Failpoint
from tests.crash.invariants import FINAL, Launch, Record, Seen, WorkerEnd, violations
from tests.e2e.installation import Installation, Running, events, message
from tests.support.ecs_world import make_cluster

PROGRAM = "tests.crash.process"
STUCK_SECONDS = 90.0
"""Nothing comes nearer to rest for so long: it never will. Not a limit for the whole: machines differ in speed."""
LONGEST_SECONDS = 900.0
CANARY = "hunter2-of-the-matrix"
KINDS = ("fine", "fails", "dies", "cancelled", "applied", "deleted")
_TICK_SECONDS = 0.2
_LONG_SECONDS = 60
_ASK_SECONDS = 2.0
_VISIBILITY_SECONDS = "6"


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. A failpoint that was never reached tested nothing, which is a failure too."""

    is_reached: bool
    violations: list[str]
    seconds: float

    @property
    def is_good(self) -> bool:
        return self.is_reached and not self.violations


@dataclass(slots=True)
class Run:
    """One installation under one failpoint."""

    installation: Installation
    failpoint: Failpoint
    pause_seconds: float
    launcher: str = "local"
    """``local``, or ``ecs``: the shim before moto, with real workers in its tasks."""
    each: int = 2
    """How many tasks of each kind."""
    broken_off: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the result any more."""
    settings: dict[str, str] = field(default_factory=lambda: {"RETRY_REDELIVER_SECONDS": "3"})
    history: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    done: set[tuple[str, str]] = field(default_factory=set)
    """What was asked for already, by deed and task."""
    victim: Running | None = None
    wake_at: float | None = None
    is_handled: bool = False
    ecs: EcsServer | None = None

    @property
    def mark(self) -> Path:
        return self.installation.folder / "reached"

    def tasks(self, kind: str) -> list[str]:
        return [f"{kind}-{number}" for number in range(self.each)]

    def everything(self) -> list[str]:
        return [task_id for kind in KINDS for task_id in self.tasks(kind)]

    def __call__(self) -> Result:
        # A paused API answers nobody, and whoever waits for it does not wake it.
        self.installation.http.timeout = httpx.Timeout(_ASK_SECONDS)
        with ExitStack() as stack:
            if self.launcher == "ecs":
                self.ecs = stack.enter_context(EcsServer(self.installation.env["AWS_ENDPOINT_URL"], self._logs))
                path = self.installation.folder / "launcher.yaml"
                path.write_text(json.dumps(make_cluster(self.installation.env["AWS_ENDPOINT_URL"])))
                self.settings |= {
                    "LAUNCHER": "ecs",
                    "ECS_LAUNCHER_FILE": str(path),
                    "AWS_ENDPOINT_URL_ECS": self.ecs.url,
                }
            return self._run()

    @property
    def _logs(self) -> Path:
        return self.installation.worker_logs

    def _run(self) -> Result:
        began = time.monotonic()
        self._start()
        self._send()
        last, since = None, began
        while (unrest := self._unrest()) is not None and time.monotonic() < began + LONGEST_SECONDS:
            if unrest != last:
                last, since = unrest, time.monotonic()
            if time.monotonic() > since + STUCK_SECONDS + self.pause_seconds:
                break
            self._look()
            self._act()
            self._handle_trap()
            if self.broken_off.wait(_TICK_SECONDS):
                break
        problems = violations(self._seen())
        if unrest is not None and not problems:
            problems = [f"L1 it never came to rest: {unrest}"]
        return Result(self.mark.exists(), problems, time.monotonic() - began)

    def _start(self) -> None:
        # What a crashed process had in hand comes again soon, so that a run takes seconds.
        self.installation.sqs.set_queue_attributes(
            QueueUrl=self.installation.env["SQS_QUEUE_URL"], Attributes={"VisibilityTimeout": _VISIBILITY_SECONDS}
        )
        trap = {VARIABLE: str(self.failpoint), MARK_VARIABLE: str(self.mark), **self.settings}
        make_api, make_controller = self.installation.start_api, self.installation.start_controller
        if self.failpoint.is_of_api:
            self.victim = make_api(wait=False, program=(PROGRAM, "api"), **trap)
            make_controller(wait=False, **self.settings)
        else:
            make_api(wait=False, **self.settings)
            self.victim = make_controller(wait=False, program=(PROGRAM, "controller"), **trap)

    def _send(self) -> None:
        secret = {"note": CANARY}
        # A manual worker reports nothing when it is stopped, so that it is the controller that ends its attempt.
        scenarios = {"fine": "succeed", "fails": "fail", "dies": "die", "cancelled": "manual"}
        bodies = [
            message(task_id, scenario, seconds=1, secret=secret)
            for kind, scenario in scenarios.items()
            for task_id in self.tasks(kind)
        ]
        self.installation.send(*bodies)
        for kind, scenario in (("applied", "succeed"), ("deleted", "slow")):
            for task_id in self.tasks(kind):
                payload = {"scenario": scenario, "seconds": _LONG_SECONDS}
                manifest = {
                    "apiVersion": "alakai.dev/v1alpha1",
                    "kind": "WorkerExecution",
                    "metadata": {"name": task_id},
                    "spec": {"taskType": "implementation", "task": {"payload": payload}},
                }
                self.installation.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def _look(self) -> None:
        for task_id in self.everything():
            record, looks = self.installation.record(task_id), self.history[task_id]
            if record and (not looks or looks[-1] != record):
                looks.append(record)

    def _act(self) -> None:
        """What people do, as soon as there is reason to; what is not answered is asked for again at the next turn."""
        latest = {task_id: looks[-1][max(looks[-1])] for task_id, looks in self.history.items() if looks}
        for task_id, attempt in latest.items():
            kind, is_first = task_id.split("-")[0], attempt["attempt"] == 1
            if kind in ("fails", "dies") and is_first and attempt["status"] == "failed":
                self._ask("retry", task_id, {})
            if kind == "cancelled" and attempt["status"] == "running":
                self._ask("cancel", task_id, {"reason": "not needed"})
            if kind == "deleted" and attempt["status"] == "running" and ("delete", task_id) not in self.done:
                self.installation.kubectl("delete", "execution", task_id, "--wait=false", "--ignore-not-found")
                self.done.add(("delete", task_id))

    def _ask(self, deed: str, task_id: str, body: dict[str, Any]) -> None:
        if (deed, task_id) in self.done:
            return
        try:
            status, _ = self.installation.post(f"/dashboard/executions/{task_id}/{deed}", body)
        except (httpx.HTTPError, ValueError):
            return  # Nobody is there, or by now somebody else's server, whose answer is none of ours.
        if status in (200, 202):
            self.done.add((deed, task_id))

    def _handle_trap(self) -> None:
        victim = self.victim
        if victim is None or not self.mark.exists():
            return
        if self.wake_at is not None and time.monotonic() >= self.wake_at:
            victim.process.send_signal(signal.SIGCONT)
            self.wake_at = None
        if self.is_handled:
            return
        self.is_handled = True
        match self.failpoint.action:
            case Action.KILL:
                victim.process.wait(10)
                self._replace()
            case Action.PAUSE:
                self.wake_at = time.monotonic() + self.pause_seconds
                if not self.failpoint.is_of_api:
                    self._replace()

    def _replace(self) -> None:
        if self.failpoint.is_of_api:
            self.installation.start_api(wait=False, **self.settings)
        else:
            self.installation.start_controller(wait=False, **self.settings)

    def _unrest(self) -> str | None:
        """What is not at rest yet; None when everything is."""
        installation, deleted = self.installation, self.tasks("deleted")
        if self.wake_at is not None or (self.mark.exists() and not self.is_handled):
            return "the process with the trap is not back yet"
        records = installation.records()
        if set(records) != set(self.everything()):
            return f"{len(records)} of {len(self.everything())} tasks have a record"
        if unfinished := {task_id: found for task_id, found in records.items() if found[1] not in FINAL}:
            return f"unfinished: {unfinished}"
        if any(records[task_id][0] != 2 for kind in ("fails", "dies") for task_id in self.tasks(kind)):
            return f"not retried: {records}"
        if queued := installation.queued():
            return f"{queued} messages in the queue"
        if any(self._waiting().values()):
            return f"in the indexes: {self._waiting()}"
        if differences := installation.differences(without=deleted):
            return f"records and resources differ: {differences}"
        if alive := self._alive():
            return f"workers: {alive}"
        if any(code != 200 for code in self._probes().values()):
            return f"probes: {self._probes()}"
        return None

    def _alive(self) -> list[str]:
        """The workers that are there, of either launcher."""
        found = [str(worker.pid) for worker in self.installation.workers()]
        containers = self.ecs.containers() if self.ecs else []
        return found + [item.started.arn for item in containers if item.until_seconds is None]

    def _launches(self) -> list[Launch]:
        return [
            Launch(
                item.environment["ALAKAI_TASK_ID"],
                int(item.environment["ALAKAI_ATTEMPT"]),
                item.from_seconds,
                item.until_seconds,
            )
            for item in (self.ecs.containers() if self.ecs else ())
        ]

    def _waiting(self) -> dict[str, int]:
        prefix = self.installation.prefix
        count: Any = self.installation.redis.zcard
        return {name: count(f"{prefix}/index:{name}") for name in ("waiting", "live", "due")}

    def _seen(self) -> Seen:
        installation = self.installation
        items = json.loads(installation.kubectl("get", "executions", "-o", "json"))["items"]
        resources = {item["spec"].get("taskId", item["metadata"]["name"]): item for item in items}
        told = installation.kubectl("get", "events", "-o", "json") + installation.logs()
        made_by_mirror = [item for item in items if not item["metadata"]["name"].startswith(("applied", "deleted"))]
        return Seen(
            accepted=self.everything(),
            records={task_id: installation.record(task_id) for task_id in installation.records()},
            history=self.history,
            resources=resources,
            sequences={task_id: self._sequence(task_id) for task_id in installation.records()},
            workers=self._worker_ends(),
            launches=self._launches(),
            alive=self._alive(),
            queued=installation.queued(),
            waiting=self._waiting(),
            deleted=self.tasks("deleted"),
            secrets=[CANARY],
            told=told + json.dumps(made_by_mirror),
            probes=self._probes(),
        )

    def _sequence(self, task_id: str) -> int:
        document: Any = self.installation.redis.hget(f"{self.installation.prefix}/state:{task_id}", "doc")
        return int(json.loads(document or "{}").get("sequence", 0))

    def _worker_ends(self) -> list[WorkerEnd]:
        ends = []
        for path in sorted(self._logs.glob("*.log")):
            task_id, attempt, launch_try = path.stem.rsplit(".", 2)
            ends += [
                WorkerEnd(task_id, int(attempt), int(launch_try), event["final_status"])
                for event in events(path.read_text())
            ]
        return ends

    def _probes(self) -> dict[str, int]:
        codes = {}
        for running in self.installation.running():
            try:
                codes[f"{running.name} {running.port}"] = self.installation.http.get(
                    f"{running.url}/readyz"
                ).status_code
            except httpx.HTTPError:
                codes[f"{running.name} {running.port}"] = 0
        return codes
