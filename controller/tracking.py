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
from executions.adapters.redis_feed import FeedCursor
from executions.adapters.redis_store import RedisStore
from executions.adapters.s3_archive import S3Archive, checked
from executions.adapters.settings import Settings
from executions.adapters.task_tracking import TaskTracking, open_tracking
from executions.adapters.visibility_file import visibility_from
from executions.errors import StoreUnavailable
from executions.record import Execution
from executions.tracking import execution_id_of
from executions.visibility import Visibility

Work = Callable[[], Awaitable[None]]
FEED_GROUP = "tracking"
_IDLE_SECONDS = 10.0
_TRIM_SECONDS = 5.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Tracking:
    """Stream, projection and archive of one process."""

    settings: Settings
    opened: TaskTracking
    visibility: Visibility

    @classmethod
    def from_settings(cls, settings: Settings) -> Tracking:
        """Connects to nothing yet. Raises InvalidSettings."""
        return cls(settings, open_tracking(settings), visibility_from(settings.task_visibility_file))

    async def check(self) -> None:
        """Raises InvalidSettings when the archive's bucket does not exist."""
        if self.opened.archive is not None and (problem := await checked(self.opened.archive)):
            _log.warning("Nobody can tell whether the archive's bucket exists", reason=problem)

    def parts(self) -> Mapping[str, Work]:
        """What every replica runs, by name."""
        parts: dict[str, Work] = {"projector": self._projector().run}
        if self.opened.archive is not None:
            parts["archiver"] = self._archiver(self.opened.archive).run
        return {**parts, "trimmer": self.trim_for_ever}

    def publisher(self, store: RedisStore) -> Publisher:
        """What the leader runs."""
        feed = FeedCursor(store, group=FEED_GROUP)
        return Publisher(feed, self.opened.stream, self.visibility)

    async def is_archived(self, execution: Execution) -> bool:
        """Whether its latest step is in an object that is stored. What is on the stream yet will be, whatever goes."""
        told = execution.state.told_event
        if self.opened.archive is None or told is None:
            return True
        (found,) = await self.opened.ledger.archived([(execution_id_of(execution), told)])
        return found

    async def trim_for_ever(self) -> None:
        """Behind every group that is switched on, whoever reads for it and wherever."""
        groups = [self.settings.task_tracking_redis_projector_consumer_group]
        if self.opened.archive is not None:
            groups.append(self.settings.task_tracking_redis_archiver_consumer_group)
        while True:
            try:
                await self.opened.stream.trim(groups, keep=self.settings.task_tracking_stream_keep)
            except StoreUnavailable as error:
                _log.warning("The tracking stream could not be trimmed", reason=str(error))
            await asyncio.sleep(_TRIM_SECONDS)

    async def close(self) -> None:
        await self.opened.close()

    def _projector(self) -> Projector:
        group = self.settings.task_tracking_redis_projector_consumer_group
        return Projector(self._reader("projector", group, _IDLE_SECONDS), self.opened.projection)

    def _archiver(self, archive: S3Archive) -> Archiver:
        settings = self.settings
        group = settings.task_tracking_redis_archiver_consumer_group
        # What is held for a batch must not look as if it were left behind.
        idle_seconds = max(_IDLE_SECONDS, 3 * settings.task_tracking_s3_batch_seconds)
        return Archiver(
            self._reader("archiver", group, idle_seconds),
            group,
            self.opened.ledger,
            archive,
            batch_seconds=settings.task_tracking_s3_batch_seconds,
            batch_events=settings.task_tracking_s3_batch_events,
        )

    def _reader(self, what: str, group: str, idle_seconds: float) -> StreamReader:
        name = self.settings.task_tracking_redis_consumer_name
        consumer = f"{name}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        return StreamReader(what, self.opened.stream.group(group, consumer), idle_seconds=idle_seconds)
