"""Lifecycle events as a browser follows them: server-sent events (``text/event-stream``) with the stream's own ids.

What is written to a connection is made here; who gets what, and from where on, is ``api/live.py``. Reads nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from executions.errors import InvalidEvent
from executions.tracking import TrackingEvent, event_from_text

START = "0-0"
"""Before the first entry of any stream."""
RETRY_MS = 2_000
HELLO = b"retry: %d\n\n" % RETRY_MS
"""How soon a browser comes back after its connection ended."""
HEARTBEAT = b": heartbeat\n\n"
_ENTRY_ID = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)
_LARGEST = 2**64 - 1


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry of the stream as it stands there."""

    entry_id: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as it goes to everybody who may see it: made once, shared by all readers."""

    entry_id: str
    chunk: bytes
    event: TrackingEvent

    @property
    def visibility(self) -> object:
        return self.event.document.get("visibility")


def frame_from_entry(entry: LogEntry) -> Frame | None:
    """None for an entry that nothing can be made of: the projector puts it aside with the reason."""
    try:
        event = event_from_text(entry.text)
        # Made anew instead of passed on: a line break in somebody's JSON would end the event.
        return Frame(entry.entry_id, server_sent("task", event.line, entry_id=entry.entry_id), event)
    except (InvalidEvent, TypeError):
        return None


def server_sent(kind: str, data: bytes, *, entry_id: str | None = None) -> bytes:
    """One event; with an id, it is where a browser goes on after a break. ``data`` has no line breaks."""
    place = f"id: {entry_id}\n".encode() if entry_id else b""
    return b"%bevent: %b\ndata: %b\n\n" % (place, kind.encode(), data)


def reset(rows: list[dict[str, object]], entry_id: str) -> bytes:
    """What a reader starts from: the newest rows, and where the events begin that are not in them yet."""
    return server_sent("reset", orjson.dumps({"tasks": rows, "lastEventId": entry_id}), entry_id=entry_id)


EXPIRED = server_sent("expired", b"{}")
"""The last one of a reader whose sign-in ended: it must sign in again."""


def is_after(entry_id: str, other: str) -> bool:
    """Whether an entry comes after the other one on their stream."""
    return _order(entry_id) > _order(other)


def checked_entry_id(text: str) -> str | None:
    """An id as Redis spells them; None for anything else."""
    found = _ENTRY_ID.fullmatch(text)
    return text if found and max(int(found[1]), int(found[2])) <= _LARGEST else None


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, sequence = entry_id.split("-")
    return int(milliseconds), int(sequence)
