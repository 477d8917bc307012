"""``alakai rebuild``: the dashboard's rows anew from the records, for when task tracking's Redis lost them.

The records themselves are rebuilt by the leader, which needs nobody's word for it (docs/disaster-recovery.md).
"""

from __future__ import annotations

import asyncio

from cli.output import progress
from executions.adapters.redis_store import open_store
from executions.adapters.settings import settings_from_environment
from executions.adapters.task_tracking import open_tracking
from executions.adapters.visibility_file import visibility_from
from executions.tracking import told_event

_BATCH = 500


def run() -> None:
    """Print how many there are. Raises InvalidSettings, StoreUnavailable."""
    print(f"{asyncio.run(_rebuilt())} rows are as their records say, or newer")


async def _rebuilt() -> int:
    settings = settings_from_environment()
    visibility = visibility_from(settings.task_visibility_file)
    store, tracking, count = open_store(settings), open_tracking(settings), 0
    try:
        await store.ping()
        task_ids = sorted({task_id async for task_id in store.task_ids()})
        with progress() as bar:
            task = bar.add_task("records", total=len(task_ids))
            for start in range(0, len(task_ids), _BATCH):
                batch = task_ids[start : start + _BATCH]
                executions = [item.execution for item in await store.read_many(batch)]
                events = [told_event(item, visibility) for item in executions if item is not None]
                known = [event for event in events if event is not None]
                await tracking.projection.apply(known)
                count += len(known)
                bar.advance(task, len(batch))
    finally:
        await tracking.close()
        await store.close()
    return count
