"""Every metric that there is, on the pages of a real controller and a real API: what the demo does, and the bad day.

Which there are is read from `executions.adapters.metrics`, so that a metric that nothing ever moves cannot be added.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from devstack.aws import AwsServer
from devstack.infra import ensure_bucket, s3_client
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from executions.adapters import metrics
from tests.e2e.installation import DEV_USER, Installation, Running, message, told_to_nobody
from tests.e2e.test_losses import metrics_of
from tests.support.fault_proxy import Fault, FaultProxy

DEFINED = {
    family.name: collector
    for collector in vars(metrics).values()
    if isinstance(collector, MetricWrapperBase)
    for family in collector.describe()
}
ABOVE_ZERO = {
    *(name for name, collector in DEFINED.items() if not collector._labelnames),
    *(
        "alakai_breaker_open",
        "alakai_dead_letters",
        "alakai_slots_held",
        "alakai_slots_limit",
        "alakai_attempts_waiting",
    ),
}
"""A sample of these says nothing until it is more: without labels it is there from the start, or zeros are told too."""
SETTINGS = {
    "SLOTS_TOTAL": "50",
    "SLOTS_PER_TYPE": "digest=5",
    "BREAKER_FAILURES": "1",
    "BREAKER_PAUSE_SECONDS": "300",
    "RETRY_DELAYS_SECONDS": "300",
    "LEADER_LEASE_SECONDS": "10",
}


SEEN_SECONDS = 30.0
BUCKET = "every-metric"


class Pages:
    """What the metrics pages of both processes have shown so far: the highest value of each metric, and the latest."""

    def __init__(self, installation: Installation, *processes: Running) -> None:
        self._installation, self._processes = installation, processes
        self.highest: dict[str, float] = {}

    def look(self) -> dict[str, float]:
        latest: dict[str, float] = {}
        for running in self._processes:
            for family in text_string_to_metric_families(metrics_of(self._installation, running)):
                ours = [
                    sample.value
                    for sample in family.samples
                    if not sample.name.endswith(("_bucket", "_created", "_sum"))
                ]
                if ours and family.name in DEFINED:
                    latest[family.name] = max(*ours, latest.get(family.name, -math.inf))
        for name, value in latest.items():
            self.highest[name] = max(value, self.highest.get(name, -math.inf))
        return latest

    def wait_until_seen(self, *, but: Collection[str] = ()) -> None:
        """Until all have been, but those."""
        deadline = time.monotonic() + SEEN_SECONDS
        while missing := sorted(self._unseen() - set(but)):
            assert time.monotonic() < deadline, f"never seen: {missing}"
            time.sleep(0.2)

    def _unseen(self) -> set[str]:
        self.look()
        return {
            name for name in DEFINED if name not in self.highest or (name in ABOVE_ZERO and self.highest[name] <= 0)
        }


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port or 0) as found:
        yield found


@pytest.fixture
def to_s3(aws: AwsServer) -> Iterator[FaultProxy]:
    with FaultProxy(urlsplit(aws.url).port or 0) as found:
        yield found


@pytest.mark.timeout(180)
def test_every_metric_is_seen(
    redis_server: RedisServer, aws: AwsServer, kube: ControlPlane, tmp_path: Path, proxy: FaultProxy, to_s3: FaultProxy
) -> None:
    settings = {
        **SETTINGS,
        "REDIS_URL": f"redis://127.0.0.1:{proxy.port}",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{to_s3.port}",
        "TASK_TRACKING_S3_ARCHIVE_ENABLED": "true",
        "TASK_TRACKING_S3_BUCKET": BUCKET,
        "TASK_TRACKING_S3_BATCH_SECONDS": "0.5",
        "NOTIFICATIONS_FILE": str(told_to_nobody(tmp_path)),
    }
    with Installation(redis_server, aws, kube, tmp_path, **settings) as installation:
        ensure_bucket(s3_client(installation.env), BUCKET)
        # Where its log should lie there is a folder: the local launcher cannot start this one's worker.
        (installation.worker_logs / "refused.1.1.log").mkdir(parents=True)
        controller, api = installation.start_both()
        pages = Pages(installation, controller, api)
        to_s3.set(Fault.CUT)
        do_what_the_demo_does(installation)
        make_it_a_bad_day(installation)
        headers = {"x-dev-user": DEV_USER}
        with installation.http.stream("GET", f"{api.url}/dashboard/stream", headers=headers) as reader:
            assert reader.status_code == 200
            pages.wait_until_seen(but=("alakai_redis_failures", "alakai_work_queue_failures"))
        proxy.set(Fault.CUT)
        # Something to do for the leader, which it cannot do.
        installation.kubectl("annotate", "execution", "stays", "alakai.dev/done=1")
        pages.wait_until_seen()
        installation.wait_until(lambda: pages.look()["alakai_redis_served"] == 0, 30, "Redis is told to be away")
        proxy.set(Fault.NONE)
        installation.wait_until(lambda: pages.look()["alakai_redis_served"] == 1, 30, "Redis is told to be back")


def do_what_the_demo_does(installation: Installation) -> None:
    """One succeeds, one fails and is retried over HTTP, one dies silently; and late its worker reports after all."""
    installation.send(message("succeeds", "succeed"), message("retried", "fail"), message("lost", "die"))
    installation.wait_for("retried", 1, "failed")
    assert installation.retry("retried")[0] == 202
    for task_id, attempt, status in (("succeeds", 1, "succeeded"), ("retried", 2, "succeeded"), ("lost", 1, "failed")):
        installation.wait_for(task_id, attempt, status)
    assert installation.complete("lost") == (200, {"recorded": False, "reason": "already_finished"})


def make_it_a_bad_day(installation: Installation) -> None:
    """A retry that waits, a cancellation, a worker that stays, a breaker, a dead letter, a slow reader, a hold."""
    digest = {**message("refused", "succeed"), "taskType": "digest"}
    installation.send(
        message("transient", "transient"), message("stays", "manual"), message("stopped", "manual"), digest
    )
    installation.wait_for("stopped", 1, "running")
    assert installation.post("/dashboard/executions/stopped/cancel", {"reason": "enough"})[0] == 202
    installation.wait_for("stopped", 1, "cancelled")
    installation.wait_for("transient", 1, "failed")
    installation.wait_for("stays", 1, "running")
    installation.wait_for("refused", 1, "pending")
    dead = installation.sqs.get_queue_url(QueueName=f"{installation.name}-dlq")["QueueUrl"]
    installation.sqs.send_message(QueueUrl=dead, MessageBody=json.dumps("poison"))
    installation.redis.xgroup_create(f"{installation.prefix}/feed", "a-slow-reader", id="0")
    installation.alakai_says("hold", "--reason", "to be seen", "--by", "jane")
