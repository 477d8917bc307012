"""``alakai prune``: removes records whose whole history is in the archive. Records stay for ever otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cli.output import progress
from executions.adapters.redis_store import RedisStore, open_store
from executions.adapters.settings import settings_from_environment
from executions.adapters.task_tracking import TaskTracking, open_tracking
from executions.conditions import phase
from executions.errors import AlakaiError, InvalidSettings
from executions.index import Index
from executions.ports import Snapshot
from executions.record import Execution
from executions.tracking import execution_id_of

_BATCH = 200


class InvalidDay(AlakaiError):
    """What was given is no day."""


@dataclass(slots=True)
class Pruned:
    """How many records went, and how many of those that are old enough stay because the archive lacks something."""

    removed: int = 0
    kept: int = 0


def run(before: str, *, dry_run: bool) -> None:
    """Remove what was finished before that day (UTC) and is archived. Raises InvalidDay, InvalidSettings, …"""
    try:
        day = datetime.fromisoformat(before)
    except ValueError:
        raise InvalidDay(f"{before!r} is no day; write it as 2026-03-15") from None
    before_ms = round((day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp() * 1000)
    found = asyncio.run(_pruned(before_ms, dry_run=dry_run))
    what = "would be removed" if dry_run else "removed"
    print(f"{found.removed} records {what}, {found.kept} kept: not all of their events are in the archive")


async def _pruned(before_ms: int, *, dry_run: bool) -> Pruned:
    settings = settings_from_environment()
    if not settings.task_tracking_s3_archive_enabled:
        raise InvalidSettings("nothing is archived, so nothing can go; set TASK_TRACKING_S3_ARCHIVE_ENABLED first")
    store, tracking, counted = open_store(settings), open_tracking(settings), Pruned()
    try:
        await store.ping()
        with progress() as bar:
            task = bar.add_task("finished records", total=await store.count(Index.FINISHED))
            async for snapshot in _finished(store, before_ms):
                bar.advance(task)
                execution = snapshot.execution
                if execution is None or not _is_over(execution, before_ms):
                    continue
                if not await _is_archived(tracking, execution):
                    counted.kept += 1
                elif dry_run or await _removed(store, tracking, snapshot, execution):
                    counted.removed += 1
    finally:
        await tracking.close()
        await store.close()
    return counted


async def _finished(store: RedisStore, before_ms: int) -> AsyncIterator[Snapshot]:
    task_ids = await store.members(Index.FINISHED, up_to_ms=before_ms, limit=-1)
    for start in range(0, len(task_ids), _BATCH):
        for snapshot in await store.read_many(task_ids[start : start + _BATCH]):
            yield snapshot


def _is_over(execution: Execution, before_ms: int) -> bool:
    finished_ms = execution.latest.finished_at
    return phase(execution).is_finished and finished_ms is not None and finished_ms < before_ms


async def _is_archived(tracking: TaskTracking, execution: Execution) -> bool:
    """Its latest event, and every other one that a batch was made of. One that nothing tells of has no receipt."""
    told, execution_id = execution.state.told_event, execution_id_of(execution)
    events = await tracking.ledger.objects_of(execution_id)
    if told is None or told not in events:
        return False
    return all(await tracking.ledger.archived([(execution_id, event_id) for event_id in events]))


async def _removed(store: RedisStore, tracking: TaskTracking, snapshot: Snapshot, execution: Execution) -> bool:
    """The record first: what is left of the rest after a crash belongs to nothing and harms nobody."""
    if not await store.prune(snapshot):
        return False
    execution_id = execution_id_of(execution)
    await tracking.projection.remove(execution_id)
    await tracking.ledger.forget(execution_id)
    return True
