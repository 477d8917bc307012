"""What the domain needs from the outside, as protocols. Each has one contract suite that runs on the fake and the real.

Implementations are in ``executions.adapters``; the fakes of unit tests are in ``tests/support``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from executions.admission import Admission, Breaker, BreakerRule, Hindrance, Hold, Standing
from executions.answer import Answer
from executions.event_stream import LogEntry
from executions.evidence import Observation
from executions.feed import FeedEntry
from executions.index import Index
from executions.notification import Notification
from executions.record import Execution, Rung
from executions.rows import Place

MESSAGE_MEMORY_SECONDS = 15 * 24 * 3600
"""How long an SQS MessageId is remembered: longer than the longest queue retention (14 days)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An execution as read at one moment, with what a commit must find unchanged.

    ``version`` counts commits of ours, ``digest`` is the SHA-1 of the record's content: so a change made by hand is
    noticed too. ``execution`` is None when there is no record; ``version`` > 0 then means that it was removed by hand.
    """

    task_id: str
    execution: Execution | None
    version: int
    digest: str
    now_ms: int
    """The store's clock at the time of the read."""


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that must have its effect once. ``key`` identifies it for ``ttl_seconds`` (None: until deleted)."""

    key: str
    ttl_seconds: int | None = MESSAGE_MEMORY_SECONDS


class Committed(StrEnum):
    """The outcome of a commit."""

    WRITTEN = "written"
    REPEATED = "repeated"
    """This operation was committed before; nothing was written now."""
    HINDERED = "hindered"
    """The launch whose intent was to be written may not begin now."""
    CONFLICT = "conflict"
    """Somebody else changed the execution: read again and decide anew."""


@dataclass(frozen=True, slots=True)
class CommitResult:
    """``answer`` is the one remembered with the operation when it is a repeat."""

    committed: Committed
    answer: Answer | None = None
    hindrance: Hindrance | None = None
    following: Snapshot | None = None
    """What a read would give now, of an execution that was written: the next decision needs no read."""


FollowUp = Callable[[Snapshot, Execution], Execution]
"""Of what was read and what is to be written: what is written. Adds what follows from a change by itself."""


def nothing_follows(_: Snapshot, execution: Execution) -> Execution:
    """The follow-up of a store that adds nothing."""
    return execution


class Store(Protocol):
    """The durable truth. Every method raises StoreUnavailable when the store cannot be asked or is not trusted."""

    async def read(self, task_id: str) -> Snapshot:
        """Raises RecordUnreadable too."""
        ...

    async def read_many(self, task_ids: Sequence[str]) -> list[Snapshot]:
        """In the order asked for; records that cannot be read are left out and logged."""
        ...

    async def commit(
        self,
        snapshot: Snapshot,
        execution: Execution | None,
        answer: Answer,
        *,
        operation: Operation | None = None,
        admission: Admission | None = None,
    ) -> CommitResult:
        """Write ``execution`` in place of what ``snapshot`` read, all or nothing.

        ``admission`` is checked for a launch whose intent is written: HINDERED when it may not begin now.

        The record's changed attempts, the state (sequence and version raised by one), the index entries, the feed
        entry and the operation's memory are written at once. None with an operation only remembers the operation;
        None without one forgets what is left of a record that was removed by hand.
        """
        ...

    async def remembered(self, operation: Operation) -> Answer | None: ...

    async def forget_operation(self, key: str) -> None: ...

    async def members(self, index: Index, *, up_to_ms: int | None = None, limit: int = 1000) -> list[str]:
        """Task ids of an index, lowest score first."""
        ...

    async def count(self, index: Index) -> int: ...

    async def standing(self, *, heads: int = 0) -> Standing:
        """Who holds slots and who waits for one, by task type, with so many of the first in each line."""
        ...

    async def hold(self, hold: Hold | None) -> None:
        """Put the installation on hold, or end that (None)."""
        ...

    async def held(self) -> Hold | None: ...

    async def count_launch_failure(
        self, launcher: str, task_type: str, code: str, *, key: str, rule: BreakerRule
    ) -> bool:
        """Count a failed launch, once per ``key``; True when that opened the breaker of its class."""
        ...

    async def breakers(self) -> list[Breaker]:
        """Those that are open."""
        ...

    async def close_breaker(self, launcher: str, task_type: str) -> None: ...

    def foreign_changes(self, *, batch: int = 200) -> AsyncIterator[str]:
        """Ids of tasks whose record is not what we last committed: written, edited or removed by hand.

        Bodies are compared where they lie (by digest) and do not travel.
        """
        ...

    def task_ids(self, *, batch: int = 500) -> AsyncIterator[str]:
        """Every task that has a record, in no order; an id may come twice."""
        ...

    async def now_ms(self) -> int:
        """The one clock for deadlines."""
        ...

    async def secure(self) -> None:
        """Return once everything read by now would outlive a failover. Raises StoreUnavailable when it might not.

        Others are told of nothing before: what went with a lost master would be told for good.
        """
        ...

    async def ping(self) -> None: ...


class Feed(Protocol):
    """The change feed as one registered group of readers sees it."""

    async def read(self, *, count: int = 500, block_ms: int = 1000) -> list[FeedEntry]:
        """Wait for entries that this group has not been given yet; an empty list after ``block_ms``."""
        ...

    async def trim(self) -> int:
        """Drop what every registered group has read; returns how many entries went."""
        ...


class Lease(Protocol):
    """Who leads. Losing it costs efficiency only: commits stay correct with any number of leaders."""

    async def hold(self) -> int | None:
        """Take or prolong the lease. The fencing number while it is ours, None while somebody else holds it."""
        ...

    async def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One received queue message. ``receipt`` is needed to delete or release it."""

    message_id: str
    body: str
    receipt: str = field(repr=False)
    receive_count: int = 1
    sent_ms: int | None = None


class Queue(Protocol):
    """One queue. Raises QueueUnavailable (nothing happened) or, on send only, QueueUnclear (may have happened)."""

    async def receive(self, *, maximum: int = 10, wait_seconds: float = 20) -> list[Message]: ...

    async def delete(self, messages: Sequence[Message]) -> list[Message]:
        """Delete; returns those that the service says it did not delete."""
        ...

    async def release(self, messages: Sequence[Message]) -> None:
        """Make messages visible again at once, so that another consumer gets them."""
        ...

    async def waiting(self) -> int:
        """How many messages there are, hidden ones that somebody has received and not deleted included; about."""
        ...

    async def send(self, document: Mapping[str, Any]) -> str:
        """Send one JSON document; returns its MessageId."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """What a launcher may base a launch on. It is the same for every replay of one launch."""

    task_id: str
    task_type: str
    attempt: int
    launch_try: int
    trace_id: str
    token: str
    """Idempotency token: 64 hex digits, see ``names.launch_token``."""
    task: Mapping[str, Any]
    """The task message as received."""
    callback_token: str | None = field(default=None, repr=False)
    """A secret for the worker alone, its environment variable ``ALAKAI_CALLBACK_TOKEN``; at most 150 characters.

    Handed over when the launch is sent: it never stands in what ``prepare`` returns, which is stored and shown.
    """


@dataclass(frozen=True, slots=True)
class LaunchIntent:
    """A launch that is durably written down: the order and the request that the launcher froze for it."""

    order: LaunchOrder
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Launched:
    """A launch has this worker; ``rung`` is what told so."""

    worker_id: str
    rung: Rung
    detail: str = ""
    """What stood against it, in words for a person: kept as evidence with the attempt."""


class Launcher(Protocol):
    """Starts, looks at and stops workers. Found by name through the entry point group ``alakai.launchers``.

    An attribute ``replay_limit_ms: int | None`` may say how long after its intent a launch may be sent again without
    starting a second worker (None: for ever); without it ``plan.REPLAY_LIMIT_MS`` counts. After that time a launch
    is only looked for with ``find``, and given up when it has no worker.
    """

    name: str

    def prepare(self, order: LaunchOrder) -> dict[str, Any]:
        """Freeze the launcher-specific request (a JSON object) before the intent is written. Pure: no I/O.

        Raises LaunchRefused for an order that can never be launched.
        """
        ...

    async def launch(self, intent: LaunchIntent) -> Launched:
        """Start the worker; a repeat of the same token returns the same worker.

        Raises LaunchRefused when provably nothing was started, LaunchUnclear when it is unknown.
        """
        ...

    async def find(self, intent: LaunchIntent) -> str | None:
        """The worker that a launch has, found without sending the launch. Never starts anything.

        None says that no worker of this launch lives; whether one that ended is still found is the launcher's own
        affair. Raises LaunchUnclear when it cannot say.
        """
        ...

    async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
        """Look at workers. An id that could not be looked at is left out; raises LaunchUnclear when none could."""
        ...

    async def stop(self, worker_id: str, reason: str) -> bool:
        """Ask the worker to stop. True when it is provably gone already; repeated until then."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Watching(Protocol):
    """A launcher that hears of changes of its workers by itself, beside ``Launcher``."""

    async def watch(self, changed: Callable[[str], None]) -> None:
        """Call ``changed(task_id)`` for each change, until cancelled. May raise, and is then called again."""
        ...


@runtime_checkable
class Owning(Protocol):
    """A launcher whose workers end with the custom resource of their execution, beside ``Launcher``."""

    async def disown(self, worker_id: str) -> None:
        """Let a worker outlive the resource. Raises LaunchUnclear."""
        ...


class Channel(Protocol):
    """One way to tell outcomes: a webhook, Slack, GitHub. ``name`` is that of its line in the outbox.

    Each notification may be told more than once; the channel sees to it that this does no harm.
    """

    name: str

    def concerns(self, notification: Notification) -> bool:
        """Whether it goes this way at all. Pure: no I/O."""
        ...

    async def deliver(self, notification: Notification, *, now_ms: int) -> None:
        """Tell it. Raises NotDelivered, StoreUnavailable."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FoundWorker:
    """A worker that lives, and what it was launched for by its own word."""

    worker_id: str
    task_id: str
    attempt: int
    launch_try: int


@runtime_checkable
class Listing(Protocol):
    """A launcher that can say which workers of this installation live, beside ``Launcher``: for ``alakai fsck``."""

    async def workers(self) -> list[FoundWorker]:
        """Those that are not to stop. Raises LaunchUnclear."""
        ...


class Payloads(Protocol):
    """Task payloads by task, for workers that read them from Redis instead of claiming them."""

    async def put(self, task_id: str, task: Mapping[str, Any]) -> None: ...


class EventLog(Protocol):
    """The stream of lifecycle events, for readers of no group. Every method raises StoreUnavailable."""

    async def newest(self) -> str:
        """Id of the newest entry there ever was; ``event_stream.START`` where there was none."""
        ...

    async def holds(self, entry_id: str) -> bool:
        """Whether nothing that came after this entry is gone, so that a reader may go on from there."""
        ...

    async def between(self, after: str, up_to: str, *, count: int) -> list[LogEntry]:
        """Entries after the one and up to the other, oldest first."""
        ...

    async def follow(self, after: str, *, count: int, block_ms: int) -> list[LogEntry]:
        """Wait for entries after this one; an empty list after ``block_ms``."""
        ...

    async def projected(self) -> str | None:
        """Every entry up to this one is in the projection; None where nobody projects."""
        ...

    async def close(self) -> None: ...


class TaskList(Protocol):
    """The latest state of each execution. Every method raises StoreUnavailable."""

    async def read(self, execution_ids: Sequence[str]) -> list[dict[str, str]]:
        """The newest events of these executions as the projection keeps them, {} where there is none."""
        ...

    async def newest(self, *, project: str | None, before: Place | None, limit: int) -> list[Place]:
        """Executions from the newest to older ones, of one project or of all."""
        ...


class IdentityUnavailable(Exception):
    """The identity provider's keys could not be fetched: the caller should try again (HTTP 503), not sign in."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified person. ``subject`` is the stable key, ``email`` is verified.

    ``domain`` is the organisation that the account belongs to (``hd``); None for an account of nobody's but its own.
    ``expires_at`` is when the sign-in ends (seconds since the epoch); None where it does not by itself.
    """

    subject: str
    email: str
    domain: str | None = None
    expires_at: int | None = field(default=None, compare=False)


class IdentityVerifier(Protocol):
    async def verify(self, token: str) -> Identity | None:
        """The person behind an ID token, None for a bad token. Raises IdentityUnavailable."""
        ...
