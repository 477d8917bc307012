"""One installation as a user would have it: both processes, with namespace, queue, key prefix and ports of its own.

Records and resources are read here without any of the product's own code, so that what is compared is what a user sees.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import redis

from devstack import infra
from devstack.aws import ACCOUNT_ID, AwsServer
from devstack.kubernetes import ControlPlane
from devstack.ports import free_port
from devstack.redis import RedisServer

ROOT = Path(__file__).parents[2]
READY_SECONDS = 40.0
STOP_SECONDS = 20.0
DEV_USER = "you@local"
QUICK = {
    "ENV": "local",
    "LOCAL_WORKER": "succeed",
    "SWEEP_INTERVAL_SECONDS": "0.5",
    "RESYNC_INTERVAL_SECONDS": "1",
    "LOST_WORKER_GRACE_SECONDS": "0.5",
    "LEADER_LEASE_SECONDS": "3",
}
PHASES = {
    "pending": "Pending",
    "running": "Running",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
LOG_LINES_SHOWN = 15
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Running:
    """A started process, and where it answers."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """End it in order; its exit status."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)


class Installation(AbstractContextManager["Installation"]):
    """Nothing runs until it is started; leaving the block ends everything, workers included."""

    def __init__(
        self, redis_server: RedisServer, aws: AwsServer, kube: ControlPlane, folder: Path, **settings: str
    ) -> None:
        name = f"e2e-{secrets.token_hex(4)}"
        self.name = self.namespace = self.prefix = name
        self.folder = folder
        self.port = free_port()
        self.kube = kube
        self.worker_logs = folder / "workers"
        self.env = {
            **{key: text for key, text in os.environ.items() if key in ("PATH", "HOME", "LANG")},
            **QUICK,
            "KUBECONFIG": str(kube.kubeconfig),
            "EXECUTIONS_NAMESPACE": name,
            "REDIS_URL": redis_server.url,
            "EXECUTIONS_REDIS_KEY_PREFIX": name,
            "TASK_TRACKING_REDIS_STREAM_KEY": f"events-of-{name}",
            "TASK_TRACKING_REDIS_KEY_PREFIX": f"{name}-",
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "SQS_QUEUE_URL": f"{aws.url}/{ACCOUNT_ID}/{name}",
            "PORT": str(self.port),
            "API_PROBE_PORT": "0",
            "METRICS_PORT": "0",
            "CALLBACK_URL": f"http://localhost:{self.port}/task-complete",
            "ALAKAI_LOCAL_WORKER_LOGS": str(self.worker_logs),
            **settings,
        }
        self.redis = redis.Redis.from_url(redis_server.url, decode_responses=True)
        self.sqs = infra.sqs_client(self.env)
        self.http = httpx.Client(trust_env=False, timeout=30)
        self._redis_cli = redis_server.cli
        self._started: list[Running] = []
        infra.ensure_queue(self.sqs, name)
        self.kubectl("create", "namespace", name, namespaced=False)

    def __exit__(self, *_: object) -> None:
        for running in self._started:
            if running.process.poll() is None:
                running.kill()
        for worker in self.workers():
            worker.kill()
        self.http.close()
        self.sqs.close()
        self.redis.close()

    # Processes

    def start_controller(
        self, *, wait: bool = True, program: Sequence[str] = ("controller",), **settings: str
    ) -> Running:
        """``program`` is what ``python -m`` runs."""
        port = free_port()
        return self._start("controller", program, port, wait, {"CONTROLLER_PORT": str(port), **settings})

    def start_api(self, *, wait: bool = True, program: Sequence[str] = ("api",), **settings: str) -> Running:
        """The first one gets the port that workers call back to; further ones get others."""
        is_first = not any(item.name == "api" and item.process.poll() is None for item in self._started)
        port = self.port if is_first else free_port()
        return self._start("api", program, port, wait, {"PORT": str(port), **settings})

    def start_both(self, *, controllers: int = 1, **settings: str) -> tuple[Running, Running]:
        """Side by side, because starting is mostly importing. The first controller and the API."""
        started = [self.start_controller(wait=False, **settings) for _ in range(controllers)]
        started.append(self.start_api(wait=False, **settings))
        for running in started:
            self.wait_ready(running)
        return started[0], started[-1]

    def wait_ready(self, running: Running, path: str = "/readyz") -> None:
        def is_ready() -> bool:
            assert running.process.poll() is None, f"{running.name} ended: {running.log_text()}"
            return self.answers(f"{running.url}{path}")

        self.wait_until(is_ready, READY_SECONDS, f"{running.name} is ready")

    def running(self) -> list[Running]:
        """The processes that have not ended."""
        return [item for item in self._started if item.process.poll() is None]

    def answers(self, url: str) -> bool:
        try:
            return self.http.get(url).status_code == 200
        except httpx.HTTPError:
            return False

    def _start(self, name: str, program: Sequence[str], port: int, wait: bool, settings: Mapping[str, str]) -> Running:
        log = self.folder / f"{name}-{len(self._started) + 1}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *program],
                cwd=ROOT,
                env={**self.env, **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(Running(name, port, process, log))
        if wait:
            self.wait_ready(self._started[-1])
        return self._started[-1]

    def workers(self, task_id: str | None = None) -> list[psutil.Process]:
        """The worker processes of this installation, or of one of its tasks, that are alive."""
        return [process for process in psutil.process_iter(["cmdline"]) if self._is_ours(process, task_id)]

    def _is_ours(self, process: psutil.Process, task_id: str | None) -> bool:
        if "alakai_worker" not in (process.info["cmdline"] or ()):
            return False
        try:
            environ = process.environ()
        except psutil.Error:
            return False
        is_of_task = task_id is None or environ.get("ALAKAI_TASK_ID") == task_id
        return is_of_task and environ.get("ALAKAI_CALLBACK_URL") == self.env["CALLBACK_URL"]

    # Tools

    def kubectl(self, *arguments: str, stdin: str = "", namespaced: bool = True, fails: bool = False) -> str:
        """Its output, or with `fails` its complaint."""
        where = ["--namespace", self.namespace] if namespaced else []
        done = subprocess.run(
            [self.kube.kubectl, "--kubeconfig", self.kube.kubeconfig, *where, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert (done.returncode != 0) is fails, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    def redis_cli(self, *arguments: str) -> str:
        command: list[str | Path] = [self._redis_cli, "-u", self.env["REDIS_URL"], *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    def alakai(self, *arguments: str) -> dict[str, str]:
        """What the command line tool printed, by name."""
        return dict(line.split(": ", 1) for line in self.alakai_says(*arguments).splitlines())

    def alakai_says(self, *arguments: str) -> str:
        """What the command line tool printed."""
        done = self.run_alakai(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run_alakai(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """The command line tool, whatever came of it."""
        command = [sys.executable, "-m", "cli.main", *arguments]
        env = {**self.env, **settings}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)

    # What users send

    def send(self, *bodies: Any) -> None:
        """Messages to the task queue, ten in one request; a text goes out as it is."""
        texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
        for start in range(0, len(texts), 10):
            entries = [{"Id": str(i), "MessageBody": text} for i, text in enumerate(texts[start : start + 10])]
            sent = self.sqs.send_message_batch(QueueUrl=self.env["SQS_QUEUE_URL"], Entries=entries)  # type: ignore[arg-type]
            assert not sent.get("Failed"), sent["Failed"]

    def queued(self, *, only_waiting: bool = False) -> int:
        """Messages in the task queue, those that were received and not deleted yet included."""
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.env["SQS_QUEUE_URL"], AttributeNames=names)
        return sum(int(found["Attributes"][name]) for name in names[: 1 if only_waiting else 2])

    def post(
        self, path: str, body: Any = None, *, api: Running | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON body of a request by the local user, or by whom `headers` say."""
        base = api.url if api else f"http://localhost:{self.port}"
        given = {"x-dev-user": DEV_USER} if headers is None else dict(headers)
        answer = self.http.post(f"{base}{path}", json={} if body is None else body, headers=given)
        return answer.status_code, answer.json()

    def read(self, path: str) -> Any:
        """The JSON body that the local user gets, which must be a good one."""
        answer = self.http.get(f"http://localhost:{self.port}{path}", headers={"x-dev-user": DEV_USER})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def retry(self, task_id: str, **options: Any) -> tuple[int, Any]:
        return self.post(f"/dashboard/executions/{task_id}/retry", **options)

    def complete(self, task_id: str, error: str | None = None) -> tuple[int, Any]:
        """The callback that a manual worker waits for."""
        result = {"status": "error", "errorMessage": error} if error else {"status": "success"}
        return self.post("/task-complete", {"taskId": task_id, "result": result}, headers={})

    # What users see

    def record(self, task_id: str) -> dict[int, dict[str, Any]]:
        """The attempts of a record by number."""
        found: Any = self.redis.hgetall(f"{self.prefix}:{task_id}")
        return {int(number): json.loads(text) for number, text in found.items()}

    def status(self, task_id: str) -> tuple[int, str] | None:
        """Number and status of the latest attempt."""
        attempts = self.record(task_id)
        return (max(attempts), attempts[max(attempts)]["status"]) if attempts else None

    def records(self) -> dict[str, tuple[int, str]]:
        """Number and status of every task's latest attempt."""
        start = len(self.prefix) + 1
        ids = [str(key)[start:] for key in self.redis.scan_iter(match=f"{self.prefix}:*", count=1000)]
        found = {task_id: self.status(task_id) for task_id in ids}
        return {task_id: status for task_id, status in found.items() if status}

    def resource(self, name: str) -> dict[str, Any] | None:
        text = self.kubectl("get", "execution", name, "--ignore-not-found", "-o", "json")
        found: dict[str, Any] | None = json.loads(text) if text.strip() else None
        return found

    def phase(self, name: str) -> tuple[int, str] | None:
        """Attempt and phase that kubectl shows."""
        found = self.resource(name)
        return _shown(found) if found else None

    def statuses(self) -> dict[str, dict[str, Any]]:
        """The status of every resource by its name."""
        items = json.loads(self.kubectl("get", "executions", "-o", "json"))["items"]
        return {item["metadata"]["name"]: item.get("status", {}) for item in items}

    def resources(self) -> dict[str, tuple[int, str]]:
        """Attempt and phase of every resource by task id."""
        items = json.loads(self.kubectl("get", "executions", "-o", "json"))["items"]
        return {item["spec"].get("taskId", item["metadata"]["name"]): _shown(item) for item in items}

    def differences(self, *, without: Collection[str] = ()) -> dict[str, tuple[object, object]]:
        """Where resources do not show what records say; `without` are the tasks that must have no resource."""
        expected = {
            task_id: (attempt, PHASES[status])
            for task_id, (attempt, status) in self.records().items()
            if task_id not in without
        }
        shown = self.resources()
        return {
            task_id: (expected.get(task_id), shown.get(task_id))
            for task_id in expected.keys() | shown.keys()
            if expected.get(task_id) != shown.get(task_id)
        }

    def work_done(self, task_id: str) -> list[tuple[int, str]]:
        """Attempt and final status of every worker process that ran for a task, by its own summary event."""
        self.wait_until(lambda: not self.workers(task_id), 30, f"the workers of {task_id} have ended")
        found = []
        for path in sorted(self.worker_logs.glob(f"{task_id}.*.log")):
            attempt = int(path.name.removeprefix(f"{task_id}.").split(".")[0])
            found += [(attempt, event["final_status"]) for event in events(path.read_text())]
        return found

    def logs(self) -> str:
        """Everything that all processes wrote, workers included."""
        paths = [running.log for running in self._started] + sorted(self.worker_logs.glob("*.log"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def wait_until(self, condition: Callable[[], T], seconds: float, about: str) -> T:
        """What the condition gives as soon as it is true; fails with the ends of all logs when it never is."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                ends = "".join(f"\n--- {item.log.name}\n{_end_of(item.log_text())}" for item in self._started)
                raise AssertionError(f"not within {seconds:g} s: {about}; at last {found!r}{ends}")
            time.sleep(0.05)
        return found

    def wait_for(self, task_id: str, attempt: int, status: str, seconds: float = 30.0) -> None:
        """Until the record says so."""
        self.wait_until(
            lambda: self.status(task_id) == (attempt, status), seconds, f"{task_id} is {status} at attempt {attempt}"
        )


def message(task_id: str, scenario: str | None = None, **payload: Any) -> dict[str, Any]:
    """A task message; without a scenario the worker does what LOCAL_WORKER says."""
    return {
        "taskId": task_id,
        "taskType": "implementation",
        "payload": {
            "repo": "my-org/my-repo",
            "source": "coding.implementation",
            "prompt": "add retries",
            **({"scenario": scenario} if scenario else {}),
            **payload,
        },
        "metadata": {"createdAt": 1, "trace_id": f"trace-{task_id}"},
        "callbacks": {"github": {"repo": "my-org/my-repo", "issueNumber": 1}},
    }


def told_to_nobody(folder: Path) -> Path:
    """A notification file whose webhook nobody listens to."""
    (folder / "secret").write_text("a-secret-of-the-webhook")
    path = folder / "notifications.yaml"
    path.write_text(
        f"webhook: {{url: 'http://127.0.0.1:{free_port()}/', secretFile: secret}}\n"
        "delivery: {firstWaitSeconds: 0.1, giveUpAfterSeconds: 0.5}\n"
    )
    return path


def events(log: str) -> Iterator[dict[str, Any]]:
    """The summary events of a log."""
    for line in log.splitlines():
        if '"final_status"' in line:
            yield json.loads(line)


def at_once(calls: list[Callable[[], T]]) -> list[T]:
    """Call them all side by side; the answers in order."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(lambda call: call(), calls))


def _shown(item: Mapping[str, Any]) -> tuple[int, str]:
    status = item.get("status", {})
    return status.get("attempt", 1), status.get("phase", "")


def _end_of(log: str) -> str:
    return "\n".join(line[:240] for line in log.splitlines()[-LOG_LINES_SHOWN:])
