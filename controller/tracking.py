"""Task tracking, wired from the settings: what of it runs on every replica, alone or on the leader.

Every replica projects and, where there is an archive, archives; the leader publishes. ``python -m controller --only
projector`` runs one part by itself.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from controller.loops.archiver import Archiver
from controller.loops.projector import Projector
from controller.loops.publisher import Publisher
from controller.loops.stream_reader import StreamReader
from executions.adapters.archive_ledger import ArchiveLedger
from executions.adapters.redis_connection import connect
from executions.adapters.redis_feed import FeedCursor
from executions.adapters.redis_store import RedisStore
from executions.adapters.s3_archive import S3Archive, checked, open_archive
from executions.adapters.settings import Settings
from executions.adapters.tracking_keys import TrackingKeys
from executions.adapters.tracking_projection import TrackingProjection
from executions.adapters.tracking_stream import TrackingStream
from executions.adapters.visibility_file import visibility_from
from executions.errors import StoreUnavailable
from executions.record import Execution
from executions.tracking import execution_id_of
from executions.visibility import Visibility

Work = Callable[[], Awaitable[None]]
FEED_GROUP = "tracking"
_PROJECTOR_IDLE_SECONDS = 15.0
_TRIM_SECONDS = 5.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Tracking:
    """Stream, projection and archive of one process."""

    settings: Settings
    stream: TrackingStream
    projection: TrackingProjection
    ledger: ArchiveLedger
    archive: S3Archive | None
    """None while the archive is switched off."""
    visibility: Visibility

    @classmethod
    def from_settings(cls, settings: Settings) -> Tracking:
        """Connects to nothing yet. Raises InvalidSettings."""
        redis = connect(settings.task_tracking_redis_url, url_file=settings.task_tracking_redis_url_file)
        keys = TrackingKeys(settings.task_tracking_redis_stream_key, settings.task_tracking_redis_key_prefix)
        return cls(
            settings=settings,
            stream=TrackingStream(redis, keys),
            projection=TrackingProjection(redis, keys),
            ledger=ArchiveLedger(redis, keys),
            archive=open_archive(settings) if settings.task_tracking_s3_archive_enabled else None,
            visibility=visibility_from(settings.task_visibility_file),
        )

    async def check(self) -> None:
        """Raises InvalidSettings when the archive's bucket does not exist."""
        if self.archive is not None and (problem := await checked(self.archive)):
            _log.warning("Nobody can tell whether the archive's bucket exists", reason=problem)

    def parts(self) -> Mapping[str, Work]:
        """What every replica runs, by name."""
        parts: dict[str, Work] = {"projector": self._projector().run}
        if self.archive is not None:
            parts["archiver"] = self._archiver(self.archive).run
        return {**parts, "trimmer": self.trim_for_ever}

    def publisher(self, store: RedisStore) -> Publisher:
        """What the leader runs."""
        return Publisher(FeedCursor(store.redis, store.keys.prefix, group=FEED_GROUP), self.stream, self.visibility)

    async def is_archived(self, execution: Execution) -> bool:
        """Whether its latest step is in an object that is stored. What is on the stream yet will be, whatever goes."""
        told = execution.state.told_event
        if self.archive is None or told is None:
            return True
        (found,) = await self.ledger.archived([(execution_id_of(execution), told)])
        return found

    async def trim_for_ever(self) -> None:
        """Behind every group that is switched on, whoever reads for it and wherever."""
        groups = [self.settings.task_tracking_redis_projector_consumer_group]
        if self.archive is not None:
            groups.append(self.settings.task_tracking_redis_archiver_consumer_group)
        while True:
            try:
                await self.stream.trim(groups, keep=self.settings.task_tracking_stream_keep)
            except StoreUnavailable as error:
                _log.warning("The tracking stream could not be trimmed", reason=str(error))
            await asyncio.sleep(_TRIM_SECONDS)

    async def close(self) -> None:
        if self.archive is not None:
            await self.archive.close()
        await self.stream.close()

    def _projector(self) -> Projector:
        group = self.settings.task_tracking_redis_projector_consumer_group
        return Projector(self._reader("projector", group, _PROJECTOR_IDLE_SECONDS), self.projection)

    def _archiver(self, archive: S3Archive) -> Archiver:
        settings = self.settings
        group = settings.task_tracking_redis_archiver_consumer_group
        # What is held for a batch must not look as if it were left behind.
        idle_seconds = max(30.0, 3 * settings.task_tracking_s3_batch_seconds)
        return Archiver(
            self._reader("archiver", group, idle_seconds),
            group,
            self.ledger,
            archive,
            batch_seconds=settings.task_tracking_s3_batch_seconds,
            batch_events=settings.task_tracking_s3_batch_events,
        )

    def _reader(self, what: str, group: str, idle_seconds: float) -> StreamReader:
        name = self.settings.task_tracking_redis_consumer_name
        consumer = f"{name}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        return StreamReader(what, self.stream.group(group, consumer), idle_seconds=idle_seconds)
