"""The controller's memory with few and with many live resources, and how long it takes to start with many.

Records and resources are laid down as an earlier controller would have left them: attempts that run, each with its
resource. Then a controller starts among them. The record with the latest claim has a resource that is one step behind:
the mirror compares in the order of claims, so once it was corrected all were compared.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from statistics import median

import orjson

from bench.api_server import ApiServer
from bench.controlled import Controlled, started
from bench.parallel import in_parallel
from bench.report import Figure
from bench.stage import Stage
from bench.tasks import Life, manifest, status_patch
from devstack.console import Progress, say
from executions import names
from executions.adapters.redis_connection import connect
from executions.adapters.redis_epoch import create_epoch
from executions.adapters.redis_feed import RedisFeed
from executions.adapters.redis_store import RedisStore
from executions.answer import Answer, Reply

AGE_MS = 600_000
"""How long ago the first attempt was claimed."""
WIDTH = 32
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """A controller among `resources` live resources."""

    resources: int
    start_seconds: float
    settled_bytes: float
    peak_bytes: float


async def measure(stage: Stage) -> list[Figure]:
    name, looks, there = stage.unused_name(), [], 0
    async with stage.api_server(connections=WIDTH) as server:
        await server.create_namespace(name)
        for amount in stage.scale.resources:
            await _lay_down(stage, server, name, range(there, amount))
            looks.append(await _look(stage, server, name, amount))
            there = amount
            say(f"  {amount:,} live resources: started in {looks[-1].start_seconds:.1f} s")
    few, many = looks
    each_bytes = (many.settled_bytes - few.settled_bytes) / (many.resources - few.resources)
    return [
        *(
            Figure(f"controller memory, {look.resources:,} live resources", (look.settled_bytes / 1e6,), "MB")
            for look in looks
        ),
        Figure(f"  the most while it started, {many.resources:,}", (many.peak_bytes / 1e6,), "MB"),
        Figure("  per live resource", (each_bytes / 1e3,), "kB", 1, "4 kB, beside 150 MB"),
        *(Figure(f"start with {look.resources:,} live resources", (look.start_seconds,), "s", 1) for look in looks),
    ]


async def _lay_down(stage: Stage, server: ApiServer, name: str, numbers: range) -> None:
    """Records and resources of running executions, claimed in the order of their numbers."""
    redis, progress, done = connect(stage.redis.url), Progress(f"{len(numbers):,} live resources laid down"), 0
    store, feed = RedisStore(redis, name), RedisFeed(redis, name, group="mirror", consumer="bench")
    await create_epoch(redis, name)
    first_ms = time.time_ns() // 1_000_000 - AGE_MS

    async def lay_down(number: int) -> None:
        nonlocal done
        life = Life(_task_id(number), first_ms + number)
        running = life.running()
        await store.commit(await store.read(life.task_id), running, Answer(Reply.CLAIMED, life.task_id))
        await server.create(name, manifest(running, name))
        if number != numbers[-1]:
            await server.patch_status(name, life.task_id, status_patch(running))
        done += 1
        progress.show(f"{done:,}")

    try:
        await in_parallel(numbers, lay_down, width=WIDTH)
        while await feed.read(count=10_000, block_ms=1):
            pass  # an earlier controller would have read it
    finally:
        progress.end()
        await store.close()


async def _look(stage: Stage, server: ApiServer, name: str, amount: int) -> Look:
    async with started(stage, worker_seconds=0, name=name, resync_seconds=stage.scale.settle_seconds / 2) as controlled:
        samples: list[int] = []
        sampling = asyncio.create_task(_sample(controlled, samples))
        try:
            await _until_shown(controlled, _task_id(amount - 1), "Running")
            user = f"user-{amount}"  # what a user makes now is only acted on by a controller that watches
            await _until_shown(controlled, user, "Succeeded", then=server.create(name, _users_manifest(user)))
            start_seconds, began = time.monotonic() - controlled.child.started, len(samples)
            await asyncio.sleep(stage.scale.settle_seconds)
        finally:
            sampling.cancel()
        return Look(amount, start_seconds, median(samples[began:]), max(samples))


async def _sample(controlled: Controlled, samples: list[int]) -> None:
    while True:
        samples.append(controlled.child.rss_bytes)
        await asyncio.sleep(_SAMPLE_SECONDS)


async def _until_shown(controlled: Controlled, name: str, phase: str, *, then: Awaitable[None] | None = None) -> None:
    """Return once a watch tells that the resource is in the phase; `then` is awaited when the watch stands."""
    phases: set[str] = set()

    def seen(line: bytes) -> None:
        phases.add((orjson.loads(line)["object"].get("status") or {}).get("phase", ""))

    async with controlled.server.watching(controlled.namespace, seen, fieldSelector=f"metadata.name={name}"):
        if then is not None:
            await then
        await controlled.until(lambda: phase in phases, f"{phase} of {name}")


def _task_id(number: int) -> str:
    return f"live-{number}"


def _users_manifest(name: str) -> bytes:
    """What somebody applies with kubectl."""
    resource = {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {"taskType": "implementation"},
    }
    return orjson.dumps(resource)
