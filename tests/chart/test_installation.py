"""helm install, upgrade and uninstall on a real API server, with the rendered pods running as their ServiceAccount: no
task is lost, none is done twice, and nothing that the pods do needs a right that the chart does not give."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import infra, prometheus_operator
from devstack.aws import ACCOUNT_ID, AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from devstack.workloads import NODE, Workloads
from tests.chart.charts import CHART, apply_definitions, helm
from tests.chart.pods import Cluster, PodOf
from tests.e2e.installation import events, message
from tests.support.fault_proxy import FaultProxy
from tests.support.pod_runner import PodRunner
from tests.support.wheels import install_wheels, open_place

TASKS = 100 if os.environ.get("ALAKAI_CHART") == "full" else 16
"""`make chart-test` runs all of them."""
ENFORCED = {"pod-security.kubernetes.io/enforce": "restricted"}
RELEASE = "tasks"
MONITORING = ("servicemonitors", "prometheusrules")


@pytest.fixture
def place() -> Iterator[Path]:
    with open_place() as place:
        yield place


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of the test's own, into which nobody has put our definition, with a Job controller and a node,
    and the Prometheus operator's definitions."""
    plane = ControlPlane.start(tmp_path / "kubernetes")
    apply_definitions(plane, prometheus_operator.definitions())
    workloads = Workloads.start(plane)
    yield plane
    workloads.stop()
    plane.stop()


class Site:
    """A namespace with what a release needs, and the queue, Redis and workers around it."""

    def __init__(
        self, kube: ControlPlane, redis_server: RedisServer, aws: AwsServer, namespace: str, folder: Path, callback: int
    ) -> None:
        self.cluster, self.folder = Cluster(kube, namespace), folder
        self.prefix = self.namespace = namespace
        self.redis_url = redis_server.url
        self.queue_url = f"{aws.url}/{ACCOUNT_ID}/{namespace}"
        self._variables = {"AWS_ENDPOINT_URL": aws.url, "AWS_REGION": "us-east-1"}
        self.sqs = infra.sqs_client(self._variables | {"AWS_ACCESS_KEY_ID": "t", "AWS_SECRET_ACCESS_KEY": "t"})
        infra.ensure_queue(self.sqs, namespace)
        self.cluster.kubectl("create", "namespace", namespace)
        self.cluster.kubectl("label", "namespace", namespace, *(f"{key}={value}" for key, value in ENFORCED.items()))
        self._secrets()
        worker = {"name": "worker", "image": "worker:1"}
        launcher = {"taskTypes": {"default": {"template": {"spec": {"nodeName": NODE, "containers": [worker]}}}}}
        self.values = folder / "values.yaml"
        self.values.write_text(
            json.dumps(
                {
                    "config": {
                        "sqsQueueUrl": self.queue_url,
                        "executionsRedisKeyPrefix": self.prefix,
                        "callbackUrl": f"http://localhost:{callback}/task-complete",
                        "sweepIntervalSeconds": 1,
                        "resyncIntervalSeconds": 2,
                        "lostWorkerGraceSeconds": 2,
                        "leaderLeaseSeconds": 3,
                    },
                    "redis": {"url": {"secretName": "redis"}},
                    "aws": {"region": "us-east-1", "endpointUrl": aws.url, "credentials": {"secretName": "aws"}},
                    "callbackTokens": {"secretName": "callback-tokens"},
                    "launcher": {"name": "kubernetes", "file": launcher},
                    "serviceMonitor": {"enabled": True},
                    "prometheusRule": {"enabled": True},
                }
            )
        )

    def helm(self, command: str, *arguments: str | Path, fails: bool = False) -> str:
        where = ("--namespace", self.namespace)
        return helm(command, *arguments, *where, kubeconfig=self.cluster.kube.kubeconfig, fails=fails)

    def send(self, task_ids: list[str]) -> None:
        for task_id in task_ids:
            self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=json.dumps(message(task_id, "succeed")))

    def phases(self) -> dict[str, str]:
        return {item["metadata"]["name"]: item["status"]["phase"] for item in self.cluster.list("executions")}

    def work_done(self) -> dict[str, list[str]]:
        """By task: how each of its workers ended, by the worker's own word."""
        done: dict[str, list[str]] = {}
        for path in sorted((self.folder / "workers").glob("*.log")):
            for event in events(path.read_text()):
                done.setdefault(path.name.split(".")[0], []).append(event["final_status"])
        return done

    def _secrets(self) -> None:
        credentials = "[default]\naws_access_key_id = test\naws_secret_access_key = test\n"
        keys = yaml.safe_dump({"current": "one", "keys": {"one": "A" * 43 + "="}})
        for name, key, text in (
            ("redis", "url", self.redis_url),
            ("aws", "credentials", credentials),
            ("callback-tokens", "keys", keys),
        ):
            self.cluster.kubectl("create", "secret", "generic", name, f"--from-literal={key}={text}")


def eventually(condition: Callable[[], Any], seconds: float, about: str, *pods: PodOf) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        logs = "\n".join(pod.logs() for pod in pods)
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {about}\n{logs}"
        time.sleep(0.5)


def chart_of_before(folder: Path) -> Path:
    """The chart as an earlier version might have been: its definition knows less."""
    chart = folder / "before"
    shutil.copytree(CHART, chart)
    path = chart / "files" / "workerexecutions.yaml"
    definition = yaml.safe_load(path.read_text())
    (version,) = definition["spec"]["versions"]
    del version["selectableFields"]
    version["additionalPrinterColumns"] = version["additionalPrinterColumns"][:2]
    path.write_text(yaml.safe_dump(definition))
    return chart


@pytest.mark.timeout(900)
def test_install_upgrade_under_load_uninstall_and_install_again(
    bare: ControlPlane, redis_server: RedisServer, aws: AwsServer, prefix: str, tmp_path: Path, place: Path
) -> None:
    python, namespace = install_wheels(place), prefix
    with FaultProxy(1) as service:
        site = Site(bare, redis_server, aws, namespace, tmp_path, service.port)
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "NO_PROXY": "localhost,127.0.0.1"}

        def replica() -> PodOf:
            return PodOf(site.cluster, f"{RELEASE}-alakai", python, place, environ)

        notes = site.helm("install", RELEASE, chart_of_before(tmp_path), "--values", site.values)
        assert f"kubectl -n {namespace} rollout status deployment/{RELEASE}-alakai" in notes
        assert len(definition(site)["spec"]["versions"][0]["additionalPrinterColumns"]) == 2
        tasks = [f"task-{number}" for number in range(TASKS)]
        with PodRunner(bare, namespace, tmp_path / "workers"), replica() as first, replica() as second:
            for pod in (first, second):
                pod.wait_ready()
            service.retarget(first.ports["PORT"])
            site.send(tasks[: TASKS // 2])
            eventually(lambda: "Running" in site.phases().values(), 60, "the first tasks run", first, second)

            # The upgrade, while workers run: the new replicas come before the old ones go.
            site.helm("upgrade", RELEASE, CHART, "--values", site.values, "--set", "config.maxRetries=2")
            assert len(definition(site)["spec"]["versions"][0]["additionalPrinterColumns"]) > 2
            site.send(tasks[TASKS // 2 :])
            with replica() as third, replica() as fourth:
                for pod in (third, fourth):
                    pod.wait_ready()
                service.retarget(third.ports["PORT"])
                for pod in (first, second):
                    assert pod.stop() == {"controller": 0, "api": 0}, pod.logs()
                eventually(
                    lambda: site.phases() == dict.fromkeys(tasks, "Succeeded"), 300, "all succeed", third, fourth
                )
                assert site.work_done() == {task_id: ["completed"] for task_id in tasks}

                for pod in (first, second, third, fourth):
                    assert "orbidden" not in pod.log_text(), "a right is missing"

                site.helm("uninstall", RELEASE)
                assert site.phases() == dict.fromkeys(tasks, "Succeeded"), "executions stay"
                assert [item for kind in MONITORING for item in site.cluster.list(kind)] == []
                for pod in (third, fourth):
                    assert pod.stop() == {"controller": 0, "api": 0}, pod.logs()

            site.helm("install", RELEASE, CHART, "--values", site.values)
            with replica() as again:
                again.wait_ready()
                service.retarget(again.ports["PORT"])
                site.send(["afterwards"])
                eventually(lambda: site.phases().get("afterwards") == "Succeeded", 60, "it works again", again)
                assert site.work_done() == {task_id: ["completed"] for task_id in [*tasks, "afterwards"]}
                assert again.stop() == {"controller": 0, "api": 0}, again.logs()

            # Another release on the same queue, or the same prefix, is refused before anything of it is made.
            why = site.helm(
                "install", "other", CHART, "--values", site.values, "--set", "crds.install=false", fails=True
            )
            assert f"the release {RELEASE} in this namespace reads the queue {site.queue_url} already" in why
            elsewhere = ("--set", f"config.sqsQueueUrl={site.queue_url}-2", "--set", "crds.install=false")
            why = site.helm("install", "other", CHART, "--values", site.values, *elsewhere, fails=True)
            assert f"uses the key prefix {site.prefix} already" in why
            site.helm(
                "install", "other", CHART, "--values", site.values, *elsewhere, "--set",
                "config.executionsRedisKeyPrefix=another",
            )  # fmt: skip
            site.helm("uninstall", "other")
            site.helm("uninstall", RELEASE)


def definition(site: Site) -> dict[str, Any]:
    return site.cluster.get("crd", "workerexecutions.alakai.dev")
