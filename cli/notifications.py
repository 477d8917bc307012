"""``alakai notifications``: what could not be told and why, and how it gets back into the outbox."""

from __future__ import annotations

import asyncio

from cli.output import Output, show_document, show_table
from cli.store import with_store
from executions.adapters.notification_outbox import Dead, NotificationOutbox
from executions.adapters.redis_store import RedisStore
from executions.moment import iso_from_ms


def show(channel: str | None, output: Output) -> None:
    """Print the dead ones. Raises InvalidSettings, StoreUnavailable."""

    async def act(store: RedisStore) -> list[Dead]:
        return await dead_of(_outbox(store), channel)

    found = asyncio.run(with_store(act))
    if output in (Output.JSON, Output.YAML):
        show_document([_said(item) for item in found], output)
    elif found:
        rows = [(iso_from_ms(item.at_ms), item.channel, item.task_id, str(item.tries), item.reason) for item in found]
        show_table(("given up", "channel", "task", "tries", "reason"), rows)
    else:
        print("no notification was given up")


def redrive(channel: str | None) -> None:
    """Put them into the outbox again; the leader tells them. Raises InvalidSettings, StoreUnavailable."""

    async def act(store: RedisStore) -> int:
        outbox = _outbox(store)
        done = [await outbox.redrive(item) for item in await dead_of(outbox, channel)]
        return sum(done)

    print(f"{asyncio.run(with_store(act))} put into the outbox again")


async def dead_of(outbox: NotificationOutbox, channel: str | None) -> list[Dead]:
    """Of a channel, by its name or by what stands before the colon, or of all."""
    names = [name for name in await outbox.channels() if channel in (None, name, name.partition(":")[0])]
    return [item for name in names for item in await outbox.dead(name)]


def _said(dead: Dead) -> dict[str, object]:
    return {
        "givenUpAt": iso_from_ms(dead.at_ms),
        "channel": dead.channel,
        "taskId": dead.task_id,
        "eventId": dead.event_id,
        "tries": dead.tries,
        "reason": dead.reason,
    }


def _outbox(store: RedisStore) -> NotificationOutbox:
    return NotificationOutbox(store.redis, store.keys.prefix)
