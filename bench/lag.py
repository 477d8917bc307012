"""Mirror lag: from a change's commit in Redis until a watch of the API server shows it, at half the load it can take.

Both times come from this machine's clock: the commit's from its entry in the change feed, the other from when the
benchmark's own watch received the line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from bench import throughput
from bench.controlled import Controlled, started
from bench.errors import BenchError
from bench.percentiles import percentile
from bench.report import Figure
from bench.stage import Stage
from devstack.console import Progress, say
from executions.feed import FeedEntry, Transition

_TICK_SECONDS = 0.01


@dataclass(slots=True)
class Sightings:
    """What a watch showed: per task, the record's sequence number and when it was seen, in milliseconds."""

    by_task: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    succeeded: set[str] = field(default_factory=set)

    def __call__(self, line: bytes) -> None:
        now_ms = time.time() * 1000
        event = orjson.loads(line)
        if event["type"] not in ("ADDED", "MODIFIED"):
            raise BenchError(f"the watch of the benchmark told {event['type']}: {line[:300]!r}")
        resource = event["object"]
        task_id, status = resource["spec"]["taskId"], resource.get("status") or {}
        # A resource is born without a status of ours, and shows by being there that its attempt was claimed.
        self.by_task.setdefault(task_id, []).append((int(status.get("sequence") or 1), now_ms))
        if status.get("phase") == "Succeeded":
            self.succeeded.add(task_id)


def lags_ms(changes: Iterable[FeedEntry], sightings: Mapping[str, Sequence[tuple[int, float]]]) -> list[float]:
    """For each change the time until it, or a later one of the same task, was seen. Raises BenchError if never."""
    found = []
    for change in changes:
        seen = [at_ms for sequence, at_ms in sightings.get(change.task_id, ()) if sequence >= change.sequence]
        if not seen:
            raise BenchError(f"change {change.sequence} of task {change.task_id} ({change.transition}) was never seen")
        found.append(min(seen) - change.occurred_ms)
    return found


async def measure(stage: Stage) -> list[Figure]:
    if stage.executions_per_second is None:
        say("  first the throughput, because the lag is measured at half of it")
        await throughput.measure(stage)
    assert stage.executions_per_second is not None
    rate = stage.executions_per_second / 2
    runs: list[dict[Transition, list[float]]] = []
    async with started(stage, worker_seconds=throughput.WORKER_SECONDS) as controlled:
        await controlled.until_leading()
        for number in range(1, stage.scale.runs + 1):
            runs.append(await _run(controlled, rate, stage.scale.lag_seconds))
            both = (percentile(_all(runs[-1]), percent) for percent in (50, 99))
            say("  run {}: p50 {:.0f} ms, p99 {:.0f} ms".format(number, *both))
    steps = [Transition.CLAIMED, Transition.RUNNING, Transition.SUCCEEDED]
    return [
        Figure("load while the lag is measured", (rate,), "1/s"),
        Figure("mirror lag, p50", tuple(percentile(_all(run), 50) for run in runs), "ms"),
        Figure("mirror lag, p99", tuple(percentile(_all(run), 99) for run in runs), "ms", aim="at most 250"),
        *(Figure(f"  {step}", tuple(percentile(run[step], 99) for run in runs), "ms") for step in steps),
    ]


async def _run(controlled: Controlled, rate: float, seconds: float) -> dict[Transition, list[float]]:
    """Lags in milliseconds by what happened."""
    sightings, progress, put = Sightings(), Progress("executions"), 0
    await controlled.new_changes()
    async with controlled.server.watching(controlled.namespace, sightings):
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            if (due := int(elapsed * rate) - put) > 0:
                await controlled.put_tasks(due)
                put += due
            progress.show(f"{len(sightings.succeeded):,} Succeeded")
            await asyncio.sleep(_TICK_SECONDS)
        progress.end()
        await controlled.until(lambda: len(sightings.succeeded) >= put, f"the end of {put} executions")
    changes = await controlled.new_changes()
    return {
        step: lags_ms((change for change in changes if change.transition is step), sightings.by_task)
        for step in {change.transition for change in changes}
    }


def _all(by_step: Mapping[Transition, Sequence[float]]) -> list[float]:
    return [lag for lags in by_step.values() for lag in lags]
