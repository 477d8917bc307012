"""The archive's names and receipts: which object an event goes into, and what is kept of an object that is stored.

An object holds events of one project and one day (UTC), a line each, and never changes. Its name is decided before
anything is stored. Writing it is ``adapters/s3_archive.py``, remembering what is where ``adapters/archive_ledger.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from executions.moment import iso_from_ms
from executions.tracking import TrackingEvent

NO_PROJECT = "no-project"
"""The folder of events that name no project. No project is called like this: its name has a slash."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of an object since it was stored."""

    name: str
    sha256: str
    """Of the whole object, hexadecimal."""
    size: int
    """In bytes."""
    events: int
    stored_ms: int

    def encoded(self) -> bytes:
        return orjson.dumps(self)


def receipt_from(text: str) -> Receipt:
    return Receipt(**orjson.loads(text))


def receipt_for(name: str, body: bytes, *, events: int, now_ms: int) -> Receipt:
    return Receipt(name, hashlib.sha256(body).hexdigest(), len(body), events, now_ms)


def folder_of(event: TrackingEvent) -> str:
    """``owner/repo/2026-03-15``."""
    return f"{event.project or NO_PROJECT}/{iso_from_ms(event.occurred_ms)[:10]}"


def object_name(folder: str, *, now_ms: int, suffix: str) -> str:
    """Below the archive's prefix: ``owner/repo/2026-03-15/events-1700000000000-ab12cd.jsonl``."""
    return f"{folder}/events-{now_ms}-{suffix}.jsonl"


def by_folder(events: Iterable[tuple[str, TrackingEvent]]) -> Mapping[str, list[tuple[str, TrackingEvent]]]:
    """Entries of the stream by the folder that their events go into, each in the order of the stream."""
    folders: dict[str, list[tuple[str, TrackingEvent]]] = {}
    for entry_id, event in events:
        folders.setdefault(folder_of(event), []).append((entry_id, event))
    return folders
