"""What one commit writes: a pure function of what was read and what was decided.

The store compares and writes it atomically and knows nothing else of the domain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from executions.feed import FeedEntry, Transition, entry_between
from executions.index import Index, Place, index_scores, place
from executions.ports import Snapshot
from executions.record import Execution, adopted, encoded


@dataclass(frozen=True, slots=True)
class Write:
    """``attempts`` holds only the fields that change; ``scores`` names every index (None: not in it)."""

    execution: Execution
    """As it will be read back."""
    attempts: Mapping[str, bytes]
    state: bytes
    scores: Mapping[Index, int | None]
    place: Place
    entry: FeedEntry | None


def write_for(snapshot: Snapshot, execution: Execution) -> Write:
    """The write that turns what ``snapshot`` read into ``execution``, one sequence number later."""
    following = adopted(execution).with_state(sequence=execution.state.sequence + 1)
    entry = entry_between(snapshot.execution, following, snapshot.now_ms)
    if entry is not None and entry.event is not None:
        following = following.with_state(told_event=entry.event_id)
    before = {item.number: item for item in snapshot.execution.attempts} if snapshot.execution else {}
    return Write(
        execution=following,
        attempts={str(item.number): encoded(item) for item in following.attempts if before.get(item.number) != item},
        state=encoded(following.state),
        scores=index_scores(following),
        place=place(following),
        entry=entry,
    )


def forgotten_entry(snapshot: Snapshot) -> FeedEntry:
    """The feed entry for a record that was removed by hand."""
    return FeedEntry(snapshot.task_id, "", 0, 0, Transition.FORGOTTEN, snapshot.now_ms)


def record_digest(fields: Mapping[str, bytes]) -> str:
    """SHA-1 of a record's content, empty for no record; ``digest.lua`` computes the same on its side."""
    if not fields:
        return ""
    digest = hashlib.sha1(usedforsecurity=False)
    for field in sorted(fields, key=str.encode):
        name, value = field.encode(), fields[field]
        digest.update(b"%d:%b%d:%b" % (len(name), name, len(value), value))
    return digest.hexdigest()


def foreign_incarnation(version: int, digest: str) -> str:
    """The incarnation of a record that others wrote: the same at each read until it is adopted, a new one after it."""
    return hashlib.sha256(f"{version}:{digest}".encode()).hexdigest()[:16]
