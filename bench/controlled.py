"""The measuring side of `subject`: starts it on a namespace and key prefix of its own, feeds it, waits for it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.api_server import ApiServer
from bench.elasticmq import ElasticMq
from bench.errors import BenchError
from bench.processes import Child, python
from bench.stage import Stage
from executions.adapters.redis_connection import connect
from executions.adapters.redis_feed import RedisFeed
from executions.feed import FeedEntry

WARM_UP = 50
_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.01
NO_QUEUE = "http://127.0.0.1:9/000000000000/none"
"""Never asked: the subject has a queue in memory."""


@dataclass(frozen=True, slots=True)
class Controlled:
    """A controller that runs, and the eyes on it."""

    child: Child
    server: ApiServer
    feed: RedisFeed
    namespace: str
    queue: ElasticMq | None
    queue_url: str

    async def put_tasks(self, amount: int) -> None:
        """Put so many new tasks on its queue."""
        if self.queue is None:
            self.child.tell(str(amount))
        else:
            await self.queue.send(self.queue_url, [f"task-{secrets.token_hex(6)}" for _ in range(amount)])

    async def new_changes(self) -> list[FeedEntry]:
        """What was committed since the last call. The first one also keeps the feed from being trimmed behind it."""
        found: list[FeedEntry] = []
        while batch := await self.feed.read(count=10_000, block_ms=1):
            found += batch
        return found

    async def until_leading(self) -> None:
        """Return once it brought some executions home, so that it leads, watches and has its connections."""
        count = SucceededCount()
        async with self.server.watching(self.namespace, count, fieldSelector="status.phase=Succeeded"):
            await self.put_tasks(WARM_UP)
            await self.until(lambda: count.total >= WARM_UP, "the warm-up")

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Raises BenchError when the controller ends, or when it takes longer."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_so():
            self.child.require_running()
            if time.monotonic() > deadline:
                raise BenchError(f"{what} did not happen within {_PATIENCE_SECONDS:.0f} s")
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def started(
    stage: Stage, *, worker_seconds: float, name: str | None = None, resync_seconds: float = 60
) -> AsyncIterator[Controlled]:
    """A controller on the namespace and key prefix `name`, which exist, or on new ones. It may not lead yet."""
    namespace = name or stage.unused_name()
    queue_url = stage.queue.create_queue(namespace) if stage.queue else NO_QUEUE
    environment = {
        "ENV": "production",
        "LAUNCHER": "local",
        "KUBECONFIG": str(stage.plane.kubeconfig),
        "EXECUTIONS_NAMESPACE": namespace,
        "REDIS_URL": stage.redis.url,
        "EXECUTIONS_REDIS_KEY_PREFIX": namespace,
        "SQS_QUEUE_URL": queue_url,
        "AWS_REGION": "us-east-1",
        **(stage.queue.values if stage.queue else {}),
        "CONTROLLER_PORT": "0",
        "METRICS_PORT": "0",
        "RESYNC_INTERVAL_SECONDS": str(resync_seconds),
    }
    redis = connect(stage.redis.url)
    log = stage.folder / f"controller-{stage.unused_name()}.log"
    async with stage.api_server() as server:
        if name is None:
            await server.create_namespace(namespace)
        command = python("bench.subject", str(worker_seconds), "sqs" if stage.queue else "memory")
        with Child(command, environment=environment, log=log) as child:
            try:
                feed = RedisFeed(redis, namespace, group="bench", consumer="bench")
                yield Controlled(child, server, feed, namespace, stage.queue, queue_url)
            finally:
                await redis.aclose()


class SucceededCount:
    """Counts the objects that a watch for succeeded ones tells of: each enters it once, whatever is written later."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, line: bytes) -> None:
        if line.startswith(b'{"type":"ADDED"'):
            self.total += 1
