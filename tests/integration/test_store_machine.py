"""The state machine of ``tests/property`` on the real Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from devstack.redis import RedisServer
from executions.adapters.redis_connection import connect
from executions.adapters.redis_epoch import create_epoch
from executions.adapters.redis_store import RedisStore
from executions.feed import FeedEntry, entry_from_document
from tests.integration.test_redis_store import RedisWorld
from tests.property.store_machine import Bench, StoreMachine


def redis_machine(url: str) -> type[StoreMachine]:
    class RedisMachine(StoreMachine):
        def bench(self) -> Bench:
            runner, prefix = asyncio.Runner(), f"machine-{secrets.token_hex(6)}"
            store = RedisStore(connect(url), prefix)
            runner.run(create_epoch(store.redis, prefix))
            told = 0

            async def feed() -> list[FeedEntry]:
                # Not by a group: its blocking read would wait for a tenth of a second after every step.
                found: Any = await store.redis.xrange(store.keys.feed)
                return [entry_from_document(orjson.loads(fields[b"change"])) for _, fields in found]

            def new_entries() -> Sequence[FeedEntry]:
                nonlocal told
                entries = runner.run(feed())
                before, told = told, len(entries)
                return entries[before:]

            def close() -> None:
                runner.run(store.close())
                runner.close()

            return Bench(store, RedisWorld(store), runner.run, new_entries, close)

    return RedisMachine


@pytest.mark.timeout(120)
def test_the_store_keeps_its_promises_whatever_is_done_to_it(redis_server: RedisServer) -> None:
    run_state_machine_as_test(
        redis_machine(redis_server.url),
        settings=settings(
            max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
