"""The ceiling of this machine: a bare client makes the same writes for each execution, as fast as they are answered.

Everything but the requests themselves is done before the clock starts: a create, the status Running, the status
Succeeded, per object in this order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.parallel import in_parallel
from bench.stage import Stage
from bench.tasks import Life, manifest, status_patch

WIDTH = 32
"""Objects under way at once; more or fewer is no faster."""


@dataclass(frozen=True, slots=True)
class Run:
    """A rate, and what each execution cost: the bare client's, or that of a controller (`throughput`)."""

    per_second: float
    own_cpu_ms: float
    """Of the client, or the controller."""
    servers_cpu_ms: float
    """Of API server, etcd and Redis."""
    writes: Mapping[str, float] = field(default_factory=dict)
    """API writes by verb."""

    @property
    def cpu_ms(self) -> float:
        return self.own_cpu_ms + self.servers_cpu_ms


async def run(stage: Stage) -> Run:
    """One run in a namespace of its own; the first objects only open the connections."""
    namespace, amount = stage.unused_name(), stage.scale.executions
    names = [f"ceiling-{number}" for number in range(WIDTH + amount)]
    lives = [Life.of(name) for name in names]
    creates = [manifest(life.running(), namespace) for life in lives]
    first = [status_patch(life.running()) for life in lives]
    second = [status_patch(life.ended(succeeded=True)) for life in lives]
    async with stage.api_server(connections=WIDTH) as server:
        await server.create_namespace(namespace)

        async def write(number: int) -> None:
            await server.create(namespace, creates[number])
            await server.patch_status(namespace, names[number], first[number])
            await server.patch_status(namespace, names[number], second[number])

        await in_parallel(range(WIDTH), write, width=WIDTH)
        began, client, servers = time.monotonic(), time.process_time(), stage.servers_cpu_seconds
        await in_parallel(range(WIDTH, WIDTH + amount), write, width=WIDTH)
        each_ms = 1000 / amount
        return Run(
            amount / (time.monotonic() - began),
            own_cpu_ms=(time.process_time() - client) * each_ms,
            servers_cpu_ms=(stage.servers_cpu_seconds - servers) * each_ms,
        )
