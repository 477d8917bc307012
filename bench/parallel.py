"""Many things at once, a few at a time; the first failure ends all and is raised as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


async def in_parallel(items: Iterable[Item], one: Callable[[Item], Awaitable[None]], *, width: int) -> None:
    """Run `one(item)` for each item, `width` at a time, begun in their order."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await one(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
