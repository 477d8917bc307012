"""The API as a process of its own, with nothing but a Redis: what reads and follows needs no queue and no cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from devstack.ports import free_port

ROOT = Path(__file__).parents[2]
READY_SECONDS = 30.0
STOP_SECONDS = 20.0


class ApiProcess(AbstractContextManager["ApiProcess"]):
    """Runs until killed or stopped, and may be started again on the same port."""

    def __init__(self, folder: Path, redis_url: str, prefix: str, **settings: str) -> None:
        self.port = free_port()
        self.metrics_port = free_port()
        self.log = folder / "api.log"
        self._env = {
            **{name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG")},
            "ENV": "local",
            "PORT": str(self.port),
            "API_PROBE_PORT": "0",
            "METRICS_PORT": str(self.metrics_port),
            "REDIS_URL": redis_url,
            "EXECUTIONS_REDIS_KEY_PREFIX": prefix,
            "TASK_TRACKING_REDIS_STREAM_KEY": f"{prefix}:events",
            "TASK_TRACKING_REDIS_KEY_PREFIX": f"{prefix}:",
            "SQS_QUEUE_URL": "http://127.0.0.1:1/000000000000/unused",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "api"],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + READY_SECONDS
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                with opener.open(f"{self.url}/health", timeout=2):
                    return
            except (OSError, urllib.error.URLError):
                assert self._process is not None
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """End it in order; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOP_SECONDS)

    def metrics(self) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    @property
    def memory_bytes(self) -> int:
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        return int(status[1]) * os.sysconf("SC_PAGE_SIZE")

    def __exit__(self, *_: object) -> None:
        self.kill()
