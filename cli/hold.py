"""``alakai hold`` and ``alakai resume``: one switch for the whole installation."""

from __future__ import annotations

import asyncio
import getpass

from cli.store import with_store
from executions.adapters.redis_store import RedisStore
from executions.admission import Hold


def hold(reason: str, by: str | None) -> None:
    """Stop intake and launches. Callbacks, sweeps and cancels go on. Raises InvalidSettings, StoreUnavailable."""

    async def act(store: RedisStore) -> Hold:
        held = Hold(by or getpass.getuser(), reason, await store.now_ms())
        await store.hold(held)
        return held

    held = asyncio.run(with_store(act))
    print(f"on hold by {held.by}: {held.reason}")
    print("nothing is taken in and nothing is launched until: alakai resume")


def resume() -> None:
    """End the hold; what waited begins within a second. Raises InvalidSettings, StoreUnavailable."""

    async def act(store: RedisStore) -> Hold | None:
        held = await store.held()
        await store.hold(None)
        return held

    held = asyncio.run(with_store(act))
    print("resumed" if held else "nothing to do: it was not on hold")
