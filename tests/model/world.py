"""The world of the model: one task, its record, two controllers, the launcher, workers and what is on its way.

Everything is immutable; two worlds are the same when their keys are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from executions.policy import Policy
from executions.record import Execution, Launch, encoded
from tests.support.builders import NOW_MS

TASK = "task-1"
GRACE_MS = 60_000
POLICY = Policy(max_retries=1, lost_worker_grace_ms=GRACE_MS)


@dataclass(frozen=True)
class Safeguards:
    """What keeps the protocol safe. Switched off in how a step calls the real code, never in the code itself."""

    version: bool = True
    """A commit compares what it was decided on with what is there."""
    token: bool = True
    """A launch is sent again with its own token."""
    claim: bool = True
    """A worker asks before it works."""
    incarnation: bool = True
    """A task that is made anew has launch tokens of its own."""
    fence: bool = True
    """An outcome proves which launch it is of (its callback token)."""
    grace: bool = True
    """A worker that is gone is judged only after its callback has had time to arrive."""
    memory: bool = True
    """A message that was acted on is known when it comes again."""


@dataclass(frozen=True)
class Message:
    """On the queue until it is deleted; received as often as the queue likes."""

    message_id: str
    attempt: int | None = None


@dataclass(frozen=True)
class Worker:
    """A process that the launcher started; ``life`` is which life of the task id it was started for."""

    name: str
    token: str
    """The idempotency token of its launch."""
    life: int
    attempt: int
    launch_try: int
    state: str = "started"
    """started, working, refused, reported (its callback is under way), dead (it ended without a word)"""
    succeeds: bool = True
    forgotten: bool = False
    """The launcher would start another one for its token."""

    @property
    def is_there(self) -> bool:
        return self.state in ("started", "working")


@dataclass(frozen=True)
class Callback:
    """An outcome on its way; the network may deliver it late and twice."""

    worker: Worker
    sent_ms: int


@dataclass(frozen=True, eq=False)
class Pending:
    """What a controller is in the middle of: decided on a read that may be out of date by now."""

    kind: str
    """``commit`` of ``following``, ``send`` of a launch, ``note`` of its worker"""
    version: int
    seen: Execution | None
    following: Execution | None = None
    operation: str | None = None
    launch: Launch | None = None
    worker: str | None = None


@dataclass(frozen=True, eq=False)
class World:
    """Everything at one moment."""

    execution: Execution | None = None
    version: int = 0
    life: int = 1
    """Rises when a person removes the record."""
    now_ms: int = NOW_MS
    queue: tuple[Message, ...] = (Message("m1"),)
    remembered: frozenset[str] = frozenset()
    controllers: tuple[Pending | None, ...] = (None, None)
    workers: tuple[Worker, ...] = ()
    callbacks: tuple[Callback, ...] = ()
    resolved: tuple[tuple[int, int, str], ...] = ()
    """What became final: life, attempt, status; in order."""
    resolved_by: tuple[tuple[int, int, Worker], ...] = ()
    """Which worker's outcome decided: life, attempt, worker."""
    sent: int = 0
    """Launches that were sent."""
    asked: int = 1
    """How many attempts of this life somebody asked for."""
    passes: int = 0
    """How often time may still pass."""
    looks: int = 0
    """Looks that found something; bounded, as sendings are, so that a search comes to an end."""

    @property
    def key(self) -> bytes:
        """Equal for worlds that nobody could tell apart."""
        parts: list[Any] = [
            _key(self.execution),
            self.version,
            self.life,
            self.now_ms,
            [(item.message_id, item.attempt) for item in self.queue],
            sorted(self.remembered),
            [_pending_key(item) for item in self.controllers],
            sorted(repr(item) for item in self.workers),
            sorted(repr(item) for item in self.callbacks),
            self.resolved,
            [(life, attempt, worker.name) for life, attempt, worker in self.resolved_by],
            self.sent,
            self.asked,
            self.passes,
            self.looks,
        ]
        return orjson.dumps(parts)


def _key(execution: Execution | None) -> Any:
    if execution is None:
        return None
    return [*(encoded(item).decode() for item in execution.attempts), encoded(execution.state).decode()]


def _pending_key(pending: Pending | None) -> Any:
    if pending is None:
        return None
    launch = pending.launch.token if pending.launch else None
    return [
        pending.kind, pending.version, _key(pending.seen), _key(pending.following), pending.operation, launch,
        pending.worker,
    ]  # fmt: skip
