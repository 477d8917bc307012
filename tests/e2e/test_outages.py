"""The network between us and everything else fails in the ways networks do, and controllers are killed at random."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devstack.aws import ACCOUNT_ID, AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from tests.e2e.installation import Installation, Running, at_once, events, message
from tests.support.fault_proxy import Fault, FaultProxy

QUEUED = (202, {"recorded": False, "queued": True})
OUTCOMES = 20


class Network:
    """Proxies before each of an installation's servers, and the settings that lead through them."""

    def __init__(self, redis: FaultProxy, aws: FaultProxy, kube: FaultProxy, kubeconfig: Path, queue: str) -> None:
        self.redis, self.aws, self.kube = redis, aws, kube
        aws_url = f"http://127.0.0.1:{aws.port}"
        self.to_redis = {"REDIS_URL": f"redis://127.0.0.1:{redis.port}"}
        self.to_aws = {"AWS_ENDPOINT_URL": aws_url, "SQS_QUEUE_URL": f"{aws_url}/{ACCOUNT_ID}/{queue}"}
        self.to_kube = {"KUBECONFIG": str(kubeconfig)}


@pytest.fixture
def network(
    installation: Installation, redis_server: RedisServer, aws: AwsServer, kube: ControlPlane, tmp_path: Path
) -> Iterator[Network]:
    with ExitStack() as stack:
        ports = (redis_server.port, urlsplit(aws.url).port, urlsplit(kube.url).port)
        redis, queue, api_server = (stack.enter_context(FaultProxy(port or 0)) for port in ports)
        config = json.loads(kube.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{api_server.port}"
        path = tmp_path / "kubeconfig-through-the-proxy"
        path.write_text(json.dumps(config))
        yield Network(redis, queue, api_server, path, installation.name)


def wait_for_all(installation: Installation, task_ids: list[str], status: str, seconds: float = 60) -> None:
    def missing() -> list[str]:
        records = installation.records()
        return [task_id for task_id in task_ids if records.get(task_id) != (1, status)]

    installation.wait_until(lambda: not missing(), seconds, f"{len(task_ids)} tasks are {status}")


def finished_once(installation: Installation, task_id: str) -> None:
    """One worker did the work, however often it was launched."""
    finals = [final for _, final in installation.work_done(task_id)]
    assert finals.count("completed") == 1, (task_id, finals)
    assert set(finals) <= {"completed", "claim_refused"}, (task_id, finals)


# Redis


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.BLACKHOLE])
def test_outcomes_of_an_outage_are_recorded_and_none_is_invented(
    installation: Installation, network: Network, fault: Fault
) -> None:
    installation.start_both(LOCAL_WORKER="manual", **network.to_redis)
    reported = [f"reported-{number}" for number in range(OUTCOMES)]
    silent = [f"silent-{number}" for number in range(3)]
    installation.send(*(message(task_id) for task_id in [*reported, *silent]))
    wait_for_all(installation, [*reported, *silent], "running")
    began = {task_id: installation.record(task_id)[1]["startedAt"] for task_id in reported}

    network.redis.set(fault)
    errors = {task_id: None if number % 2 else f"error {number}" for number, task_id in enumerate(reported)}
    answers = at_once([partial(installation.complete, task_id, error) for task_id, error in errors.items()])
    assert answers == [QUEUED] * OUTCOMES
    assert {status for _, status in installation.records().values()} == {"running"}

    network.redis.set(Fault.NONE)
    for task_id, error in errors.items():
        installation.wait_for(task_id, 1, "failed" if error else "succeeded", 60)
        attempt = installation.record(task_id)[1]
        assert attempt.get("errorMessage") == error
        assert began[task_id] < attempt["result"]["receivedAt"] <= attempt["finishedAt"]
    installation.wait_until(lambda: not installation.differences(), 30, "the mirror equals Redis")
    assert {installation.status(task_id) for task_id in silent} == {(1, "running")}


def test_no_worker_is_judged_before_kept_outcomes_are_applied(installation: Installation, network: Network) -> None:
    installation.start_both(**network.to_redis, LOST_WORKER_GRACE_SECONDS="2")
    tasks = [f"task-{number}" for number in range(5)]
    installation.send(*(message(task_id, "slow", seconds=3) for task_id in tasks))
    # Not by the record: between it and its answer to the worker the claim could be cut.
    installation.wait_until(
        lambda: installation.logs().count('"final_status":"granted"') == len(tasks), 60, "all are at work"
    )
    network.redis.set(Fault.CUT)
    # They report, have their outcome kept, and are gone: to a look they are lost.
    installation.wait_until(lambda: not installation.workers(), 60, "every worker has reported")
    network.redis.set(Fault.NONE)
    wait_for_all(installation, tasks, "succeeded")
    assert "WORKER_LOST" not in json.dumps([installation.record(task_id) for task_id in tasks])


def test_a_kept_outcome_of_one_attempt_does_not_touch_the_next(installation: Installation, network: Network) -> None:
    controller, healthy = installation.start_both(LOCAL_WORKER="manual")
    cut_off = installation.start_api(**network.to_redis)
    tasks = [f"task-{number}" for number in range(3)]
    installation.send(*(message(task_id) for task_id in tasks))
    wait_for_all(installation, tasks, "running")
    assert controller.stop() == 0
    network.redis.set(Fault.CUT)
    for task_id in tasks:
        late = {"taskId": task_id, "result": {"status": "success"}}
        assert installation.post("/task-complete", late, api=cut_off, headers={}) == QUEUED
        assert installation.complete(task_id, error="no luck")[0] == 200
        assert installation.retry(task_id, api=healthy)[0] == 202
    again = installation.start_controller(LOCAL_WORKER="manual")
    for task_id in tasks:
        installation.wait_for(task_id, 2, "running")
    applied = "Kept outcome applied"
    installation.wait_until(lambda: again.log_text().count(applied) == len(tasks), 30, "all kept outcomes are applied")
    for task_id in tasks:
        assert installation.status(task_id) == (2, "running")
        assert installation.record(task_id)[1]["status"] == "failed"


def test_an_outcome_outlives_the_api_that_took_it(installation: Installation, network: Network) -> None:
    installation.start_controller(LOCAL_WORKER="manual")
    api = installation.start_api(**network.to_redis)
    installation.send(message("taken"))
    installation.wait_for("taken", 1, "running")
    network.redis.set(Fault.BLACKHOLE)
    assert installation.complete("taken") == QUEUED
    api.kill()
    installation.wait_for("taken", 1, "succeeded")


# The queue


def failed_task(installation: Installation, task_id: str) -> None:
    installation.send(message(task_id, "fail"))
    installation.wait_for(task_id, 1, "failed")


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.DROP_REPLIES, Fault.BLACKHOLE])
def test_a_retry_whose_fate_is_unclear_happens_and_happens_once(
    installation: Installation, network: Network, fault: Fault
) -> None:
    redeliver = {"RETRY_REDELIVER_SECONDS": "2"}
    installation.start_both(**redeliver)
    cut_off = installation.start_api(**network.to_aws, **redeliver)
    failed_task(installation, "task")
    network.aws.set(fault)
    assert installation.retry("task", api=cut_off) == (202, {"taskId": "task", "attempt": 2, "status": "queued"})
    installation.wait_for("task", 2, "succeeded")
    network.aws.set(Fault.NONE)
    installation.wait_until(lambda: installation.queued() == 0, 30, "the queue is empty")
    assert installation.work_done("task") == [(1, "failed"), (2, "completed")]


# The API server


@pytest.mark.timeout(240)
def test_a_silent_api_server_stops_no_work(installation: Installation, network: Network) -> None:
    installation.start_both(**network.to_kube)
    installation.send(message("before"))
    installation.wait_until(lambda: installation.phase("before") == (1, "Succeeded"), 30, "the watch runs")
    network.kube.set(Fault.BLACKHOLE)
    tasks = [f"task-{number}" for number in range(10)]
    installation.send(*(message(task_id) for task_id in tasks))
    wait_for_all(installation, tasks, "succeeded")
    network.kube.set(Fault.NONE)
    installation.wait_until(lambda: not installation.differences(), 60, "the mirror equals Redis")
    for task_id in tasks:
        finished_once(installation, task_id)


# Controllers


def leaders(controllers: list[Running]) -> list[Running]:
    """Those that began to lead, the latest last."""
    begun = [(line, running) for running in controllers for line in running.log_text().splitlines() if _leads(line)]
    return [running for _, running in sorted(begun, key=lambda item: json.loads(item[0])["fence"])]


def _leads(line: str) -> bool:
    return '"msg":"Leading"' in line


@pytest.mark.timeout(600)
def test_controllers_are_killed_at_random_and_every_task_succeeds_at_its_first_attempt(
    installation: Installation, scale: int
) -> None:
    kills, amount = (20, 300) if scale == 100 else (3, 30)
    draw = random.Random(20)
    controllers = [installation.start_controller(wait=False) for _ in range(2)]
    installation.start_api(wait=False)
    for running in controllers:
        installation.wait_ready(running)
    installation.wait_until(lambda: leaders(controllers), 30, "one leads")
    tasks = [f"task-{number}" for number in range(amount)]
    alive = list(controllers)
    for number in range(kills):
        batch = tasks[number * amount // kills : (number + 1) * amount // kills]
        installation.send(*(message(task_id, "slow", seconds=draw.uniform(0.1, 2)) for task_id in batch))
        installation.wait_until(
            partial(_are_claimed, installation, batch, draw.randint(0, len(batch))), 60, "some of them are claimed"
        )
        # The first one to go is the leader: the other one takes over.
        victim = leaders(controllers)[-1] if number == 0 else draw.choice(alive)
        victim.kill()
        alive.remove(victim)
        if number == 0:
            installation.wait_until(lambda: leaders(controllers)[-1] in alive, 30, "the other one leads")
        controllers.append(installation.start_controller(wait=False))
        alive.append(controllers[-1])
    wait_for_all(installation, tasks, "succeeded", 240)
    installation.wait_until(lambda: not installation.differences(), 60, "the mirror equals Redis")
    for task_id in tasks:
        finished_once(installation, task_id)
        assert installation.record(task_id)[1]["run"] == 1
    fences = [event["fence"] for running in controllers for event in led(running)]
    assert len(fences) == len(set(fences))


def _are_claimed(installation: Installation, task_ids: list[str], amount: int) -> bool:
    return sum(installation.status(task_id) is not None for task_id in task_ids) >= amount


def led(running: Running) -> list[dict[str, int]]:
    return [json.loads(line) for line in running.log_text().splitlines() if _leads(line)]


def test_a_controller_that_was_stopped_for_a_while_does_no_harm(installation: Installation) -> None:
    first, _ = installation.start_both()
    installation.wait_until(lambda: leaders([first]), 30, "it leads")
    tasks = [f"task-{number}" for number in range(10)]
    installation.send(*(message(task_id, "slow", seconds=2) for task_id in tasks))
    installation.wait_until(lambda: len(installation.records()) >= 5, 30, "some are claimed")
    process = first.process
    process.send_signal(signal.SIGSTOP)
    second = installation.start_controller()
    installation.wait_until(lambda: leaders([first, second])[-1] is second, 30, "the other one leads")
    process.send_signal(signal.SIGCONT)
    wait_for_all(installation, tasks, "succeeded")
    for task_id in tasks:
        finished_once(installation, task_id)
    assert [event for event in events(first.log_text()) if event["final_status"] == "unexpected_error"] == []
