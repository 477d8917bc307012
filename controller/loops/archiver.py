"""Writes lifecycle events to the archive, in batches by project and day. Any number may run.

Entries are held until there are enough of them or the first has waited for long enough; then they are sealed as batches
(``ArchiveLedger``), and sealed batches are put, by whoever sealed them or, after a while, by any other archiver.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

import structlog

from controller.loops.projector import events_of
from controller.loops.stream_reader import StreamReader
from executions.adapters.archive_ledger import ArchiveLedger
from executions.adapters.metrics import ARCHIVE_FAILURES, ARCHIVE_OPEN, TRACKING_HANDLED
from executions.adapters.s3_archive import S3Archive
from executions.adapters.tracking_stream import Delivery
from executions.archive import by_folder, object_name, receipt_for
from executions.errors import ArchiveUnavailable, StoreUnavailable
from executions.tracking import TrackingEvent

_BLOCK_MS = 500
_PAUSE_SECONDS = 5.0
_OTHERS_SECONDS = 10.0
_OPEN_MAX = 1000
"""Batches that wait for S3; with more of them the events stay on the stream."""
_log = structlog.get_logger(__name__)


def wall_clock_ms() -> int:
    """For the names of objects, which need not be exact."""
    return time.time_ns() // 1_000_000


class Archiver:
    """``run`` archives for ever; an outage of Redis or S3 is waited out."""

    def __init__(
        self,
        reader: StreamReader,
        group: str,
        ledger: ArchiveLedger,
        archive: S3Archive,
        *,
        batch_seconds: float,
        batch_events: int,
        others_seconds: float = _OTHERS_SECONDS,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._reader = reader
        self._group = group
        self._ledger = ledger
        self._archive = archive
        self._batch_seconds = batch_seconds
        self._batch_events = batch_events
        self._others_seconds = others_seconds
        self._clock_ms = clock_ms
        self._held: dict[str, tuple[Delivery, TrackingEvent]] = {}
        """By entry id: what was taken from the stream and is not in a batch."""
        self._held_since = 0.0
        self._sealed: dict[str, None] = {}
        """Names of our own batches that S3 does not have yet."""
        self._open_before: set[str] = set()
        self._looked_at = 0.0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for_ever(self.collect))
            group.create_task(self._for_ever(self.put_open))

    async def collect(self) -> None:
        """Take what is there, and seal it when it is time."""
        room = self._batch_events - len(self._held)
        if await self._ledger.open_count() >= _OPEN_MAX:
            await asyncio.sleep(_BLOCK_MS / 1000)
            return
        events, problems = events_of(await self._reader.take(count=max(room, 1), block_ms=_BLOCK_MS))
        if events and not self._held:
            self._held_since = time.monotonic()
        self._held.update((delivery.entry_id, (delivery, event)) for delivery, event in events)
        await self._reader.failed(problems)
        is_time = time.monotonic() - self._held_since >= self._batch_seconds
        if self._held and (is_time or len(self._held) >= self._batch_events):
            await self.seal()

    async def seal(self) -> None:
        """Make batches of what is held. A crash in between seals the rest later, from the stream."""
        entries = [(entry_id, event) for entry_id, (_, event) in self._held.items()]
        for folder, found in by_folder(entries).items():
            name = object_name(folder, now_ms=self._clock_ms(), suffix=secrets.token_hex(4))
            self._sealed[name] = None
            await self._ledger.seal(self._group, folder, name, found)
            TRACKING_HANDLED.labels("archiver").inc(len(found))
            for entry_id, _ in found:
                del self._held[entry_id]

    async def put_open(self) -> None:
        """Store what this archiver sealed, and what others sealed and left behind."""
        names = [*self._sealed, *await self._left_behind()]
        ARCHIVE_OPEN.set(await self._ledger.open_count())
        for name in names:
            batch = await self._ledger.batch(name)
            if batch is not None:
                await self._archive.put(batch.name, batch.body)
                receipt = receipt_for(batch.name, batch.body, events=batch.events, now_ms=self._clock_ms())
                await self._ledger.stored(batch, receipt)
            self._sealed.pop(name, None)
        if not names:
            await asyncio.sleep(min(1.0, self._batch_seconds))

    async def _left_behind(self) -> list[str]:
        """Open at two looks in a row: each replica would put each batch otherwise."""
        now = time.monotonic()
        if now - self._looked_at < self._others_seconds:
            return []
        self._looked_at = now
        found = await self._ledger.open_names()
        left = [name for name in found if name in self._open_before and name not in self._sealed]
        self._open_before = set(found)
        return left

    async def _for_ever(self, turn: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await turn()
            except StoreUnavailable as error:
                _log.warning("The archive cannot be written", reason=str(error))
                await asyncio.sleep(1)
            except ArchiveUnavailable as error:
                ARCHIVE_FAILURES.inc()
                _log.warning("The archive cannot be written", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
