"""A store and a queue between the machine and the real ones, which lose what they are told to lose."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from executions.admission import Admission, Breaker, BreakerRule, Hold, Standing
from executions.answer import Answer
from executions.errors import QueueUnavailable, QueueUnclear, StoreUnavailable
from executions.index import Index
from executions.ports import CommitResult, Message, Operation, Snapshot, Store
from executions.record import Execution
from tests.support.builders import NOW_MS

Fault = Literal["request lost", "reply lost", "edited meanwhile"] | None
QueueMode = Literal["up", "away", "unclear"]


class UnreliableStore:
    """A store with a clock of its own, whose next commit may lose its request or its reply, or come too late."""

    def __init__(self, store: Store, edit: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self._store = store
        self._edit = edit
        self.now = NOW_MS
        self.fault: Fault = None

    async def read(self, task_id: str) -> Snapshot:
        return dataclasses.replace(await self._store.read(task_id), now_ms=self.now)

    async def read_many(self, task_ids: Sequence[str]) -> list[Snapshot]:
        return [dataclasses.replace(item, now_ms=self.now) for item in await self._store.read_many(task_ids)]

    async def commit(
        self,
        snapshot: Snapshot,
        execution: Execution | None,
        answer: Answer,
        *,
        operation: Operation | None = None,
        admission: Admission | None = None,
    ) -> CommitResult:
        fault, self.fault = self.fault, None
        if fault == "request lost":
            raise StoreUnavailable(fault)
        if fault == "edited meanwhile":
            await self._edit(snapshot.task_id)
        result = await self._store.commit(snapshot, execution, answer, operation=operation, admission=admission)
        if fault == "reply lost":
            raise StoreUnavailable(fault)
        return result

    async def remembered(self, operation: Operation) -> Answer | None:
        return await self._store.remembered(operation)

    async def forget_operation(self, key: str) -> None:
        await self._store.forget_operation(key)

    async def members(self, index: Index, *, up_to_ms: int | None = None, limit: int = 1000) -> list[str]:
        return await self._store.members(index, up_to_ms=up_to_ms, limit=limit)

    async def count(self, index: Index) -> int:
        return await self._store.count(index)

    async def standing(self, *, heads: int = 0) -> Standing:
        return await self._store.standing(heads=heads)

    async def hold(self, hold: Hold | None) -> None:
        await self._store.hold(hold)

    async def count_launch_failure(
        self, launcher: str, task_type: str, code: str, *, key: str, rule: BreakerRule
    ) -> bool:
        return await self._store.count_launch_failure(launcher, task_type, code, key=key, rule=rule)

    async def breakers(self) -> list[Breaker]:
        return await self._store.breakers()

    async def close_breaker(self, launcher: str, task_type: str) -> None:
        await self._store.close_breaker(launcher, task_type)

    async def held(self) -> Hold | None:
        return await self._store.held()

    def foreign_changes(self, *, batch: int = 200) -> AsyncIterator[str]:
        return self._store.foreign_changes(batch=batch)

    def task_ids(self, *, batch: int = 500) -> AsyncIterator[str]:
        return self._store.task_ids(batch=batch)

    async def now_ms(self) -> int:
        return self.now

    async def secure(self) -> None:
        await self._store.secure()

    async def ping(self) -> None:
        await self._store.ping()


@dataclass
class Outbox:
    """``ports.Queue`` as far as the commands need it; what was sent is delivered by the machine."""

    mode: QueueMode = "up"
    sent: list[dict[str, Any]] = field(default_factory=list)

    async def send(self, document: Mapping[str, Any]) -> str:
        if self.mode == "away":
            raise QueueUnavailable("away (test)")
        self.sent.append(dict(document))
        if self.mode == "unclear":
            raise QueueUnclear("the answer was lost (test)")
        return "message"

    async def receive(self, *, maximum: int = 10, wait_seconds: float = 20) -> list[Message]:
        raise NotImplementedError

    async def delete(self, messages: Sequence[Message]) -> list[Message]:
        raise NotImplementedError

    async def release(self, messages: Sequence[Message]) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
