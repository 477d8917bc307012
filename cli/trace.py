"""``alakai trace``: every slice of work of one trace, in order, from log files, folders or standard input."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from cli.output import Output, console, progress, show_document
from executions.errors import AlakaiError
from executions.moment import iso_from_ms
from executions.trace import TracedSlice, traced

STANDARD_INPUT = "-"


class NothingFound(AlakaiError):
    """No line of the trace, or no file to look at."""


def run(trace_id: str, sources: Sequence[str], output: Output) -> None:
    """Print it. Raises NothingFound."""
    found = traced(_lines(sources or [STANDARD_INPUT]), trace_id)
    if not found:
        raise NothingFound(f"no summary event of {trace_id} in there; give the logs of API, controller and workers")
    if output in (Output.JSON, Output.YAML):
        show_document([dict(item.document) for item in found], output)
        return
    out = console()
    for item in found:
        out.print(_line(item), markup=False)
        for name, result in item.steps:
            out.print(f"{'':26}{name}: {result}", markup=False)
        if message := item.text("error", "message"):
            out.print(f"{'':26}error: {item.text('error', 'type')}: {message}", markup=False)
        if url := item.text("pull_request", "url"):
            out.print(f"{'':26}pull request: {url}", markup=False)
    first, last = found[0], max(found, key=lambda item: item.ended_ms)
    spent = (last.ended_ms - first.began_ms) / 1000
    out.print(f"{len(found)} slices in {spent:.1f} s; at last: {last.text('final_status')}", markup=False)


def _line(item: TracedSlice) -> str:
    duration = f"{item.text('duration_ms') or '?'} ms"
    task = item.text("task", "task_id")
    return (
        f"{iso_from_ms(item.began_ms)}  {item.text('component'):12}  {item.text('event')} -> {item.text('outcome')}"
        f"  {item.text('final_status')}  {duration}  {task}"
    )


def _lines(sources: Sequence[str]) -> Iterator[bytes]:
    paths = [path for source in sources if source != STANDARD_INPUT for path in _files(Path(source))]
    with progress() as bar:
        task = bar.add_task("reading", total=len(paths) or None)
        for path in paths:
            with _opened(path) as lines:
                yield from lines
            bar.advance(task)
    if STANDARD_INPUT in sources:
        yield from sys.stdin.buffer


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(item for item in path.rglob("*") if item.is_file())
    if path.is_file():
        return [path]
    raise NothingFound(f"{path} is neither a file nor a folder")


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
