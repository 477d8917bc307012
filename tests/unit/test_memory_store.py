"""The store in memory keeps the store's contract, so that unit tests may trust it."""

from __future__ import annotations

import pytest

from executions.feed import FeedEntry
from executions.ports import Store
from tests.support.memory_store import MemoryStore
from tests.support.store_contract import StoreContract


class MemoryWorld:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def write_by_hand(self, task_id: str, number: str, value: bytes) -> None:
        self._store.records[task_id] = {**self._store.records.get(task_id, {}), number: value}

    async def remove_by_hand(self, task_id: str) -> None:
        self._store.records.pop(task_id)

    async def record(self, task_id: str) -> dict[str, bytes]:
        return self._store.records.get(task_id, {})

    async def feed(self) -> list[FeedEntry]:
        return self._store.feed


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def world(self, store: MemoryStore) -> MemoryWorld:
        return MemoryWorld(store)

    async def let_pass(self, store: Store, milliseconds: int) -> None:
        assert isinstance(store, MemoryStore)
        store.now += milliseconds
