"""The state machine on the store in memory."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from hypothesis import HealthCheck, settings

from executions.feed import FeedEntry
from tests.property.store_machine import Bench, StoreMachine
from tests.support.memory_store import MemoryStore
from tests.unit.test_memory_store import MemoryWorld


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what never waits for anything, without an event loop: hundreds of times faster."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the store in memory must not wait")


class MemoryMachine(StoreMachine):
    def bench(self) -> Bench:
        store = MemoryStore()
        told = 0

        def new_entries() -> Sequence[FeedEntry]:
            nonlocal told
            before, told = told, len(store.feed)
            return store.feed[before:]

        return Bench(store, MemoryWorld(store), at_once, new_entries, lambda: None)


TestStoreMachine = MemoryMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
