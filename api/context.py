"""Builds what the application is wired from out of the settings: the only module here that knows the adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.dependencies import Context
from api.limits import RateLimit
from api.live import Limits, Live
from api.task_list import VisibleTasks
from executions.adapters.callback_keys import open_callback_keys
from executions.adapters.google_identity import GoogleIdentity
from executions.adapters.health import Health
from executions.adapters.redis_epoch import create_epoch_if_untouched
from executions.adapters.redis_store import RedisStore, open_store
from executions.adapters.settings import Settings
from executions.adapters.sqs_queue import open_queue
from executions.adapters.store_probe import open_store_probe
from executions.adapters.task_tracking import open_tracking_log
from executions.adapters.visibility_file import visibility_from
from executions.errors import StoreUnavailable
from executions.operations.commands import Commands

_EPOCH_RETRY_SECONDS = 1.0


def open_context(settings: Settings) -> Context:
    """Wire the real adapters. Raises InvalidSettings.

    Opens no connection: start-up succeeds without Redis, SQS or Google.
    """
    store = open_store(settings)
    retries = open_queue(settings.implementation_sqs_queue_url, settings)
    outcomes = open_queue(settings.outcomes_queue_url, settings)
    probe = open_store_probe(settings)
    health = Health(probe.answers, is_trusted=probe.is_trusted)
    log, projection = open_tracking_log(settings)
    audiences = settings.google_client_ids

    @asynccontextmanager
    async def resources() -> AsyncIterator[None]:
        epoch = asyncio.create_task(_ensure_local_epoch(store)) if settings.is_local else None
        try:
            yield
        finally:
            if epoch is not None:
                epoch.cancel()
            health.is_closed = True
            for opened in (store, probe, retries, outcomes, log):
                await opened.close()

    return Context(
        settings=settings,
        commands=Commands(store, retries, settings.policy, settings.launcher_name),
        store=store,
        outcomes=outcomes,
        identity=GoogleIdentity(audiences) if audiences else None,
        health=health,
        tasks=VisibleTasks(projection, visibility_from(settings.task_visibility_file)),
        live=Live(log, Limits(streams=settings.streams_max, per_person=settings.person_streams_max)),
        callback_keys=open_callback_keys(settings),
        per_person=RateLimit(settings.person_requests_per_second, settings.person_requests_burst),
        per_task=RateLimit(settings.task_requests_per_second, settings.task_requests_burst),
        resources=resources,
    )


async def _ensure_local_epoch(store: RedisStore) -> None:
    """On a developer's machine the API also works on an untouched Redis without a controller.

    Only until Redis has answered once: an epoch that goes missing later means that data was lost.
    """
    while True:
        try:
            await create_epoch_if_untouched(store.redis, store.keys.prefix)
            return
        except StoreUnavailable:
            await asyncio.sleep(_EPOCH_RETRY_SECONDS)
