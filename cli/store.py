"""The store of the environment, for commands that act on records themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from executions.adapters.redis_store import RedisStore, open_store
from executions.adapters.settings import settings_from_environment

T = TypeVar("T")


async def with_store(act: Callable[[RedisStore], Awaitable[T]]) -> T:
    """What ``act`` gives. Raises InvalidSettings, StoreUnavailable."""
    store = open_store(settings_from_environment())
    try:
        await store.ping()
        return await act(store)
    finally:
        await store.close()
