"""The log of events in memory keeps the log's contract, so that unit tests may trust it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.event_log_contract import EventLogContract
from tests.support.memory_tracking import MemoryLog


class MemoryWorld:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def add(self, document: dict[str, Any]) -> str:
        return self._log.add(document)

    async def trim(self, keep: int) -> None:
        self._log.trim(keep)

    async def lose_everything(self) -> None:
        self._log.lose_everything()


class TestMemoryLog(EventLogContract):
    @pytest.fixture
    def log(self) -> MemoryLog:
        return MemoryLog()

    @pytest.fixture
    def world(self, log: MemoryLog) -> MemoryWorld:
        return MemoryWorld(log)
