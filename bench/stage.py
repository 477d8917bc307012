"""What all measurements share: one control plane, one Redis and one folder of this run, and how much to measure."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import elasticmq
from bench.api_server import ApiServer
from bench.elasticmq import ElasticMq
from bench.errors import BenchError
from devstack.infra import apply_crds
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from executions.adapters.redis_connection import connect

_THROUGH_SQS = "Messages come through ElasticMQ on this machine; its share of the cores is missing to all else."


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    runs: int
    """How often each figure is measured; the table shows the median."""
    executions: int
    """Executions of one throughput run, and objects of one run at the ceiling."""
    lag_seconds: float
    """How long one lag run lasts."""
    resources: tuple[int, int]
    """Live resources at which the controller's memory is looked at."""
    settle_seconds: float
    """How long it is looked at, several resyncs included."""
    clicks: int
    """Requests of one run on the retry route."""
    page_seconds: float
    """For how long the dashboard page is looked at while its rows change."""


FULL = Scale(
    runs=3, executions=1500, lag_seconds=12, resources=(1_000, 10_000), settle_seconds=8, clicks=1500, page_seconds=300
)
QUICK = Scale(runs=1, executions=150, lag_seconds=3, resources=(100, 400), settle_seconds=2, clicks=300, page_seconds=5)


@dataclass(slots=True)
class Stage:
    """The servers of this run. `executions_per_second` is set once it was measured."""

    scale: Scale
    plane: ControlPlane
    redis: RedisServer
    folder: Path
    queue: ElasticMq | None = None
    """None: messages are fed in behind the queue."""
    executions_per_second: float | None = None
    notes: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def api_server(self, *, connections: int = 32) -> ApiServer:
        return ApiServer(self.plane, connections=connections)

    @property
    def servers_cpu_seconds(self) -> float:
        """Processor time that API server, etcd and Redis have used so far. Raises BenchError when one is gone."""
        total = 0.0
        for daemon in (self.plane.apiserver, self.plane.etcd, self.redis.daemon):
            process = daemon.process()
            if process is None:
                raise BenchError(f"{daemon.name} ended during the benchmark")
            times = process.cpu_times()
            total += times.user + times.system
        return total

    async def redis_version(self) -> str:
        redis = connect(self.redis.url)
        try:
            return str((await redis.info("server"))["redis_version"])
        finally:
            await redis.aclose()

    def unused_name(self) -> str:
        """For a namespace or a key prefix, so that no run meets the objects of another one."""
        return f"bench-{next(self._numbers)}"


@contextmanager
def opened(scale: Scale) -> Iterator[Stage]:
    """Start the servers on free ports in a temporary folder, and end them and it afterwards. Raises DevstackError."""
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="alakai-bench-")))
        plane = ControlPlane(folder / "kubernetes")
        cleanup.callback(plane.stop)
        ControlPlane.start(plane.data_dir)
        redis = RedisServer(folder / "redis")
        cleanup.callback(redis.stop)
        RedisServer.start(redis.data_dir)
        apply_crds(str(plane.kubeconfig))
        reason = elasticmq.why_not()
        queue = None if reason else cleanup.enter_context(elasticmq.started(folder))
        note = f"No ElasticMQ ({reason}): messages are fed in behind the queue, SQS is no part of the figures."
        yield Stage(scale, plane, redis, folder, queue, notes=[note if reason else _THROUGH_SQS])
