"""``alakai explain``: where a task stands, why, and what happens next, from the records themselves."""

from __future__ import annotations

import asyncio

from cli.store import with_store
from executions.adapters.redis_store import RedisStore
from executions.adapters.settings import settings_from_environment
from executions.errors import AlakaiError
from executions.explanation import Surroundings, explain
from executions.names import checked_task_id
from executions.operations.surroundings import surroundings_of
from executions.record import Execution


class NotFound(AlakaiError):
    """There is no record of the task."""


def run(task_id: str) -> None:
    """Print it. Raises InvalidTask, InvalidSettings, NotFound, StoreUnavailable, RecordUnreadable."""
    checked_task_id(task_id)
    policy = settings_from_environment().policy

    async def look(store: RedisStore) -> tuple[Execution, Surroundings]:
        execution = (await store.read(task_id)).execution
        if execution is None:
            raise NotFound(f"no record of {task_id} under {store.keys.prefix}: check the id and REDIS_URL")
        return execution, await surroundings_of(store, execution)

    execution, around = asyncio.run(with_store(look))
    lines = list(explain(execution, policy, around))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:{width}}  {text}")
