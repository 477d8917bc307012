"""Executions per second end to end, what each costs, and how near that is to the bare client.

A constant number of executions is kept under way, more than the controller can keep up with: each one that the API
server tells a watch is Succeeded makes room for a new message. The clock runs once the first of them are home. Runs at
the ceiling alternate with these runs, so that both see the same machine.
"""

from __future__ import annotations

import asyncio
import time

from bench import ceiling
from bench.ceiling import Run
from bench.controlled import Controlled, SucceededCount, started
from bench.errors import BenchError
from bench.report import Figure
from bench.stage import Stage
from devstack.console import Progress, say

WORKER_SECONDS = 1.0
"""Long enough for Running to be shown, as with any real worker: three writes per execution."""
_TOP_UP_SECONDS = 0.02
_PATIENCE_SECONDS = 300.0


async def measure(stage: Stage) -> list[Figure]:
    tops: list[Run] = []
    runs: list[Run] = []
    for number in range(1, stage.scale.runs + 1):
        tops.append(await ceiling.run(stage))
        runs.append(await _run(stage, under_way=round(tops[-1].per_second * WORKER_SECONDS) + 50))
        say(f"  run {number}: {runs[-1].per_second:.0f} executions/s, bare client {tops[-1].per_second:.0f}/s")
    both = list(zip(runs, tops, strict=True))
    rates = Figure("executions, claimed to Succeeded", tuple(run.per_second for run in runs), "1/s")
    stage.executions_per_second = rates.median
    return [
        rates,
        Figure("bare client, same writes", tuple(top.per_second for top in tops), "1/s"),
        Figure("ratio of the two", tuple(run.per_second / top.per_second for run, top in both), "", 2, "0.8"),
        Figure("  by processor time", tuple(top.cpu_ms / run.cpu_ms for run, top in both), "", 2),
        Figure("API writes per execution", tuple(sum(run.writes.values()) for run in runs), "", 2, "at most 3"),
        *(
            Figure(f"  {verb}", tuple(run.writes.get(verb, 0) for run in runs), "", 2)
            for verb in sorted({verb for run in runs for verb, amount in run.writes.items() if amount})
        ),
        Figure("CPU per execution, controller", tuple(run.own_cpu_ms for run in runs), "ms", 1),
        Figure("  API server, etcd, Redis", tuple(run.servers_cpu_ms for run in runs), "ms", 1),
        Figure("CPU under the bare client, client", tuple(top.own_cpu_ms for top in tops), "ms", 1),
        Figure("  API server, etcd", tuple(top.servers_cpu_ms for top in tops), "ms", 1),
    ]


async def _run(stage: Stage, *, under_way: int) -> Run:
    """One run with a new controller; `under_way` executions at any time."""
    done = SucceededCount()
    async with started(stage, worker_seconds=WORKER_SECONDS) as controlled:
        await controlled.until_leading()
        before = await controlled.server.writes()
        cpu_before, servers_before = controlled.child.cpu_seconds, stage.servers_cpu_seconds
        async with controlled.server.watching(controlled.namespace, done, fieldSelector="status.phase=Succeeded"):
            per_second, total = await _keep_under_way(controlled, done, under_way, stage.scale.executions)
        cpu_after, servers_after = controlled.child.cpu_seconds, stage.servers_cpu_seconds
        writes = await controlled.server.writes() - before
        return Run(
            per_second,
            own_cpu_ms=(cpu_after - cpu_before) / total * 1000,
            servers_cpu_ms=(servers_after - servers_before) / total * 1000,
            writes={verb: amount / total for verb, amount in writes.items()},
        )


async def _keep_under_way(
    controlled: Controlled, done: SucceededCount, under_way: int, amount: int
) -> tuple[float, int]:
    """Executions per second, taken over `amount` of them, and how many there were in all."""
    progress, put = Progress("executions"), 0
    began: tuple[int, float] | None = None
    per_second = 0.0
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not per_second or done.total < put:
        controlled.child.require_running()
        now = time.monotonic()
        if now > deadline:
            raise BenchError(f"{put - done.total} executions did not end within {_PATIENCE_SECONDS:.0f} s")
        if began is None and done.total >= under_way:
            began = done.total, now
        if began is not None and not per_second and done.total >= began[0] + amount:
            per_second = (done.total - began[0]) / (now - began[1])
        if not per_second and (room := under_way - (put - done.total)) > 0:
            await controlled.put_tasks(room)
            put += room
        progress.show(f"{done.total:,} Succeeded")
        await asyncio.sleep(_TOP_UP_SECONDS)
    progress.end()
    return per_second, put
