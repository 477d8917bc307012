"""The dashboard page with thousands of rows that change all the time, in a real Chromium.

Frames are taken down in the page itself, from one `requestAnimationFrame` to the next; memory is what Chromium's
JavaScript heap still holds after a collection. The API is the real one; events are written onto the real stream.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from playwright.async_api import CDPSession, Page, async_playwright
from redis.asyncio import Redis

from bench.http_load import until_listening
from bench.percentiles import percentile
from bench.processes import Child, python
from bench.report import Figure
from bench.stage import Stage
from devstack.browser import launch_options
from devstack.console import say
from devstack.ports import HOST, free_port
from executions.adapters.redis_connection import connect
from executions.adapters.tracking_keys import TrackingKeys
from executions.adapters.tracking_projection import TrackingProjection
from executions.moment import iso_from_ms
from executions.tracking import event_from_document

ROWS = 5_000
CHANGES_PER_SECOND = 50
PHASES = (("Running", "in_progress"), ("Succeeded", "success"), ("Failed", "error"), ("RetryScheduled", "in_progress"))
_TICK_SECONDS = 0.02
_WARM_UP_SECONDS = 5.0
_TAKE_FRAMES_DOWN = """() => {
  window.frames_ = [];
  let last = performance.now();
  const next = (now) => { window.frames_.push(now - last); last = now; requestAnimationFrame(next); };
  requestAnimationFrame(next);
}"""
_SCROLL = """() => {
  const rows = document.querySelector('.rows');
  window.scrolling = setInterval(() => {
    const end = rows.scrollHeight - rows.clientHeight;
    rows.scrollTop = rows.scrollTop + 300 >= end ? 0 : rows.scrollTop + 300;
  }, 16);
}"""


def event(name: str, sequence: int, *, at_ms: int, phase: int = 0) -> dict[str, Any]:
    """One lifecycle event of an execution."""
    shown, status = PHASES[phase % len(PHASES)]
    return {
        "eventId": f"{name}.bench.{at_ms}.{sequence}",
        "executionId": name,
        "taskId": name,
        "occurredAt": iso_from_ms(at_ms),
        "flow": "implementation",
        "taskName": f"Fix what {name} is about",
        "taskType": "implementation",
        "status": status,
        "phase": shown,
        "attempt": 1 + sequence % 2,
        "traceId": f"trace-{name}",
        "errorCode": "WORKER_LOST" if status == "error" else None,
        "project": f"my-org/repo-{_number(name) % 12}",
        "actor": {"provider": "slack", "id": f"U{_number(name) % 40}", "display": f"Person {_number(name) % 40}"},
        "prLinks": [],
        "visibility": {"responsibleUsers": []},
    }


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


async def fill(redis: Redis, keys: TrackingKeys, names: Iterable[str]) -> None:
    """A row for each name, a second apart, the first one newest."""
    now_ms = time.time_ns() // 1_000_000
    documents = [event(name, 1, at_ms=now_ms - 1000 * age, phase=age) for age, name in enumerate(names, 1)]
    projection = TrackingProjection(redis, keys)
    for start in range(0, len(documents), 500):
        await projection.apply([event_from_document(item) for item in documents[start : start + 500]])


async def change(redis: Redis, keys: TrackingKeys, names: list[str], *, per_second: float, seconds: float) -> int:
    """Events of executions drawn by chance, evenly over the time. Returns how many."""
    draw, began, sent = random.Random(1), time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        pipeline = redis.pipeline(transaction=False)
        for _ in range(int(elapsed * per_second) - sent):
            sent += 1
            document = event(draw.choice(names), sent + 1, at_ms=time.time_ns() // 1_000_000, phase=draw.randrange(4))
            pipeline.xadd(keys.stream, {"event": orjson.dumps(document)}, maxlen=10_000)
        await pipeline.execute()
        await asyncio.sleep(_TICK_SECONDS)
    return sent


async def measure(stage: Stage) -> list[Figure]:
    prefix, names = stage.unused_name(), [f"task-{number:05}" for number in range(ROWS)]
    keys = TrackingKeys(f"{prefix}:events", f"{prefix}:")
    redis = connect(stage.redis.url)
    seconds = stage.scale.page_seconds
    try:
        await fill(redis, keys, names)
        async with _page(stage, prefix) as page:
            tools = await page.context.new_cdp_session(page)
            await change(redis, keys, names, per_second=CHANGES_PER_SECOND, seconds=_WARM_UP_SECONDS)
            before = await _heap_bytes(tools)
            await page.evaluate(_TAKE_FRAMES_DOWN)
            sent = await change(redis, keys, names, per_second=CHANGES_PER_SECOND, seconds=seconds)
            looking = await _frames_ms(page)
            after = await _heap_bytes(tools)
            await page.evaluate(_SCROLL)
            await change(redis, keys, names, per_second=CHANGES_PER_SECOND, seconds=min(seconds, 20))
            scrolling = await _frames_ms(page)
    finally:
        await redis.aclose()
    say(f"  {sent:,} changes in {seconds:.0f} s, {len(looking):,} frames, the longest {max(looking):.0f} ms")
    stage.notes.append(f"The page showed {ROWS:,} rows, with {CHANGES_PER_SECOND} changes/s for {seconds:.0f} s.")
    return [
        Figure("page, frames p50", (percentile(looking, 50),), "ms", 1),
        Figure("page, frames p95", (percentile(looking, 95),), "ms", 1, aim="at most 50"),
        Figure("  while scrolling, p95", (percentile(scrolling, 95),), "ms", 1, aim="at most 50"),
        Figure("page, heap at the start", (before / 2**20,), "MB", 1),
        Figure("ratio, heap at the end to that", (after / before,), "", 3, aim="about 1"),
    ]


@asynccontextmanager
async def _page(stage: Stage, prefix: str) -> AsyncIterator[Page]:
    """The page, signed in, with all rows read."""
    port = free_port()
    environment = {
        "ENV": "local",
        "PORT": str(port),
        "METRICS_PORT": "0",
        "API_PROBE_PORT": "0",
        "REDIS_URL": stage.redis.url,
        "EXECUTIONS_REDIS_KEY_PREFIX": prefix,
        "TASK_TRACKING_REDIS_STREAM_KEY": f"{prefix}:events",
        "TASK_TRACKING_REDIS_KEY_PREFIX": f"{prefix}:",
        "SQS_QUEUE_URL": f"http://{HOST}:1/000000000000/unused",
        "AWS_REGION": "us-east-1",
    }
    with Child(python("api"), environment=environment, log=stage.folder / "api-of-page.log") as api:
        await until_listening(port, api)
        async with async_playwright() as playwright, await playwright.chromium.launch(**launch_options()) as browser:
            page = await browser.new_page(viewport={"width": 1280, "height": 800})
            await page.goto(f"http://localhost:{port}/dashboard")
            await page.get_by_label("E-mail").fill("bench@example.com")
            await page.get_by_role("button", name="Sign in", exact=True).click()
            await page.locator(".shown", has_text=f"{ROWS:,} executions").wait_for(timeout=60_000)
            yield page


async def _heap_bytes(tools: CDPSession) -> float:
    await tools.send("HeapProfiler.collectGarbage")
    return float((await tools.send("Runtime.getHeapUsage"))["usedSize"])


async def _frames_ms(page: Page) -> list[float]:
    """Those since the last look."""
    found: list[float] = await page.evaluate("() => window.frames_.splice(0)")
    return found
