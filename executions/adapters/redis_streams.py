"""Redis streams as redis-py answers them, in one shape for RESP2 and RESP3."""

from __future__ import annotations

Entry = tuple[str, dict[bytes, bytes]]
"""Id and fields."""


def stream_entries(answer: object) -> list[Entry]:
    """The entries of an answer to XREAD, XREADGROUP, XRANGE or XCLAIM; those that are gone by now are left out."""
    found: list[Entry] = []
    if isinstance(answer, dict):
        answer = list(answer.values())
    if not isinstance(answer, list | tuple):
        return found
    for item in answer:
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], dict):
            found.append((text(item[0]), item[1]))
        elif isinstance(item, list | tuple | dict):
            found += stream_entries(item)
    return found


def text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def order(entry_id: object) -> tuple[int, int]:
    """Sorts ids as Redis does."""
    milliseconds, _, sequence = text(entry_id).partition("-")
    return int(milliseconds), int(sequence or 0)
