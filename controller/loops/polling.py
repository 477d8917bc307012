"""Taking messages from a queue, the part that is the same for tasks and kept outcomes: when to ask and when not to.

Nothing is received while the store is away, because every receive brings a message nearer to the dead letters. What a
message means is the handler's: see ``consumer`` and ``outcomes``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Sequence
from enum import Enum, auto

import structlog

from executions.adapters.metrics import MESSAGES
from executions.errors import AlakaiError, QueueUnavailable, StoreUnavailable
from executions.ports import Message, Queue, Store

WAIT_SECONDS = 5.0
"""One long poll. It cannot be broken off without losing what it brings, so a stop takes this long at most."""
_BATCH = 10
_BACKOFF_FIRST_SECONDS = 0.2
_BACKOFF_LAST_SECONDS = 5.0
_REMEMBERED = 10_000
_log = structlog.get_logger(__name__)


class LeftToDeadLetters(AlakaiError):
    """Raised by a handler for a message that can never be acted on; the text says why."""


class Turn(Enum):
    """How one turn of a receiver went."""

    HANDLED = auto()
    EMPTY = auto()
    FULL = auto()
    """Nothing was asked for, because there is enough to do already."""
    STORE_AWAY = auto()
    QUEUE_AWAY = auto()
    FAILED = auto()
    """An error that nobody foresaw."""


class Poller:
    """Receives and hands each message to ``handle``, up to ten at once per receiver, until it is stopped.

    ``handle`` returns when the message is done with, which deletes it. StoreUnavailable gives it back to the queue,
    once; any other error is logged once per message and leaves it to the dead-letter policy.
    """

    def __init__(
        self,
        queue: Queue,
        store: Store,
        handle: Callable[[Message], Awaitable[None]],
        *,
        name: str,
        receivers: int = 1,
        wait_seconds: float = WAIT_SECONDS,
        reason_to_wait: Callable[[], Awaitable[str | None]] | None = None,
        on_turn: Callable[[Turn], None] = lambda _: None,
        heartbeat: Callable[[], None] = lambda: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._store = store
        self._handle = handle
        self._receivers = receivers
        self._wait_seconds = wait_seconds
        self._reason_to_wait = reason_to_wait
        self._on_turn = on_turn
        self._heartbeat = heartbeat
        self._draw = draw
        self._stopping = asyncio.Event()
        self._troubles: set[Turn] = set()
        self._given_back = RecentKeys()
        self._reported = RecentKeys()
        self._name = name
        self._log = _log.bind(queue=name)

    async def run(self) -> None:
        """Receive until ``stop``. Cancelling stops it as well, and waits for what is under way."""
        receivers = [asyncio.create_task(self._receive()) for _ in range(self._receivers)]
        try:
            await asyncio.wait(receivers)
        except asyncio.CancelledError:
            self.stop()
            await asyncio.wait(receivers)
            raise
        finally:
            for receiver in receivers:
                receiver.cancel()

    def stop(self) -> None:
        """Take no more; what is being handled is finished, what arrives meanwhile is given back."""
        self._stopping.set()

    async def _receive(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._heartbeat()
            # After an outage one message tries whether all is well, instead of ten that would be counted as received.
            turn = await self._turn(1 if failures else _BATCH)
            self._on_turn(turn)
            if turn in (Turn.HANDLED, Turn.EMPTY):
                failures = 0
            else:
                await self._pause(backoff_seconds(failures, self._draw()))
                failures += 1

    async def _turn(self, maximum: int) -> Turn:
        was_away = Turn.STORE_AWAY in self._troubles
        try:
            await self._store.ping()
            reason = await self._reason_to_wait() if self._reason_to_wait is not None else None
            if reason is not None:
                self._begin(Turn.FULL, reason)
                return Turn.FULL
            self._end(Turn.FULL)
            messages = await self._queue.receive(maximum=maximum, wait_seconds=self._wait_seconds)
            self._end(Turn.QUEUE_AWAY)
            if messages and self._stopping.is_set():
                await self._queue.release(messages)
                return Turn.HANDLED
            await self._settle(messages)
            # The end of an empty poll that began before the outage proves nothing.
            if messages or was_away:
                self._end(Turn.STORE_AWAY)
            return Turn.HANDLED if messages else Turn.EMPTY
        except StoreUnavailable as error:
            self._begin(Turn.STORE_AWAY, str(error))
            return Turn.STORE_AWAY
        except QueueUnavailable as error:
            self._begin(Turn.QUEUE_AWAY, str(error))
            return Turn.QUEUE_AWAY
        except Exception:
            self._log.exception("Receiving failed; it goes on")
            return Turn.FAILED

    async def _settle(self, messages: Sequence[Message]) -> None:
        """Handle messages side by side, then delete what is done and give back what the store could not take."""
        results = await asyncio.gather(*(self._handle(item) for item in messages), return_exceptions=True)
        outages = [result for result in results if isinstance(result, StoreUnavailable)]
        done, back = [], []
        for message, result in zip(messages, results, strict=True):
            if result is None:
                done.append(message)
            elif isinstance(result, StoreUnavailable):
                # Only once: given back again and again it would use up its receives within seconds.
                if self._given_back.add(message.message_id):
                    back.append(message)
            else:
                self._report(message, result)
        try:
            if done and (kept := await self._queue.delete(done)):
                ids = [message.message_id for message in kept]
                self._log.warning("Handled but not deleted; the next delivery does nothing", message_ids=ids)
        finally:
            if back:
                # Long polls that are still open, here and on other replicas, would only receive them once more for
                # nothing: let them end first.
                await self._pause(self._wait_seconds)
                await self._queue.release(back)
        left = len(messages) - len(done) - len(outages)
        for outcome, count in (("handled", len(done)), ("left", left), ("returned", len(outages))):
            MESSAGES.labels(self._name, outcome).inc(count)
        if outages:
            raise outages[0]

    def _report(self, message: Message, error: BaseException) -> None:
        if not self._reported.add(message.message_id):
            return
        expected = isinstance(error, AlakaiError)
        self._log.warning(
            "Message left to the dead-letter policy",
            message_id=message.message_id,
            reason=str(error) if expected else type(error).__name__,
            exc_info=None if expected else error,
        )

    def _begin(self, trouble: Turn, reason: str) -> None:
        if trouble not in self._troubles:
            self._troubles.add(trouble)
            self._log.warning("Receiving is paused", reason=reason)

    def _end(self, trouble: Turn) -> None:
        if trouble in self._troubles:
            self._troubles.remove(trouble)
            self._log.info("Receiving again", after=trouble.name.lower())

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when there is a stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def backoff_seconds(failures: int, drawn: float) -> float:
    """The wait after so many failures in a row before: 0.2 s, doubling up to 5 s; half of it is drawn (0 to 1)."""
    return min(_BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 10), _BACKOFF_LAST_SECONDS) * (0.5 + drawn / 2)


class RecentKeys:
    """The latest keys that were added, bounded, so that something is done once for each."""

    def __init__(self, limit: int = _REMEMBERED) -> None:
        self._limit = limit
        self._keys: dict[Hashable, None] = {}

    def add(self, key: Hashable) -> bool:
        """Whether the key is new."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > self._limit:
            del self._keys[next(iter(self._keys))]
        return True
