"""`make verify-security`: bandit over the code, pip-audit over the locks, schemathesis over the running API.

The tools live in an environment of their own (`requirements/security.txt`), so that they never meet what ships. The API
runs as it is, on a real Redis and moto, with the local sign-in and without rate limits.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.aws import ACCOUNT_ID, AwsServer
from devstack.console import say
from devstack.environment import ROOT
from devstack.errors import DevstackError
from devstack.ports import free_port
from devstack.redis import RedisServer

CODE = ("executions", "controller", "api", "cli", "worker/src")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
PHASES = "examples,fuzzing"
"""Without `coverage`, whose own code ends with an error on Python 3.11 (ast: recursion depth mismatch)."""
STREAMS = """
[[operations]]
include-path = "/dashboard/stream"
request-timeout = 0.5
"""
"""What goes on for ever is read for so long."""
READY_SECONDS = 30.0


def main() -> int:
    """`python -m devstack.security FOLDER [EXAMPLES]`: with the tools of FOLDER. Exit status 0 when all are content."""
    tools, examples = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "100"
    steps: dict[str, Callable[[], int]] = {
        "bandit": lambda: _run(tools / "bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml", *CODE),
        "pip-audit": lambda: _run(
            tools / "pip-audit", "--disable-pip", "--require-hashes", "--requirement", "requirements/run.txt"
        ),
        "schemathesis": lambda: _fuzz(tools, examples),
    }
    failed = []
    for name, step in steps.items():
        say(f"{name} …")
        if step() != 0:
            failed.append(name)
    say(f"not content: {', '.join(failed)}" if failed else "all are content")
    return 1 if failed else 0


def _run(*command: str | Path) -> int:
    return subprocess.run(command, cwd=ROOT).returncode


def _fuzz(tools: Path, examples: str) -> int:
    with tempfile.TemporaryDirectory() as folder, _api(Path(folder)) as url:
        (Path(folder) / "schemathesis.toml").write_text(STREAMS)
        command: list[str | Path] = [
            tools / "schemathesis",
            "run",
            f"{url}/openapi.json",
            *("--header", "x-dev-user: fuzz@example.com"),
            *("--max-examples", examples),
            *("--phases", PHASES),
            *("--checks", CHECKS),
            *("--workers", "2"),
            *("--suppress-health-check", "all"),
            *("--warnings", "off"),
        ]
        return _told(command, folder)


def _told(command: list[str | Path], folder: str) -> int:
    """Run it. A route that it passes over, which it says in one word only, is a failure."""
    environment = os.environ | {"NO_PROXY": "localhost", "PYTHONUNBUFFERED": "1"}
    is_complete = True
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None  # noqa: S101
        for line in running.stdout:
            sys.stdout.write(line)
            is_complete &= not line.strip().startswith("Skipped:")
    if not is_complete:
        say("schemathesis passed over routes: is each request body in /openapi.json complete?")
    return running.returncode or int(not is_complete)


@contextmanager
def _api(folder: Path) -> Iterator[str]:
    """The API's address. What it logs when it fails is shown."""
    redis, aws = RedisServer.start(folder / "redis"), AwsServer.start(folder / "aws")
    port = free_port()
    environment = {
        "ENV": "local",
        "REDIS_URL": redis.url,
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "SQS_QUEUE_URL": f"{aws.url}/{ACCOUNT_ID}/fuzz",
        "PORT": str(port),
        "API_PROBE_PORT": "0",
        "METRICS_PORT": "0",
        "PERSON_REQUESTS_PER_SECOND": "0",
        "TASK_REQUESTS_PER_SECOND": "0",
    }
    log = folder / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://localhost:{port}"
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(f"{url}/readyz"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DevstackError(f"the API did not start: {log.read_text()}")
            time.sleep(0.2)
        yield url
        for line in log.read_text().splitlines():
            if "Request failed unexpectedly" in line:
                say(line)
    finally:
        process.terminate()
        process.wait()
        aws.stop()
        redis.stop()


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


if __name__ == "__main__":
    sys.exit(main())
