"""The way of one task through API, controller and workers, from their summary events: pure, from lines of logs.

A line that is no summary event, or of another trace, is passed over; the same line twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from executions.moment import ms_from_iso


@dataclass(frozen=True, slots=True)
class TracedSlice:
    """One slice of work, as its event told it."""

    ended_ms: int
    document: Mapping[str, Any]

    @property
    def began_ms(self) -> int:
        return self.ended_ms - int(self.document.get("duration_ms") or 0)

    def text(self, *names: str) -> str:
        """What stands at a path in the event, "" where nothing does."""
        found: Any = self.document
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return "" if found is None else str(found)

    @property
    def steps(self) -> Iterator[tuple[str, str]]:
        steps = self.document.get("steps")
        if isinstance(steps, Mapping):
            yield from ((str(name), str(result)) for name, result in steps.items())


def traced(lines: Iterable[bytes], trace_id: str) -> list[TracedSlice]:
    """The slices of a trace, or of a task by its id, in the order in which they began."""
    found = {}
    for line in lines:
        if trace_id.encode() in line and (item := _slice_from(line)) is not None and _is_of(item, trace_id):
            found[orjson.dumps(item.document, option=orjson.OPT_SORT_KEYS)] = item
    return sorted(found.values(), key=lambda item: (item.began_ms, item.ended_ms))


def _slice_from(line: bytes) -> TracedSlice | None:
    """Log collectors put something before the JSON (a time, a pod's name), so the first brace begins it."""
    start = line.find(b"{")
    if start < 0:
        return None
    try:
        document = orjson.loads(line[start:])
        if not isinstance(document, dict) or "final_status" not in document:
            return None
        return TracedSlice(ms_from_iso(str(document["time"])), document)
    except (ValueError, KeyError):
        return None


def _is_of(item: TracedSlice, trace_id: str) -> bool:
    return trace_id in (item.text("trace_id"), item.text("task", "task_id"))
