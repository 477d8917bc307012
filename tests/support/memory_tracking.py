"""Task tracking in memory: a stream that can be trimmed and be away, and the projection of what is on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from executions.errors import StoreUnavailable
from executions.event_stream import START, LogEntry
from executions.moment import iso_from_ms
from executions.rows import Place
from executions.tracking import event_from_text
from tests.support.builders import NOW_MS


def tracked(execution_id: str, sequence: int = 1, *, at_ms: int = NOW_MS, **fields: Any) -> dict[str, Any]:
    """A lifecycle event; ``fields`` are added to it or replace what it has."""
    return {
        "eventId": f"of-{execution_id}.{at_ms}.{sequence}",
        "executionId": execution_id,
        "taskId": execution_id,
        "occurredAt": iso_from_ms(at_ms),
        "taskName": "Fix",
        "status": "in_progress",
        "phase": "Running",
        "project": "my-org/my-repo",
        **fields,
    }


class MemoryLog:
    """``ports.EventLog``. ``unavailable`` makes every call fail."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.unavailable = False
        self.lag: str | None = None
        """How far the projection is."""
        self._last = START
        self._was_trimmed = False
        self._added = asyncio.Event()

    def add(self, document: Mapping[str, Any] | bytes) -> str:
        """Put an event onto the stream; its id."""
        number = int(self._last.split("-")[0]) + 10
        self._last = f"{number}-0"
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.entries.append(LogEntry(self._last, text))
        self._added.set()
        return self._last

    def trim(self, keep: int) -> None:
        self._was_trimmed |= len(self.entries) > keep
        self.entries = self.entries[len(self.entries) - keep :]

    def lose_everything(self) -> None:
        """As an emptied Redis."""
        self.entries, self._last, self._was_trimmed = [], START, False

    async def newest(self) -> str:
        self._check()
        return self._last

    async def holds(self, entry_id: str) -> bool:
        self._check()
        is_there = any(entry.entry_id == entry_id for entry in self.entries)
        return is_there or entry_id == self._last or (entry_id == START and not self._was_trimmed)

    async def between(self, after: str, up_to: str, *, count: int) -> list[LogEntry]:
        self._check()
        return [entry for entry in self.entries if _order(after) < _order(entry.entry_id) <= _order(up_to)][:count]

    async def follow(self, after: str, *, count: int, block_ms: int) -> list[LogEntry]:
        self._check()
        found = await self.between(after, f"{2**64}-0", count=count)
        if not found:
            self._added.clear()
            try:
                async with asyncio.timeout(block_ms / 1000):
                    await self._added.wait()
            except TimeoutError:
                return []
            found = await self.between(after, f"{2**64}-0", count=count)
        return found

    async def projected(self) -> str | None:
        self._check()
        return self.lag

    async def close(self) -> None:
        self.unavailable = True

    def _check(self) -> None:
        if self.unavailable:
            raise StoreUnavailable("the stream is away (test)")


class MemoryTasks:
    """``ports.TaskList``. ``unavailable`` makes every call fail; ``read_ids`` counts the work."""

    def __init__(self) -> None:
        self.fields: dict[str, dict[str, str]] = {}
        self.places: dict[str, Place] = {}
        self.unavailable = False
        self.read_ids = 0

    def put(self, *documents: Mapping[str, Any]) -> None:
        """As a projector would; the last one of an execution counts."""
        for document in documents:
            event = event_from_text(json.dumps(document).encode())
            self.fields[event.execution_id] = event.fields
            self.places[event.execution_id] = Place(event.occurred_ms, event.execution_id)

    async def read(self, execution_ids: Sequence[str]) -> list[dict[str, str]]:
        self._check()
        self.read_ids += len(execution_ids)
        return [self.fields.get(execution_id, {}) for execution_id in execution_ids]

    async def newest(self, *, project: str | None, before: Place | None, limit: int) -> list[Place]:
        self._check()
        places = sorted(self.places.values(), key=_newest_last, reverse=True)
        return [
            place
            for place in places
            if (before is None or _newest_last(place) < _newest_last(before))
            and project in (None, self.fields[place.execution_id].get("project"))
        ][:limit]

    def _check(self) -> None:
        if self.unavailable:
            raise StoreUnavailable("the projection is away (test)")


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, sequence = entry_id.split("-")
    return int(milliseconds), int(sequence)


def _newest_last(place: Place) -> tuple[int, bytes]:
    return place.occurred_ms, place.execution_id.encode()
