"""``alakai explain``: where a task stands, why, and what happens next, from the records themselves."""

from __future__ import annotations

import asyncio

from cli.output import Output, show_document
from cli.resources import named
from cli.store import with_store
from executions.adapters.redis_store import RedisStore
from executions.adapters.settings import settings_from_environment
from executions.cluster import ClusterError
from executions.errors import AlakaiError
from executions.explanation import Surroundings, explain
from executions.names import checked_task_id, is_hashed_name
from executions.operations.surroundings import surroundings_of
from executions.record import Execution


class NotFound(AlakaiError):
    """There is no record of the task."""


def run(name: str, output: Output) -> None:
    """Print it. Raises InvalidTask, InvalidSettings, NotFound, StoreUnavailable, RecordUnreadable."""
    policy = settings_from_environment().policy

    async def look(store: RedisStore) -> tuple[Execution, Surroundings]:
        execution = await _found(store, name)
        return execution, await surroundings_of(store, execution)

    execution, around = asyncio.run(with_store(look))
    lines = list(explain(execution, policy, around))
    if output in (Output.JSON, Output.YAML):
        show_document([{"what": what.strip(), "text": text} for what, text in lines], output)
        return
    width = max(len(what) for what, _ in lines)
    for what, text in lines:
        print(f"{what:{width}}  {text}")


async def _found(store: RedisStore, name: str) -> Execution:
    """By the task's id, or by the name of its resource where that is another one."""
    execution = (await store.read(checked_task_id(name))).execution
    if execution is None and is_hashed_name(name):
        try:
            task_id = (await named(name))["spec"].get("taskId")
        except ClusterError:
            task_id = None
        execution = (await store.read(checked_task_id(task_id))).execution if task_id else None
    if execution is None:
        raise NotFound(f"no record of {name} under {store.keys.prefix}: check the id and REDIS_URL")
    return execution
