"""The durable truth in Redis: reads, and the one commit (``commit.lua``).

Decides nothing about executions. Refuses to serve a Redis that lost its data: every read and every commit checks the
epoch key (see ``redis_epoch.py``).
"""

from __future__ import annotations

import copy
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from executions.adapters.metrics import count_commit
from executions.adapters.redis_connection import connect, redis_errors, script_text
from executions.adapters.redis_keys import Keys
from executions.adapters.settings import Settings
from executions.admission import Admission, Breaker, BreakerRule, Hindrance, Hold, Standing
from executions.answer import Answer, Reply
from executions.automatic_retry import retry_scheduling
from executions.errors import StoreUnavailable
from executions.feed import FeedEntry, Transition
from executions.index import Index, Place
from executions.names import TASK_ID
from executions.ports import CommitResult, Committed, FollowUp, Operation, Snapshot, nothing_follows
from executions.record import Execution, RecordUnreadable, execution_from_stored
from executions.write import Write, foreign_incarnation, forgotten_entry, record_digest, write_for

ANY_EPOCH = "*"
NO_EPOCH = ""
"""For the rebuild of a Redis that lost its data: there must be no epoch, so that nobody else is served meanwhile."""
_INDEXES = tuple(Index)
_REPLIES = frozenset(Reply)
_log = structlog.get_logger(__name__)

_WAITED_MS = 60_000


@dataclass(slots=True)
class _KnownEpoch:
    """Shared by a store and those that are made of it."""

    epoch: str


@dataclass(frozen=True, slots=True)
class Wait:
    """How many replicas must have a commit before it counts, and for how long to wait for them. 0: none."""

    replicas: int = 0
    milliseconds: int = 1000


class RedisStore:
    """``ports.Store`` on Redis >= 6.2. ``epoch`` is the one it must find; ANY_EPOCH only looks that there is one.

    ``fence`` is a leader's number: its commits are refused once a later leader has begun. ``follow_up`` makes of what
    was read and what is to be written what is written: whatever follows from a change by itself, whoever commits it.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        *,
        epoch: str = ANY_EPOCH,
        fence: int | None = None,
        follow_up: FollowUp = nothing_follows,
        wait: Wait | None = None,
    ) -> None:
        self.redis = redis
        self._wait = wait or Wait()
        self._follow_up = follow_up
        self.keys = Keys(prefix)
        self._known = _KnownEpoch(epoch)
        self._fence = fence
        digest = script_text("digest.lua")
        self._commit = redis.register_script(digest + script_text("commit.lua"))
        self._breaker = redis.register_script(script_text("breaker.lua"))
        self._read = redis.register_script(script_text("read.lua"))
        self._foreign = redis.register_script(digest + script_text("foreign.lua"))

    @property
    def epoch(self) -> str:
        """What the epoch must be; set, it counts for every store that was made of this one by ``fenced`` too."""
        return self._known.epoch

    @epoch.setter
    def epoch(self, epoch: str) -> None:
        self._known.epoch = epoch

    def fenced(self, fence: int) -> RedisStore:
        """The same store for the leader with that number."""
        store = copy.copy(self)
        store._fence = fence
        return store

    def with_epoch(self, epoch: str) -> RedisStore:
        """The same store with another expectation, which nobody shares."""
        store = copy.copy(self)
        store._known = _KnownEpoch(epoch)
        return store

    async def read(self, task_id: str) -> Snapshot:
        now_ms, (found,) = await self._look([task_id])
        return self._snapshot(task_id, found, now_ms)

    async def read_many(self, task_ids: Sequence[str]) -> list[Snapshot]:
        if not task_ids:
            return []
        now_ms, found = await self._look(task_ids)
        snapshots = []
        for task_id, item in zip(task_ids, found, strict=True):
            try:
                snapshots.append(self._snapshot(task_id, item, now_ms))
            except RecordUnreadable as error:
                _log.warning("Record left out", task_id=task_id, reason=str(error))
        return snapshots

    async def commit(
        self,
        snapshot: Snapshot,
        execution: Execution | None,
        answer: Answer,
        *,
        operation: Operation | None = None,
        admission: Admission | None = None,
    ) -> CommitResult:
        execution = self._follow_up(snapshot, execution) if execution is not None else None
        write = write_for(snapshot, execution) if execution is not None else None
        mode = "write" if write else "remember" if operation else "forget"
        entry = write.entry if write else forgotten_entry(snapshot) if mode == "forget" else None
        outcome, remembered, *written = await self._sent(
            mode, snapshot, entry, write=write, answer=answer, operation=operation, admission=admission
        )
        match outcome:
            case b"WRITTEN":
                if execution is not None:
                    count_commit(snapshot.execution, execution)
                return CommitResult(Committed.WRITTEN, following=_following(snapshot, write, *written))
            case b"REPEATED":
                return CommitResult(Committed.REPEATED, _decoded_answer(remembered))
            case b"CONFLICT":
                return CommitResult(Committed.CONFLICT)
            case b"HINDERED":
                return CommitResult(Committed.HINDERED, hindrance=Hindrance(remembered.decode()))
            case b"FENCED":
                raise StoreUnavailable("a later leader has begun; this one has no say any more")
        raise StoreUnavailable("this Redis has lost its data or is another one (its epoch differs); it is not served")

    async def wake(self, task_id: str) -> None:
        """Have the leader look at a task, its record and its resource, as after a change that nobody heard of."""
        entry = FeedEntry(task_id, "", 0, 0, Transition.UPDATED, await self.now_ms())
        with redis_errors():
            await self.redis.xadd(self.keys.feed, {"change": encoded_entry(entry)})

    async def prune(self, snapshot: Snapshot) -> bool:
        """Remove a record that is just as it was read. False when it is not; nothing was removed then."""
        outcome, *_ = await self._sent("prune", snapshot, forgotten_entry(snapshot))
        if outcome in (b"WRITTEN", b"CONFLICT"):
            return bool(outcome == b"WRITTEN")
        raise StoreUnavailable("this Redis has lost its data or is another one; nothing was removed")

    async def _sent(
        self,
        mode: str,
        snapshot: Snapshot,
        entry: FeedEntry | None,
        *,
        write: Write | None = None,
        answer: Answer | None = None,
        operation: Operation | None = None,
        admission: Admission | None = None,
    ) -> Any:
        """The answer of ``commit.lua``."""
        keys = self.keys
        with redis_errors():
            return await self._written(
                keys=[
                    keys.record(snapshot.task_id),
                    keys.state(snapshot.task_id),
                    keys.feed,
                    keys.epoch,
                    keys.fence,
                    keys.operation(operation.key if operation else ""),
                    *(keys.index(index) for index in _INDEXES),
                ],
                args=[
                    snapshot.task_id,
                    snapshot.version,
                    snapshot.digest,
                    self.epoch,
                    "" if self._fence is None else self._fence,
                    mode,
                    write.state if write else b"",
                    encoded_entry(entry) if entry else b"",
                    _encoded_answer(answer) if operation and answer else b"",
                    (operation.ttl_seconds if operation else None) or 0,
                    keys.prefix,
                    *_place(write),
                    *_guard(admission),
                    *_fields_and_scores(write),
                ],
            )

    async def _written(self, keys: list[str], args: list[Any]) -> Any:
        """The script's answer, once as many replicas have what it wrote as are asked for.

        Without enough of them the commit counts as unclear, although it may have been made: whoever asked does it once
        more, and gets the first answer then. So a failover loses nothing that somebody was told.
        """
        if not self._wait.replicas:
            return await self._commit(keys=keys, args=args)
        pipeline = self.redis.pipeline(transaction=False)
        await self._commit(keys=keys, args=args, client=pipeline)
        answer, *_ = await self._replicated(pipeline)
        return answer

    async def _replicated(self, pipeline: Pipeline) -> list[Any]:
        """The answers to what is in the pipeline, once the replicas have all that was written by then."""
        # WAIT is about the last write of its own connection, and a repeated commit, or a read, writes nothing.
        pipeline.set(self.keys.waited, 1, px=_WAITED_MS)
        pipeline.execute_command("WAIT", self._wait.replicas, self._wait.milliseconds)
        *answers, reached = await pipeline.execute()
        if reached < self._wait.replicas:
            raise StoreUnavailable(f"only {reached} of {self._wait.replicas} replicas have it (REDIS_WAIT_REPLICAS)")
        return answers

    async def remembered(self, operation: Operation) -> Answer | None:
        with redis_errors():
            found = await self.redis.get(self.keys.operation(operation.key))
        return _decoded_answer(found) if isinstance(found, bytes) else None

    async def forget_operation(self, key: str) -> None:
        with redis_errors():
            await self.redis.delete(self.keys.operation(key))

    async def members(self, index: Index, *, up_to_ms: int | None = None, limit: int = 1000) -> list[str]:
        with redis_errors():
            found = await self.redis.zrangebyscore(
                self.keys.index(index), "-inf", "+inf" if up_to_ms is None else up_to_ms, start=0, num=limit
            )
        return [item.decode() for item in found if isinstance(item, bytes)]

    async def oldest(self, index: Index) -> int | None:
        """The lowest score of an index (ms)."""
        with redis_errors():
            found: Any = await self.redis.zrange(self.keys.index(index), 0, 0, withscores=True)
        return int(found[0][1]) if found else None

    async def used_bytes(self) -> int:
        with redis_errors():
            found = await self.redis.info("memory")
        return int(found.get("used_memory", 0))

    async def count(self, index: Index) -> int:
        with redis_errors():
            return int(await self.redis.zcard(self.keys.index(index)))

    async def standing(self, *, heads: int = 0) -> Standing:
        with redis_errors():
            now_ms = await self.now_ms()
            found_names = await self.redis.smembers(self.keys.types)
            names = sorted(name.decode() for name in found_names if isinstance(name, bytes))
            pipeline = self.redis.pipeline(transaction=False)
            for name in names:
                pipeline.zcard(self.keys.slots(name))
                pipeline.zcount(self.keys.line(name), "-inf", now_ms)
                if heads:
                    pipeline.zrangebyscore(self.keys.line(name), "-inf", now_ms, start=0, num=heads, withscores=True)
            found = await pipeline.execute() if names else []
        width = 3 if heads else 2
        return Standing(
            live=dict(zip(names, found[::width], strict=True)),
            waiting=dict(zip(names, found[1::width], strict=True)),
            heads={
                name: [(int(since), task_id.decode()) for task_id, since in first]
                for name, first in zip(names, found[2::width], strict=True)
            }
            if heads
            else {},
        )

    async def hold(self, hold: Hold | None) -> None:
        with redis_errors():
            if hold is None:
                await self.redis.delete(self.keys.hold)
            else:
                await self.redis.set(self.keys.hold, orjson.dumps(hold))

    async def held(self) -> Hold | None:
        with redis_errors():
            found = await self.redis.get(self.keys.hold)
        return _hold_from(found) if isinstance(found, bytes) else None

    async def count_launch_failure(
        self, launcher: str, task_type: str, code: str, *, key: str, rule: BreakerRule
    ) -> bool:
        keys = self.keys
        with redis_errors():
            opened = await self._breaker(
                keys=[
                    keys.launch_failures(launcher, task_type, code),
                    keys.breaker(launcher, task_type),
                    keys.breakers,
                ],
                args=[code, key, rule.window_ms, rule.failures, rule.pause_ms, orjson.dumps([launcher, task_type])],
            )
        return bool(opened)

    async def breakers(self) -> list[Breaker]:
        with redis_errors():
            members = await self.redis.smembers(self.keys.breakers)
            found = []
            for member in members:
                if isinstance(member, bytes):
                    launcher, task_type = orjson.loads(member)
                    stored: Any = await self.redis.hgetall(self.keys.breaker(launcher, task_type))
                    found.append(_breaker_from(member, stored))
        return found

    async def close_breaker(self, launcher: str, task_type: str) -> None:
        with redis_errors():
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.delete(self.keys.breaker(launcher, task_type))
            pipeline.srem(self.keys.breakers, orjson.dumps([launcher, task_type]))
            await pipeline.execute()

    async def foreign_changes(self, *, batch: int = 200) -> AsyncIterator[str]:
        async for ids in self._scan(self.keys.record(""), batch):
            for task_id in await self._differing(ids):
                yield task_id
        async for ids in self._scan(self.keys.state(""), batch):
            for task_id in await self._differing(ids):
                yield task_id

    async def task_ids(self, *, batch: int = 500) -> AsyncIterator[str]:
        async for ids in self._scan(self.keys.record(""), batch):
            for task_id in ids:
                yield task_id

    async def now_ms(self) -> int:
        """The one clock for deadlines."""
        with redis_errors():
            seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def secure(self) -> None:
        if self._wait.replicas:
            with redis_errors():
                await self._replicated(self.redis.pipeline(transaction=False))

    async def ping(self) -> None:
        """Raises StoreUnavailable when Redis does not answer or is not the one we know."""
        with redis_errors():
            found = await self.redis.get(self.keys.epoch)
        self._check_epoch(found if isinstance(found, bytes) else b"")

    async def close(self) -> None:
        await self.redis.aclose()

    async def _look(self, task_ids: Sequence[str]) -> tuple[int, list[Any]]:
        keys = [self.keys.epoch]
        for task_id in task_ids:
            keys += [self.keys.record(task_id), self.keys.state(task_id)]
        with redis_errors():
            epoch, now_ms, *found = await self._read(keys=keys)
        self._check_epoch(epoch)
        return int(now_ms), found

    def _check_epoch(self, found: bytes) -> None:
        is_right = bool(found) if self.epoch == ANY_EPOCH else found.decode() == self.epoch
        if not is_right:
            raise StoreUnavailable("this Redis has no epoch, or not ours: it is new, was emptied or is another one")

    def _snapshot(self, task_id: str, found: list[Any], now_ms: int) -> Snapshot:
        version, document, committed, flat = found
        if flat is None:
            raise RecordUnreadable(f"the key of task {task_id} is not a hash; remove or repair it with redis-cli")
        pairs = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
        fields = {name.decode("utf-8", "replace"): value for name, value in pairs.items()}
        digest = record_digest(fields)
        execution = None
        if fields:
            execution = execution_from_stored(
                task_id,
                fields,
                document or None,
                is_ours=committed.decode() == digest,
                incarnation=foreign_incarnation(int(version), digest),
            )
        return Snapshot(task_id, execution, int(version), digest, now_ms)

    async def _scan(self, start: str, batch: int) -> AsyncIterator[list[str]]:
        """Ids of the keys that begin with ``start``, in batches; keys that hold no task id are passed over."""
        pattern = "".join(f"\\{char}" if char in "*?[]\\^" else char for char in start) + "*"
        cursor = 0
        while True:
            with redis_errors():
                cursor, keys = await self.redis.scan(cursor, match=pattern, count=batch)
            tails = [key[len(start.encode()) :].decode("utf-8", "replace") for key in keys if isinstance(key, bytes)]
            if ids := [tail for tail in tails if TASK_ID.fullmatch(tail)]:
                yield ids
            if cursor == 0:
                return

    async def _differing(self, task_ids: list[str]) -> list[str]:
        keys = [key for task_id in task_ids for key in (self.keys.record(task_id), self.keys.state(task_id))]
        with redis_errors():
            return [task_ids[position - 1] for position in await self._foreign(keys=keys)]


def open_store(settings: Settings, *, epoch: str = ANY_EPOCH) -> RedisStore:
    """The store of these settings; connects on first use."""

    return RedisStore(
        connect(settings.redis_url, url_file=settings.redis_url_file),
        settings.executions_redis_key_prefix,
        epoch=epoch,
        follow_up=retry_scheduling(settings.policy, random.random),
        wait=Wait(settings.redis_wait_replicas, round(settings.redis_wait_seconds * 1000)),
    )


def encoded_entry(entry: FeedEntry) -> bytes:
    return orjson.dumps(entry)


def _following(snapshot: Snapshot, write: Write | None, digest: bytes, now_ms: int) -> Snapshot | None:
    if write is None:
        return None
    return Snapshot(snapshot.task_id, write.execution, snapshot.version + 1, digest.decode(), now_ms)


def _fields_and_scores(write: Write | None) -> list[Any]:
    attempts = write.attempts if write else {}
    scores = write.scores if write else {}
    flat: list[Any] = [len(attempts)]
    for name, value in attempts.items():
        flat += [name, value]
    return [*flat, *("" if scores.get(index) is None else scores[index] for index in _INDEXES)]


def _place(write: Write | None) -> list[Any]:
    place = write.place if write else Place("", None, None)
    return [place.task_type, *("" if score is None else score for score in (place.since_ms, place.live_ms))]


def _guard(admission: Admission | None) -> list[Any]:
    if admission is None:
        return ["", "", "", 0]
    slots = admission.slots
    per_type = ",".join(f"{name}={limit}" for name, limit in slots.per_type.items())
    return [admission.launcher, "" if slots.total is None else slots.total, per_type, admission.breaker.pause_ms]


def _breaker_from(member: bytes, found: dict[bytes, bytes]) -> Breaker:
    launcher, task_type = orjson.loads(member)
    return Breaker(
        launcher,
        task_type,
        code=found.get(b"code", b"").decode(),
        opened_ms=int(found.get(b"opened_at", 0)),
        probe_at_ms=int(found.get(b"probe_at", 0)),
        probe=found[b"probe"].decode() if b"probe" in found else None,
    )


def _hold_from(text: bytes) -> Hold:
    """Somebody may have set the key by hand: whatever it says, it holds."""
    try:
        document = orjson.loads(text)
        return Hold(str(document["by"]), str(document["reason"]), int(document["since_ms"]))
    except (ValueError, TypeError, KeyError):
        return Hold("unknown", "the key was set by hand", 0)


def _encoded_answer(answer: Answer) -> bytes:
    return orjson.dumps(answer)


def _decoded_answer(value: bytes) -> Answer:
    """A later version may have given it in a word that we do not know: then too, there is nothing left to do."""
    document = orjson.loads(value)
    reply = Reply(document["reply"]) if document["reply"] in _REPLIES else Reply.NOTHING_TO_DO
    return Answer(reply, document["task_id"], document["attempt"], document["status"], document["detail"])
