"""Keeps the loops of a process going."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger(__name__)


async def restarted(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run a task for ever: its end, however it came, is logged and followed by another start after a second."""
    while True:
        try:
            await work()
            _log.warning("A task ended; it is started again", task=name)
        except Exception:
            _log.exception("A task failed; it is started again", task=name)
        await asyncio.sleep(1)
