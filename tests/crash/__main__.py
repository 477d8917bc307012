"""``python -m tests.crash``: every failpoint, occurrence and action, each in an installation of its own; then a table.

Environment: ONLY (part of a failpoint's text), LAUNCHERS (local,ecs), OCCURRENCES (1,2), PAUSE_SECONDS (30), JOBS (runs
at once; three for each core), EACH (2 tasks of each kind).
Exit status 1 when an invariant was violated or a failpoint was never reached.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from devstack.aws import AwsServer
from devstack.infra import apply_crds
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from tests.crash.failpoints import API_STEPS, CONTROLLER_STEPS, Action, Failpoint
from tests.crash.run import Result, Run
from tests.e2e.installation import Installation

_SIDES = (
    ("before", Action.KILL),
    ("after", Action.KILL),
    ("before", Action.PAUSE),
    ("after", Action.LOSE_REPLY),
)
_WIDTH = 140
"""Of what is written into a file: nothing in the tables is cut."""
_AGAIN_AND_AGAIN = ("lease",)
"""Steps that every process takes all the time: which of them it is makes no difference."""


def matrix(only: str, occurrences: list[int]) -> list[Failpoint]:
    """All failpoints whose text has ``only`` in it."""
    points = [
        Failpoint(side, step, action, occurrence)
        for step in (*CONTROLLER_STEPS, *API_STEPS)
        for side, action in _SIDES
        for occurrence in occurrences
        if not (step in _AGAIN_AND_AGAIN and occurrence > 1)
    ]
    return [point for point in points if only in str(point)]


@contextmanager
def servers(folder: Path) -> Iterator[tuple[RedisServer, AwsServer, ControlPlane]]:
    """One of each for all runs; every run has its own namespace, queue and key prefix there."""
    with ExitStack() as stack:
        plane = ControlPlane.start(folder / "kubernetes")
        stack.callback(plane.stop)
        apply_crds(str(plane.kubeconfig))
        redis = RedisServer.start(folder / "redis")
        stack.callback(redis.stop)
        aws = AwsServer.start(folder / "aws")
        stack.callback(aws.stop)
        yield redis, aws, plane


def main() -> int:
    """Exit status 0 when every run was good."""
    environ = os.environ
    launchers = environ.get("LAUNCHERS", "local,ecs").split(",")
    points = matrix(environ.get("ONLY", ""), [int(text) for text in environ.get("OCCURRENCES", "1,2").split(",")])
    pause_seconds, each = float(environ.get("PAUSE_SECONDS", "30")), int(environ.get("EACH", "2"))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    results = dict[tuple[str, Failpoint], str | None]()
    broken_off = threading.Event()
    if not points:
        console.print(f"No failpoint has ONLY={environ.get('ONLY')!r} in its text.")
        return 2
    with tempfile.TemporaryDirectory(prefix="alakai-crash-") as name, servers(Path(name)) as (redis, aws, plane):

        def run(launcher: str, point: Failpoint) -> Result:
            folder = Path(tempfile.mkdtemp(dir=name))
            with Installation(redis, aws, plane, folder) as installation:
                return Run(installation, point, pause_seconds, launcher, each, broken_off)()

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        jobs = int(environ.get("JOBS", 3 * (os.cpu_count() or 1)))  # most of a run is waiting
        with Progress(*columns, console=console) as progress, _until_broken_off(jobs, broken_off) as pool:
            rows = [(launcher, point) for launcher in launchers for point in points]
            bar = progress.add_task("crash matrix", total=len(rows))
            pending: dict[Future[Result], tuple[str, Failpoint]] = {pool.submit(run, *row): row for row in rows}
            for future in as_completed(pending):
                launcher, point = pending[future]
                problem = results[launcher, point] = _problem(future)
                progress.advance(bar)
                if problem is not None:
                    progress.console.print(f"{launcher} {point}: {problem}", markup=False)
    for launcher in launchers:
        console.print(_table(launcher, {point: results[launcher, point] for point in points}))
    bad = [row for row, problem in results.items() if problem is not None]
    console.print(f"{len(results) - len(bad)} passed, {len(bad)} failed")
    return 1 if bad else 0


@contextmanager
def _until_broken_off(jobs: int, broken_off: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """Whoever ends the matrix early (Ctrl-C, SIGTERM) ends what runs in it too: no server is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        broken_off.set()
        pool.shutdown(cancel_futures=True)


def _problem(future: Future[Result]) -> str | None:
    error = future.exception()
    if error is not None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:500]} ({Path(last.filename).name}:{last.lineno}: {last.line})"
    result = future.result()
    if not result.is_reached:
        return "never reached, so that nothing was tested"
    return "; ".join(result.violations) or None


def _table(launcher: str, results: dict[Failpoint, str | None]) -> Table:
    table = Table(title=f"crash matrix, {launcher} launcher")
    table.add_column("step", no_wrap=True)
    columns = list(dict.fromkeys(_column(point) for point in results))
    for column in columns:
        table.add_column(column, justify="center")
    for step in dict.fromkeys(point.step for point in results):
        cells = {_column(point): problem for point, problem in results.items() if point.step == step}
        shown = ["" if name not in cells else "ok" if cells[name] is None else "[red]FAILED[/]" for name in columns]
        table.add_row(step, *shown)
    return table


def _column(point: Failpoint) -> str:
    return f"{point.side} {point.action.value} {point.occurrence}"


if __name__ == "__main__":
    sys.exit(main())
