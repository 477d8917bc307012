"""Redis loses everything under load: nothing is served until it is rebuilt, nothing runs twice, all is accounted for.

Each test has a Redis of its own, because it is emptied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from tests.e2e.installation import Installation, events, message

LOST = "An execution is lost"
SLOW_SECONDS = 6


@pytest.fixture
def installation(aws: AwsServer, kube: ControlPlane, tmp_path: Path) -> Iterator[Installation]:
    server = RedisServer.start(tmp_path / "redis")
    try:
        with Installation(server, aws, kube, tmp_path) as found:
            yield found
    finally:
        server.stop()


def apply(installation: Installation, name: str, scenario: str, **spec: object) -> None:
    task = {"payload": {"scenario": scenario, "seconds": SLOW_SECONDS}}
    manifest = {
        "apiVersion": "alakai.dev/v1alpha1",
        "kind": "WorkerExecution",
        "metadata": {"name": name},
        "spec": {"taskType": "implementation", "task": task, **spec},
    }
    installation.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def phases(installation: Installation, *names: str) -> set[tuple[int, str] | None]:
    shown = installation.resources()
    return {shown.get(name) for name in names}


def serve_again(installation: Installation) -> None:
    installation.wait_until(
        lambda: "Redis is rebuilt and served again" in installation.logs(), 60, "Redis is rebuilt and served again"
    )
    installation.wait_until(
        lambda: installation.answers(f"http://localhost:{installation.port}/readyz"), 30, "the API is ready again"
    )


def populate(installation: Installation) -> dict[str, list[str]]:
    """Executions in every state, all of them shown; by what they must come to."""
    done, failed, slow, users = (
        [f"{kind}-{number}" for number in range(5)] for kind in ("done", "failed", "slow", "users")
    )
    installation.send(*(message(name) for name in done), *(message(name, "fail") for name in failed))
    for name in done:
        installation.wait_for(name, 1, "succeeded")
    for name in failed:
        installation.wait_for(name, 1, "failed")
    apply(installation, "held", "succeed", suspend=True)
    for name in users:
        apply(installation, name, "slow")
    installation.send(*(message(name, "slow", seconds=SLOW_SECONDS) for name in slow))
    at_work = [*slow, *users]
    installation.wait_until(
        lambda: phases(installation, *at_work) == {(1, "Running")} and installation.phase("held") == (1, "Pending"),
        60,
        "all are at work and shown",
    )
    installation.wait_until(lambda: not installation.differences(), 30, "the mirror equals Redis")
    return {"done": done, "failed": failed, "slow": slow, "users": users}


@pytest.mark.timeout(300)
def test_a_redis_that_lost_everything_is_rebuilt_and_nothing_runs_twice(installation: Installation) -> None:
    first, _ = installation.start_both(controllers=2)
    made = populate(installation)
    installation.redis.flushall()
    # Until it is rebuilt nobody gets an answer from an empty Redis.
    status, body = installation.retry("failed-0")
    assert status == 502 or "Redis is rebuilt" in installation.logs(), body
    serve_again(installation)

    for name in made["done"]:
        assert installation.status(name) == (1, "succeeded")
    for name in [*made["slow"], *made["users"]]:
        installation.wait_for(name, 1, "succeeded", 60)
        finals = [final for _, final in installation.work_done(name)]
        assert finals.count("completed") == 1, finals
    assert installation.status("held") == (1, "pending")
    installation.kubectl("patch", "execution", "held", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    installation.wait_for("held", 1, "succeeded")
    # What is known of a message's payload went with Redis: a person is told, and sends it again.
    assert installation.status("failed-1") == (1, "failed")
    assert installation.retry("failed-1") == (409, {"error": "cannot retry: task payload is lost"})
    installation.send(message("after"))
    installation.wait_for("after", 1, "succeeded")
    installation.wait_until(lambda: not installation.differences(), 30, "the mirror equals Redis")
    assert LOST not in installation.logs()
    assert len(installation.work_done("after")) == 1
    assert first.process.poll() is None


@pytest.mark.timeout(300)
def test_when_all_replicas_are_killed_too_those_that_follow_rebuild_it(installation: Installation) -> None:
    controllers = [installation.start_controller(wait=False) for _ in range(2)]
    installation.start_api(wait=False)
    for running in controllers:
        installation.wait_ready(running)
    made = populate(installation)
    for running in controllers:
        running.kill()
    installation.redis.flushall()
    api = f"http://localhost:{installation.port}"
    installation.wait_until(lambda: not installation.answers(f"{api}/readyz"), 30, "the API is not ready")
    assert installation.answers(f"{api}/livez"), "a restart would not help"
    # Workers report meanwhile: their outcomes are kept.
    installation.wait_until(lambda: not installation.workers(), 60, "every worker has reported")
    again = [installation.start_controller(wait=False) for _ in range(2)]
    serve_again(installation)
    for name in [*made["done"], *made["slow"], *made["users"]]:
        installation.wait_for(name, 1, "succeeded", 60)
        assert [final for _, final in installation.work_done(name)].count("completed") == 1
    launched = [event for running in again for event in events(running.log_text()) if "launch" in event["steps"]]
    assert launched == []
