"""The dashboard's rows as one person may see them: pages, single rows, and what a stream starts from.

The rows themselves are ``executions.rows``, who sees which is ``executions.visibility``. The work for one request is
bounded: a page may be short, or empty, and still say where to go on.
"""

from __future__ import annotations

from dataclasses import dataclass

from executions.event_stream import Frame, frame_from_entry, reset
from executions.ports import EventLog, TaskList
from executions.rows import Filters, Place, Row, row_from_event, row_from_fields
from executions.visibility import Visibility

EVERYTHING = Filters()
SCANNED_AT_MOST = 2_000
SNAPSHOT_ROWS = 100
_READ_AT_LEAST = 50
_LAG_AT_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Page:
    """Rows from the newest on. ``following`` is where the next page begins; None after the last one."""

    rows: list[Row]
    following: Place | None


@dataclass(frozen=True, slots=True)
class VisibleTasks:
    """Every method raises StoreUnavailable."""

    tasks: TaskList
    visibility: Visibility

    def sees(self, email: str, row: Row) -> bool:
        return self.visibility.sees(email, row.shown["project"], row.visibility)

    def sees_frame(self, email: str, frame: Frame) -> bool:
        return self.visibility.sees(email, frame.event.document.get("project"), frame.visibility)

    async def row(self, execution_id: str) -> Row | None:
        """Whoever may see it."""
        (fields,) = await self.tasks.read([execution_id])
        return row_from_fields(fields)

    async def page(self, email: str, filters: Filters, *, before: Place | None, limit: int) -> Page:
        rows, place, scanned, size = list[Row](), before, 0, max(limit, _READ_AT_LEAST)
        while scanned < SCANNED_AT_MOST:
            places = await self.tasks.newest(project=filters.project, before=place, limit=size)
            found = await self.tasks.read([item.execution_id for item in places])
            for place, fields in zip(places, found, strict=True):
                row = row_from_fields(fields)
                if row is not None and filters.match(row) and self.sees(email, row):
                    rows.append(row)
                    if len(rows) == limit:
                        return Page(rows, place)
            scanned += len(places)
            if len(places) < size:
                return Page(rows, None)
        return Page(rows, place)

    async def snapshot(self, email: str, log: EventLog, up_to: str) -> tuple[bytes, str]:
        """The reset event, and the entry that events follow from.

        The projection is behind the stream. Asked first how far it is, then read, then brought up to date with the
        events in between: else one that was projected after we read, and came before ``up_to``, would reach nobody.
        """
        projected = await log.projected()
        page = await self.page(email, EVERYTHING, before=None, limit=SNAPSHOT_ROWS)
        rows = {row.shown["executionId"]: row for row in page.rows}
        lagging = [] if projected is None else await log.between(projected, up_to, count=_LAG_AT_MOST)
        for entry in lagging:
            frame = frame_from_entry(entry)
            if frame is not None:
                self._overlay(email, rows, row_from_event(frame.event))
        start = lagging[-1].entry_id if len(lagging) == _LAG_AT_MOST else up_to
        newest = sorted(rows.values(), key=lambda row: row.order, reverse=True)[:SNAPSHOT_ROWS]
        return reset([dict(row.shown) for row in newest], start), start

    def _overlay(self, email: str, rows: dict[str, Row], row: Row) -> None:
        name = row.shown["executionId"]
        if name in rows and row.order <= rows[name].order:
            return
        if self.sees(email, row):
            rows[name] = row
        else:
            rows.pop(name, None)
