"""Everything of task tracking that lies in Redis and S3, opened from the settings by whoever needs it."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

from executions.adapters.archive_ledger import ArchiveLedger
from executions.adapters.redis_connection import connect
from executions.adapters.s3_archive import S3Archive, open_archive
from executions.adapters.settings import Settings
from executions.adapters.tracking_keys import TrackingKeys
from executions.adapters.tracking_log import TrackingLog
from executions.adapters.tracking_projection import TrackingProjection
from executions.adapters.tracking_stream import TrackingStream

_CONNECTIONS = 64
_FOLLOWING_CONNECTIONS = 2
"""For the one command that waits."""


@dataclass(frozen=True, slots=True)
class TaskTracking:
    """Stream, projection and archive; ``archive`` is None while it is switched off."""

    stream: TrackingStream
    projection: TrackingProjection
    ledger: ArchiveLedger
    archive: S3Archive | None

    async def close(self) -> None:
        if self.archive is not None:
            await self.archive.close()
        await self.stream.close()


def open_tracking(settings: Settings) -> TaskTracking:
    """Connects to nothing yet. Raises InvalidSettings."""
    redis, keys = _connected(settings), _keys(settings)
    return TaskTracking(
        stream=TrackingStream(redis, keys),
        projection=TrackingProjection(redis, keys),
        ledger=ArchiveLedger(redis, keys),
        archive=open_archive(settings) if settings.task_tracking_s3_archive_enabled else None,
    )


def open_tracking_log(settings: Settings) -> tuple[TrackingLog, TrackingProjection]:
    """Stream and projection for those who only read them. Connects to nothing yet; closing the log closes both."""
    redis, keys = _connected(settings), _keys(settings)
    log = TrackingLog(
        redis,
        _connected(settings, connections=_FOLLOWING_CONNECTIONS),
        keys,
        projector_group=settings.task_tracking_redis_projector_consumer_group,
        keep=settings.task_tracking_stream_keep,
    )
    return log, TrackingProjection(redis, keys)


def _connected(settings: Settings, *, connections: int = _CONNECTIONS) -> Redis:
    url, url_file = settings.task_tracking_redis_url, settings.task_tracking_redis_url_file
    return connect(url, url_file=url_file, connections=connections)


def _keys(settings: Settings) -> TrackingKeys:
    return TrackingKeys(settings.task_tracking_redis_stream_key, settings.task_tracking_redis_key_prefix)
