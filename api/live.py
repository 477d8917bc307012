"""Who follows the stream of lifecycle events, and what each of them is sent next.

One task of the process reads the stream and keeps the newest events in memory; readers take them from there, each at
its own pace, and nobody waits for anybody. A reader that was away is brought up to date from Redis first. One that
falls behind what is kept, or takes nothing any more, loses its connection: it comes back and says where it was.
Never writes to a connection (``event_stream``) and decides nothing about who may sign in (``identity``).
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from api.errors import Refused, try_again_later
from executions.adapters.metrics import STREAMS_DROPPED, STREAMS_OPEN
from executions.errors import StoreUnavailable
from executions.event_stream import (
    EXPIRED,
    HEARTBEAT,
    HELLO,
    Frame,
    LogEntry,
    checked_entry_id,
    frame_from_entry,
    is_after,
)
from executions.ports import EventLog

TOO_MANY_STREAMS = "too many streams are open; close some, or try again later"
_FOLLOWED_AT_ONCE = 500
_CAUGHT_UP_AT_ONCE = 100
"""Entries that one reader is brought up to date with in one chunk: hundreds may come back at once after a restart."""
_BLOCK_MS = 1_000
_FRAMES_KEPT = 2_000
_BYTES_KEPT = 8 * 1_048_576
_CHUNK_BYTES = 65_536
_PAUSE_SECONDS = 0.5
_ABORT_SECONDS = 1.0
"""After the end was told, for connections that do not take their last words."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many may read at once and how long is waited for whom."""

    streams: int = 800
    per_person: int = 250
    heartbeat_seconds: float = 15.0
    send_seconds: float = 10.0
    """A connection that takes nothing for so long is given up."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Where what Redis holds meets what is kept here: events from ``number`` on come after the entry ``entry_id``."""

    entry_id: str
    number: int


@dataclass(eq=False, frozen=True, slots=True)
class Seat:
    """One open stream. ``abort`` ends its connection whatever is still to be sent."""

    person: str
    abort: Callable[[], None]


class Live:
    """The newest events, and all who read them. ``run`` follows the stream until cancelled."""

    def __init__(
        self,
        log: EventLog,
        limits: Limits | None = None,
        *,
        frames_kept: int = _FRAMES_KEPT,
        block_ms: int = _BLOCK_MS,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self.log = log
        self.limits = limits or Limits()
        self.has_ended = False
        self._frames: list[Frame] = []
        self._frames_kept = frames_kept
        self._bytes = 0
        self._first = 0
        """Number of the first frame that is kept; they are numbered on and on."""
        self._position: str | None = None
        self._block_ms = block_ms
        self._pause_seconds = pause_seconds
        self._news = asyncio.Event()
        self._end = asyncio.Event()
        self._seats: set[Seat] = set()
        self._by_person = Counter[str]()

    async def run(self) -> None:
        is_away = False
        while True:
            try:
                await self.turn()
                is_away = False
            except StoreUnavailable as error:
                if not is_away:
                    _log.warning("The stream of events cannot be followed; readers wait", reason=str(error))
                is_away = True
                await asyncio.sleep(self._pause_seconds)
            except Exception as error:
                # Whatever it is: readers would wait for ever behind open connections for somebody who is not there.
                _log.error(
                    "A fault of ours while the stream of events was followed",
                    error_type=type(error).__name__,
                    # Frames and source lines only: an exception's own text may repeat an event.
                    where="".join(traceback.format_tb(error.__traceback__)[-4:]),
                )
                await asyncio.sleep(self._pause_seconds)

    async def turn(self) -> None:
        """Take over what is new. Raises StoreUnavailable."""
        if self._position is None:
            self._position = await self.log.newest()
        entries = await self.log.follow(self._position, count=_FOLLOWED_AT_ONCE, block_ms=self._block_ms)
        # Asked afterwards: what was trimmed before we read it, or went with a lost Redis, is then known to be missing.
        if not await self.log.holds(self._position):
            _log.warning("Events are gone from the stream before they were read; readers begin anew")
            self._forget()
            self._position = entries[-1].entry_id if entries else await self.log.newest()
        elif entries:
            self._position = entries[-1].entry_id
            self._keep(entries)
        else:
            return
        self._wake()

    @property
    def joint(self) -> Joint:
        """Raises StoreUnavailable until the stream could be read once."""
        if self._position is None:
            raise StoreUnavailable("the stream of events was not reached yet")
        return Joint(self._position, self._first + len(self._frames))

    def since(self, number: int) -> Sequence[Frame] | None:
        """What is kept from that number on, as much as goes into one chunk; None when the first of it is gone."""
        if number < self._first:
            return None
        found, size = list[Frame](), 0
        for frame in self._frames[number - self._first :]:
            found.append(frame)
            size += len(frame.chunk)
            if size >= _CHUNK_BYTES:
                break
        return found

    async def news(self, seconds: float) -> None:
        """Wait until something is new, for so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def pause(self) -> None:
        """Before something is tried again; ends early when all ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause_seconds):
                await self._end.wait()

    def admit(self, person: str, abort: Callable[[], None]) -> Seat:
        """Raises Refused: 429 when this person has too many, 503 when all seats are taken or we are stopping."""
        if self._by_person[person] >= self.limits.per_person:
            raise Refused(429, TOO_MANY_STREAMS, headers={"Retry-After": "30"})
        if self.has_ended or len(self._seats) >= self.limits.streams:
            raise try_again_later(TOO_MANY_STREAMS)
        seat = Seat(person, abort)
        self._seats.add(seat)
        self._by_person[person] += 1
        STREAMS_OPEN.inc()
        return seat

    def leave(self, seat: Seat) -> None:
        if seat not in self._seats:
            return
        self._seats.remove(seat)
        self._by_person[seat.person] -= 1
        if not self._by_person[seat.person]:
            del self._by_person[seat.person]
        STREAMS_OPEN.dec()

    def end(self) -> None:
        """End all streams: a stop must not wait for readers who would stay for hours."""
        self.has_ended = True
        self._end.set()
        self._wake()
        for seat in self._seats:
            asyncio.get_running_loop().call_later(_ABORT_SECONDS, seat.abort)

    def _keep(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            if (frame := frame_from_entry(entry)) is not None:
                self._frames.append(frame)
                self._bytes += len(frame.chunk)
        surplus = 0
        while len(self._frames) - surplus > self._frames_kept or self._bytes > _BYTES_KEPT:
            self._bytes -= len(self._frames[surplus].chunk)
            surplus += 1
        del self._frames[:surplus]
        self._first += surplus

    def _forget(self) -> None:
        """Of nobody it can be said any more what was missed: every number given out is gone."""
        self._first += len(self._frames) + 1
        self._frames, self._bytes = [], 0

    def _wake(self) -> None:
        waiting, self._news = self._news, asyncio.Event()
        waiting.set()


class _Behind(Exception):
    """What would come next for this reader is not kept any more."""


class Reader:
    """What one reader is sent, from where it says that it was.

    ``snapshot`` gives what to start from, given where what is kept begins: a reset event, and the entry that events
    follow from. ``sees`` says whether an event is for this person, ``seconds_left`` how long the sign-in counts.
    """

    def __init__(
        self,
        live: Live,
        *,
        last_event_id: str | None,
        sees: Callable[[Frame], bool],
        snapshot: Callable[[str], Awaitable[tuple[bytes, str]]],
        seconds_left: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._sees = sees
        self._snapshot = snapshot
        self._clock = clock
        self._position = checked_entry_id(last_event_id) if last_event_id is not None else None
        self._has_begun = False
        self._number: int | None = None
        """Of the next event, once this reader has caught up with what is kept."""
        self._expires = None if seconds_left is None else clock() + seconds_left
        self._silent_since = clock()

    async def chunks(self) -> AsyncIterator[bytes]:
        """What to send, until the reader is to go."""
        yield HELLO
        while not self._live.has_ended and not self._is_expired():
            try:
                chunk = await (self._caught_up() if self._number is None else self._next(self._number))
            except StoreUnavailable:
                # The connection stays: a browser does not come back by itself to one that is refused.
                await self._live.pause()
                chunk = b""
            except _Behind:
                STREAMS_DROPPED.labels("behind").inc()
                return
            if chunk or self._clock() - self._silent_since >= self._live.limits.heartbeat_seconds:
                yield chunk or HEARTBEAT
                self._silent_since = self._clock()
        if self._is_expired() and not self._live.has_ended:
            yield EXPIRED

    async def _caught_up(self) -> bytes:
        """The next piece of what happened before now."""
        joint = self._live.joint
        if self._position is None:
            return await self._begun(joint)
        entries = await self._live.log.between(self._position, joint.entry_id, count=_CAUGHT_UP_AT_ONCE)
        # Asked afterwards: an id that this Redis does not know, or what was trimmed while we read, would be a gap.
        if not await self._live.log.holds(self._position):
            self._position = None
            return b""
        if is_after(self._position, joint.entry_id):
            # Another replica was faster: from here on we would send again what that one has sent.
            await self._live.news(self._patience())
        elif len(entries) == _CAUGHT_UP_AT_ONCE:
            self._position = entries[-1].entry_id
        else:
            self._position = joint.entry_id
            if self._live.since(joint.number) is not None:
                self._number = joint.number
        frames = (frame_from_entry(entry) for entry in entries)
        return self._seen(frame for frame in frames if frame is not None)

    async def _begun(self, joint: Joint) -> bytes:
        if self._has_begun:
            # Where the stream keeps next to nothing, every event would make a new beginning at once.
            await self._live.pause()
        chunk, self._position = await self._snapshot(joint.entry_id)
        self._has_begun = True
        return chunk

    async def _next(self, number: int) -> bytes:
        frames = self._live.since(number)
        if frames is None:
            raise _Behind
        if not frames:
            await self._live.news(self._patience())
            return b""
        self._number = number + len(frames)
        return self._seen(frames)

    def _seen(self, frames: Iterable[Frame]) -> bytes:
        return b"".join(frame.chunk for frame in frames if self._sees(frame))

    def _patience(self) -> float:
        """Until the next heartbeat or the end of the sign-in."""
        until = self._silent_since + self._live.limits.heartbeat_seconds
        return max(min(until, self._expires or until) - self._clock(), 0.0)

    def _is_expired(self) -> bool:
        return self._expires is not None and self._clock() >= self._expires
