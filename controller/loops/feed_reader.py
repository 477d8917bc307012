"""Reads the change feed for the mirror, and trims it.

A claimed attempt is reconciled when its resource is seen on the watch, so that it can be stopped with kubectl before
its worker starts. While the API server is away there is no watch: then every entry wakes the reconciler directly. What
somebody asked of an execution (cancel, a further launch), and a failure that a retry may follow, always does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from executions.errors import StoreUnavailable
from executions.feed import Transition
from executions.ports import Feed

_ASKED = (Transition.UPDATED, Transition.PENDING, Transition.FAILED)
_FREEING = (
    *(Transition.SUCCEEDED, Transition.FAILED, Transition.CANCELLED),
    *(Transition.PENDING, Transition.FORGOTTEN),
)
_TRIM_EVERY = 100
_PAUSE_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class MirrorInput(Protocol):
    """The part of the mirror that the feed wakes."""

    @property
    def api_is_away(self) -> bool: ...

    def add(self, task_id: str) -> None: ...


class FeedReader:
    """``run`` hands each entry's task to the mirror; ``wake`` reconciles it."""

    def __init__(
        self,
        feed: Feed,
        mirror: MirrorInput,
        wake: Callable[[str], None],
        *,
        on_freed: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_freed`` is called when an attempt has ended or gave its worker up, so that another one may begin."""
        self._feed = feed
        self._on_freed = on_freed
        self._mirror = mirror
        self._wake = wake

    async def run(self) -> None:
        """Read for ever; an outage of the store is waited out."""
        turns = 0
        while True:
            try:
                await self.turn()
                turns += 1
                if turns % _TRIM_EVERY == 0:
                    await self._feed.trim()
            except StoreUnavailable as error:
                _log.warning("The change feed could not be read", reason=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)

    async def turn(self) -> None:
        for entry in await self._feed.read():
            self._mirror.add(entry.task_id)
            if entry.transition in _FREEING:
                self._on_freed()
            if self._mirror.api_is_away or entry.transition in _ASKED:
                self._wake(entry.task_id)
