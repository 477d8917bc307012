"""Kopf inside our event loop, supervised: it watches the custom resources, and its end ends nothing else.

Kopf writes nothing to the objects: no annotations, no finalizer of its own, no Events; what it sees goes to
``handlers``. It is started once the API server serves our resource, and again whenever it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from typing import Any

import aiohttp
import kopf
import structlog

from controller.api_health import ApiHealth
from controller.handlers.workerexecutions import register
from controller.resource_events import WorkerExecutionEvents
from executions.adapters.kube_connection import KubeConnection

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_STABLE_SECONDS = 60.0
_CONNECTIONS = 4
"""One watch, and the lists that begin it."""
_log = structlog.get_logger(__name__)


class KopfOperator:
    """``run`` watches for ever. ``is_watching`` tells whether Kopf runs at present."""

    def __init__(
        self,
        connection: KubeConnection,
        namespace: str,
        events: WorkerExecutionEvents,
        health: ApiHealth,
        *,
        restore_signals: Callable[[], None],
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        """``restore_signals`` sets the process's own signal handlers again: Kopf puts its own in their place."""
        self._connection = connection
        self._namespace = namespace
        self._events = events
        self._health = health
        self._restore_signals = restore_signals
        self._first_pause_seconds = first_pause_seconds
        self.is_watching = False

    async def run(self) -> None:
        pause = self._first_pause_seconds
        loop = asyncio.get_running_loop()
        while True:
            if self._health.is_away:
                await self._health.ready()
                pause = self._first_pause_seconds
            began = loop.time()
            try:
                await self._health.check()
                await self._watch()
                _log.warning("Kopf ended; it is started again")
            except Exception as error:
                _log.warning("Kopf is started again", reason=f"{type(error).__name__}: {error}", pause_seconds=pause)
            if loop.time() - began >= _STABLE_SECONDS:
                pause = self._first_pause_seconds
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _watch(self) -> None:
        sessions: list[aiohttp.ClientSession] = []
        try:
            tasks = await kopf.spawn_tasks(
                registry=self._registry(sessions),
                settings=_settings(),
                namespaces=[self._namespace],
                standalone=True,
            )
            self._restore_signals()
            self.is_watching = True
            await kopf.run_tasks(tasks, ignored=_EverybodyElse())
        finally:
            self.is_watching = False
            # Kopf closes sessions only when it ends on its own.
            for session in sessions:
                await session.close()

    def _registry(self, sessions: list[aiohttp.ClientSession]) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        register(registry, self._events)

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            session = self._connection.session(connections=_CONNECTIONS)
            sessions.append(session)
            return kopf.AiohttpSession(server=self._connection.server, aiohttp_session=session)

        return registry


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # Kopf would kill the whole process so long after it ended by itself.
    settings.process.ultimate_exiting_timeout = None
    # A worker of Kopf's lives this long after its object's last event; the default of 5 s costs 13 kB for each.
    settings.queueing.idle_timeout = 0.5
    settings.watching.chunk_size = 500
    settings.watching.reconnect_backoff = 1.0
    settings.networking.error_backoffs = [0.2, 0.5, 1, 2]
    settings.networking.request_timeout = 30
    settings.persistence.finalizer = "kopf.dev/unused"
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    return settings


class _NoDiffBase(kopf.DiffBaseStorage):
    """Kopf compares nothing and remembers nothing: our handlers look at the object as it is."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return {}

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Kopf has no progress to remember: our handlers never fail and are never tried again by it."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class _EverybodyElse(Collection[asyncio.Task[Any]]):
    """Contains every task there is.

    At its end Kopf cancels all tasks of the loop that it does not find here, taking them for its own: without this
    the controller would go with it. Kopf's own tasks are ended by those that made them.
    """

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(())

    def __len__(self) -> int:
        return 0
