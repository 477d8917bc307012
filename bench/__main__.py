"""`python -m bench [--quick] [NAME ...]`: measure, and print one table. Figures, no gates."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from types import FrameType

from bench import lag, memory, page, retry, throughput
from bench.errors import BenchError
from bench.machine import OtherWork, machine_facts
from bench.report import Figure, render
from bench.stage import FULL, QUICK, Scale, Stage, opened
from devstack.console import say
from devstack.environment import LOOPBACK
from devstack.errors import DevstackError

MEASUREMENTS: dict[str, tuple[str, Callable[[Stage], Awaitable[list[Figure]]]]] = {
    "throughput": ("executions per second and their cost, beside a bare client's", throughput.measure),
    "lag": ("from a commit in Redis until a watch shows it, at half load", lag.measure),
    "memory": ("the controller's memory and start among live resources", memory.measure),
    "page": ("the dashboard page's frames and memory, with thousands of rows that change", page.measure),
    "retry": ("the retry route beside a route that does nothing", retry.measure),
}
_NOTEWORTHY_SHARE = 0.1


def main() -> int:
    """Exit status 0 when everything was measured."""
    about = "\n".join(f"  {name:12}{text}" for name, (text, _) in MEASUREMENTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the control plane on this machine. Starts and stops all that it needs.",
        epilog=f"what can be measured, all unless named:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, only to see that it works")
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in MEASUREMENTS]:
        parser.error(f"nothing is called {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = LOOPBACK  # all servers of the benchmark are there
    try:
        print(_measured(QUICK if options.quick else FULL, options.names or MEASUREMENTS))
    except (BenchError, DevstackError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; nothing is left running")
        return 1
    return 0


def _measured(scale: Scale, names: Collection[str]) -> str:
    """The whole report."""
    began, others = time.monotonic(), OtherWork()
    with opened(scale) as stage:
        facts, figures = asyncio.run(_run(stage, names))
    notes = list(stage.notes)
    if scale is QUICK:
        notes.append("--quick shows that everything can be measured; its numbers are too small to mean much.")
    if others.share >= _NOTEWORTHY_SHARE:
        notes.append(f"Other programs used {others.share:.0%} of this machine meanwhile: it can do more than this.")
    facts["Measured in"] = f"{time.monotonic() - began:.0f} s, medians of {scale.runs} runs"
    return render(figures, facts, notes)


async def _run(stage: Stage, names: Collection[str]) -> tuple[dict[str, str], list[Figure]]:
    async with stage.api_server() as server:
        facts = machine_facts(kubernetes=await server.version(), redis=await stage.redis_version())
    figures: list[Figure] = []
    for name, (about, measure) in MEASUREMENTS.items():
        if name in names:
            say(f"{name}: {about}")
            figures += await measure(stage)
    return facts, figures


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
