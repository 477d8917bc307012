"""``alakai archive``: a task's history back from S3, and whether S3 holds what the receipts say."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from cli.output import Output, progress, show_document, show_table
from cli.store import with_store
from executions.adapters.s3_archive import S3Archive
from executions.adapters.settings import settings_from_environment
from executions.adapters.task_tracking import TaskTracking, open_tracking
from executions.archive import Receipt
from executions.errors import AlakaiError, InvalidEvent, InvalidSettings, InvalidTask, StoreUnavailable
from executions.names import checked_task_id
from executions.record import RecordUnreadable
from executions.tracking import TrackingEvent, event_from_text, execution_id_of

T = TypeVar("T")
_AT_ONCE = 8


class ArchiveProblem(AlakaiError):
    """The archive does not hold what was asked for."""


def read(wanted: str, project: str | None, output: Output) -> None:
    """Print the events of a task or execution, oldest first. Raises ArchiveProblem, ArchiveUnavailable."""
    events = asyncio.run(_with_archive(lambda tracking, archive: _events(tracking, archive, wanted, project)))
    if not events:
        raise ArchiveProblem(f"the archive holds no event of {wanted}; is that its task id or execution id?")
    if output in (Output.JSON, Output.YAML):
        show_document([dict(event.document) for event in events], output)
        return
    columns = ("time", "attempt", "phase", "status", "error", "task", "event")
    rows = [[str(event.document.get(name) or "") for name in _CELLS] for event in events]
    show_table(columns, rows)


_CELLS = ("occurredAt", "attempt", "phase", "status", "errorCode", "taskId", "eventId")


def verify() -> None:
    """Compare every receipt with its object. Raises ArchiveProblem when one differs, after all were looked at."""
    problems, count = asyncio.run(_with_archive(_verified))
    for problem in problems:
        print(problem)
    print(f"{count} objects, {len(problems)} of them not as their receipts say")
    if problems:
        raise ArchiveProblem("S3 does not hold what was stored: look who deletes or changes objects below the prefix")


async def _with_archive(act: Callable[[TaskTracking, S3Archive], Awaitable[T]]) -> T:
    tracking = open_tracking(settings_from_environment())
    try:
        if tracking.archive is None:
            raise InvalidSettings("the archive is switched off; set TASK_TRACKING_S3_ARCHIVE_ENABLED and the bucket")
        return await act(tracking, tracking.archive)
    finally:
        await tracking.close()


async def _events(tracking: TaskTracking, archive: S3Archive, wanted: str, project: str | None) -> list[TrackingEvent]:
    names = await _known(tracking, wanted) or await archive.names(f"{project}/" if project else "")
    bodies = await _each(names, archive.read)
    found = {
        event.event_id: event
        for body in bodies
        for event in _lines(body or b"")
        if wanted in (event.execution_id, event.document.get("taskId"))
    }
    return sorted(found.values(), key=lambda event: event.order)


async def _known(tracking: TaskTracking, wanted: str) -> list[str]:
    """The objects by Redis' word; none when it does not know, or is away: then all objects are looked at."""
    try:
        found = await tracking.ledger.objects_of(wanted) or await tracking.ledger.objects_of(await _row_of(wanted))
        return sorted(set(found.values()))
    except StoreUnavailable:
        return []


async def _row_of(task_id: str) -> str:
    """The execution id of a task that has a record; else what was asked for."""
    try:
        snapshot = await with_store(lambda store: store.read(checked_task_id(task_id)))
    except (InvalidTask, RecordUnreadable):
        return task_id
    return execution_id_of(snapshot.execution) if snapshot.execution is not None else task_id


async def _verified(tracking: TaskTracking, archive: S3Archive) -> tuple[list[str], int]:
    receipts = [receipt async for receipt in tracking.ledger.all_receipts()]

    async def problem(receipt: Receipt) -> str | None:
        body = await archive.read(receipt.name)
        if body is None:
            return f"{receipt.name}: it is not there"
        if hashlib.sha256(body).hexdigest() != receipt.sha256:
            return f"{receipt.name}: it was changed since it was stored"
        return None

    found = await _each(receipts, problem)
    return [item for item in found if item is not None], len(receipts)


V = TypeVar("V")


async def _each(items: Iterable[V], look: Callable[[V], Awaitable[T]]) -> list[T]:
    """Some at a time, in order, with a bar for whoever waits."""
    wanted, at_once = list(items), asyncio.Semaphore(_AT_ONCE)
    with progress() as bar:
        task = bar.add_task("objects", total=len(wanted))

        async def one(item: V) -> T:
            async with at_once:
                found = await look(item)
            bar.advance(task)
            return found

        return list(await asyncio.gather(*(one(item) for item in wanted)))


def _lines(body: bytes) -> Iterable[TrackingEvent]:
    for line in body.splitlines():
        try:
            yield event_from_text(line)
        except InvalidEvent:
            continue  # Whatever else lies below the prefix.
