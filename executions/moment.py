"""Points in time: whole milliseconds since the Unix epoch in Python, ISO 8601 UTC text in JSON.

Never asks what time it is: ``now_ms`` is always an argument, and its source is the Redis server's clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999: what ISO 8601 text can say. A number beyond could be read and never be written again."""


def iso_from_ms(value_ms: int) -> str:
    """``1700000000123`` → ``2023-11-14T22:13:20.123Z``."""
    moment = _EPOCH + timedelta(milliseconds=value_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ms_from_iso(text: str) -> int:
    """The reverse of iso_from_ms; text without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


FOREIGN = {"foreign": True}
"""Validation context for documents that others may have written: their numbers may be seconds."""


def _parse(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return ms_from_iso(value)
    if info.context and info.context.get("foreign") and isinstance(value, float | int) and not isinstance(value, bool):
        return round(value * 1000) if abs(value) < 100_000_000_000 else round(value)
    return value


Moment = Annotated[
    int,
    Field(ge=FIRST_MS, le=LAST_MS),
    BeforeValidator(_parse),
    PlainSerializer(iso_from_ms, when_used="json"),
]
"""A field that is milliseconds in Python and ISO text in JSON."""
