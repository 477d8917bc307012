"""A store in memory that behaves like Redis' one: same codec, same compare-and-store, time set by the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from executions.admission import Admission, Breaker, BreakerRule, Hindrance, Hold, Standing, hindrance
from executions.answer import Answer
from executions.errors import StoreUnavailable
from executions.feed import FeedEntry
from executions.index import Index, Place
from executions.ports import CommitResult, Committed, FollowUp, Operation, Snapshot, nothing_follows
from executions.record import Execution, RecordUnreadable, execution_from_stored
from executions.write import foreign_incarnation, forgotten_entry, record_digest, write_for


class MemoryStore:
    """``ports.Store`` for unit tests. ``unavailable`` makes every call fail; ``now`` is the clock in milliseconds."""

    def __init__(self, *, now_ms: int = 1_700_000_000_000, follow_up: FollowUp = nothing_follows) -> None:
        self._follow_up = follow_up
        self.now = now_ms
        self.unavailable = False
        self.records: dict[str, dict[str, bytes]] = {}
        self.states: dict[str, tuple[int, bytes, str]] = {}
        self.indexes: dict[Index, dict[str, int]] = {index: {} for index in Index}
        self.operations: dict[str, Answer] = {}
        self.feed: list[FeedEntry] = []
        self.places: dict[str, Place] = {}
        self.on_hold: Hold | None = None
        self.open_breakers: dict[tuple[str, str], Breaker] = {}
        self.launch_failures: dict[tuple[str, str, str], dict[str, int]] = {}

    async def read(self, task_id: str) -> Snapshot:
        self._check()
        fields = self.records.get(task_id, {})
        version, document, committed = self.states.get(task_id, (0, b"", ""))
        digest = record_digest(fields)
        execution = None
        if fields:
            execution = execution_from_stored(
                task_id,
                fields,
                document or None,
                is_ours=committed == digest,
                incarnation=foreign_incarnation(version, digest),
            )
        return Snapshot(task_id, execution, version, digest, self.now)

    async def read_many(self, task_ids: Sequence[str]) -> list[Snapshot]:
        found = []
        for task_id in task_ids:
            try:
                found.append(await self.read(task_id))
            except RecordUnreadable:
                continue
        return found

    async def commit(
        self,
        snapshot: Snapshot,
        execution: Execution | None,
        answer: Answer,
        *,
        operation: Operation | None = None,
        admission: Admission | None = None,
    ) -> CommitResult:
        self._check()
        if operation and operation.key in self.operations:
            return CommitResult(Committed.REPEATED, self.operations[operation.key])
        task_id = snapshot.task_id
        fields, following = self.records.get(task_id, {}), None
        if self.states.get(task_id, (0, b"", ""))[0] != snapshot.version or record_digest(fields) != snapshot.digest:
            return CommitResult(Committed.CONFLICT)
        if admission is not None:
            if (why := self._hindrance(task_id, admission)) is not None:
                return CommitResult(Committed.HINDERED, hindrance=why)
            key = (admission.launcher, self.places[task_id].task_type)
            if key in self.open_breakers:
                probe_at_ms = self.now + admission.breaker.pause_ms
                self.open_breakers[key] = replace(self.open_breakers[key], probe=task_id, probe_at_ms=probe_at_ms)
        if execution is not None:
            write = write_for(snapshot, self._follow_up(snapshot, execution))
            fields = {**fields, **write.attempts}
            self.records[task_id] = fields
            self.states[task_id] = (snapshot.version + 1, write.state, record_digest(fields))
            for index, score in write.scores.items():
                self.indexes[index].pop(task_id, None)
                if score is not None:
                    self.indexes[index][task_id] = score
            self.places[task_id] = write.place
            if write.entry:
                self.feed.append(write.entry)
            digest = record_digest(fields)
            following = Snapshot(task_id, write.execution, snapshot.version + 1, digest, self.now)
        elif operation is None:
            self.states[task_id] = (snapshot.version + 1, b"", "")
            for scores in self.indexes.values():
                scores.pop(task_id, None)
            self.places.pop(task_id, None)
            self.feed.append(forgotten_entry(snapshot))
        if operation:
            self.operations[operation.key] = answer
        return CommitResult(Committed.WRITTEN, following=following)

    async def remembered(self, operation: Operation) -> Answer | None:
        self._check()
        return self.operations.get(operation.key)

    async def forget_operation(self, key: str) -> None:
        self._check()
        self.operations.pop(key, None)

    async def members(self, index: Index, *, up_to_ms: int | None = None, limit: int = 1000) -> list[str]:
        self._check()
        scored = sorted((score, task_id) for task_id, score in self.indexes[index].items())
        return [task_id for score, task_id in scored if up_to_ms is None or score <= up_to_ms][:limit]

    async def count(self, index: Index) -> int:
        self._check()
        return len(self.indexes[index])

    async def standing(self, *, heads: int = 0) -> Standing:
        self._check()
        standing = {item.task_type for item in self.places.values() if (item.since_ms, item.live_ms) != (None, None)}
        lines = {name: self._line(name, self.now) for name in standing}
        return Standing(
            live={name: self._live().get(name, 0) for name in standing},
            waiting={name: len(line) for name, line in lines.items()},
            heads={name: line[:heads] for name, line in lines.items()} if heads else {},
        )

    async def hold(self, hold: Hold | None) -> None:
        self._check()
        self.on_hold = hold

    async def held(self) -> Hold | None:
        self._check()
        return self.on_hold

    async def count_launch_failure(
        self, launcher: str, task_type: str, code: str, *, key: str, rule: BreakerRule
    ) -> bool:
        self._check()
        at, name = self.now + rule.pause_ms, (launcher, task_type)
        failures = self.launch_failures.setdefault((*name, code), {})
        failures[key] = self.now
        recent = [item for item, when in failures.items() if when > self.now - rule.window_ms]
        if name in self.open_breakers:
            self.open_breakers[name] = replace(self.open_breakers[name], probe=None, probe_at_ms=at)
            return False
        if len(recent) < rule.failures:
            return False
        self.open_breakers[name] = Breaker(launcher, task_type, code, self.now, at)
        failures.clear()
        return True

    async def breakers(self) -> list[Breaker]:
        self._check()
        return list(self.open_breakers.values())

    async def close_breaker(self, launcher: str, task_type: str) -> None:
        self._check()
        self.open_breakers.pop((launcher, task_type), None)

    async def foreign_changes(self, *, batch: int = 200) -> AsyncIterator[str]:
        self._check()
        for task_id in [*self.records, *(item for item in self.states if item not in self.records)]:
            if record_digest(self.records.get(task_id, {})) != self.states.get(task_id, (0, b"", ""))[2]:
                yield task_id

    async def task_ids(self, *, batch: int = 500) -> AsyncIterator[str]:
        self._check()
        for task_id in list(self.records):
            yield task_id

    async def now_ms(self) -> int:
        self._check()
        return self.now

    async def secure(self) -> None:
        self._check()

    async def ping(self) -> None:
        self._check()

    async def close(self) -> None:
        self.unavailable = True

    def _hindrance(self, task_id: str, admission: Admission) -> Hindrance | None:
        own, slots = self.places[task_id], admission.slots
        barred = {
            name
            for (launcher, name), item in self.open_breakers.items()
            if launcher == admission.launcher and item.probe_at_ms > self.now
        }
        older = {
            name: sum(1 for since, other in self._line(name) if _before(since, other, own, task_id, name))
            for name in {item.task_type for item in self.places.values()}
        }
        return hindrance(
            own.task_type, slots=slots, is_held=self.on_hold is not None, live=self._live(), older=older, barred=barred
        )

    def _live(self) -> dict[str, int]:
        return dict(Counter(item.task_type for item in self.places.values() if item.live_ms is not None))

    def _line(self, task_type: str, up_to_ms: int | None = None) -> list[tuple[int, str]]:
        return sorted(
            (item.since_ms, task_id)
            for task_id, item in self.places.items()
            if item.task_type == task_type
            and item.since_ms is not None
            and (up_to_ms is None or item.since_ms <= up_to_ms)
        )

    def _check(self) -> None:
        if self.unavailable:
            raise StoreUnavailable("the store is away (test)")


def _before(since_ms: int, other: str, own: Place, task_id: str, task_type: str) -> bool:
    """Whether one that waits comes before us; among those of one type ids decide between equal times."""
    if own.since_ms is None:
        return False
    if task_type == own.task_type:
        return (since_ms, other) < (own.since_ms, task_id)
    return since_ms < own.since_ms
