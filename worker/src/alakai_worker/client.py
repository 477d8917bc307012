"""The two calls of a worker: claim the launch, report the outcome. Both are safe to repeat and are repeated.

An answer is either understood, or final, or tried again with back-off until ``give_up_seconds`` have passed: the
control plane may be away for long, and an outcome that is not delivered is lost work.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar

from alakai_worker.launch import Launch
from alakai_worker.log import WARNING, Log
from alakai_worker.outcome import Outcome
from alakai_worker.transport import NoReply, Reply, post

CALL_TIMEOUT_SECONDS = 10.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
RETRY_AFTER_LIMIT_SECONDS = 300.0
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})
"""The answers of class 4xx that speak of the moment and not of the request."""

_Answer = TypeVar("_Answer")


class CallFailed(Exception):
    """A call did not succeed and will not; the text is fit for a log line."""


class Rejected(CallFailed):
    """A final answer of class 4xx: repeating the same call would get the same."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status}: {reason}" if reason else f"HTTP {status}")
        self.status = status


class GaveUp(CallFailed):
    """No usable answer within ``give_up_seconds``."""


class Post(Protocol):
    def __call__(self, url: str, body: bytes, *, timeout_seconds: float) -> Reply: ...


@dataclass(frozen=True)
class Claimed:
    """The work that this process may do."""

    launch: Launch
    task: Mapping[str, Any]
    """The task message as upstream sent it."""
    trace_id: str
    retry: Mapping[str, Any] = field(default_factory=dict)
    """Hints for an automatic retry, for example ``codexTransientFallbackMode``; empty otherwise."""

    @property
    def payload(self) -> Mapping[str, Any]:
        payload = self.task.get("payload")
        return payload if isinstance(payload, dict) else {}


@dataclass(frozen=True)
class Completed:
    """The control plane has the outcome. Not ``recorded`` means that it was decided before, or waits in a queue."""

    recorded: bool
    reason: str | None = None


class Client:
    """Calls the control plane on behalf of one launch. ``claim_id`` is this process, so a second one is refused."""

    def __init__(
        self,
        launch: Launch,
        log: Log,
        *,
        send: Post = post,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.launch = launch
        self.claim_id = secrets.token_hex(16)
        self._log = log
        self._send = send
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._chance = chance

    def claim(self, *, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> Claimed | None:
        """Ask for the work; None when another process has it, or when this launch is not wanted any more.

        ``waiting`` surrounds each wait between tries, and what it raises ends the claim. A call under way is never
        interrupted: its answer may be the grant, and a grant that nobody knows of looks like a lost worker.
        Raises Rejected and GaveUp.
        """
        launch = self.launch
        body = {
            "taskId": launch.task_id,
            "attempt": launch.attempt,
            "launchTry": launch.launch_try,
            "claimId": self.claim_id,
        }
        if launch.token is not None:
            body["token"] = launch.token
        try:
            return self._until_final("claim", launch.claim_url, body, self._claimed_from, waiting)
        except Rejected as rejected:
            if rejected.status == 409:
                return None
            raise

    def complete(self, outcome: Outcome) -> Completed:
        """Deliver the outcome. Raises Rejected and GaveUp."""
        return self._until_final("callback", self.launch.callback_url, outcome.body(self.launch), _completed_from)

    def _claimed_from(self, reply: Reply) -> Claimed | None:
        document = _document(reply)
        task = document.get("task")
        if reply.status != 200 or not isinstance(task, dict):
            return None
        trace_id, retry = document.get("traceId"), document.get("retry")
        return Claimed(
            launch=self.launch,
            task=task,
            trace_id=trace_id if isinstance(trace_id, str) and trace_id else self.launch.trace_id,
            retry=retry if isinstance(retry, dict) else {},
        )

    def _until_final(
        self,
        call: str,
        url: str,
        body: Mapping[str, Any],
        understood: Callable[[Reply], _Answer | None],
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> _Answer:
        """Repeat the call until it is understood, refused for good, or out of time. The last try is at the deadline."""
        content = json.dumps(body, ensure_ascii=False).encode()
        deadline = self._clock() + self.launch.give_up_seconds
        tries = 0
        while True:
            tries += 1
            retry_after_seconds = 0.0
            try:
                reply = self._send(url, content, timeout_seconds=CALL_TIMEOUT_SECONDS)
            except NoReply as error:
                problem = str(error)
            else:
                answer = understood(reply)
                if answer is not None:
                    return answer
                if 400 <= reply.status < 500 and reply.status not in _WORTH_ANOTHER_TRY:
                    raise Rejected(reply.status, _reason(reply))
                problem = f"HTTP {reply.status}" if reply.status >= 300 else f"HTTP {reply.status} that makes no sense"
                retry_after_seconds = seconds_from_retry_after(reply.retry_after, self._wall_clock())
            left = deadline - self._clock()
            if left <= 0:
                raise GaveUp(f"no usable answer in {self.launch.give_up_seconds:g} s and {tries} tries: {problem}")
            wait = min(wait_seconds(tries, retry_after_seconds, self._chance()), left)
            self._log.line(WARNING, f"the {call} is repeated in {wait:.1f} s", tries=tries, problem=problem)
            with waiting():
                self._sleep(wait)


def wait_seconds(tries: int, retry_after_seconds: float, chance: float) -> float:
    """Exponential back-off with jitter, so that workers do not return in one wave; never earlier than was asked."""
    backoff = min(FIRST_WAIT_SECONDS * 2.0 ** min(tries - 1, 30), LONGEST_WAIT_SECONDS)
    return max(backoff * (0.5 + 0.5 * chance), retry_after_seconds * (1 + 0.2 * chance))


def seconds_from_retry_after(text: str | None, now: float) -> float:
    """A ``Retry-After`` header (seconds or HTTP date) as seconds from ``now``; 0 for none or nonsense."""
    if not text:
        return 0.0
    try:
        seconds = float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT_SECONDS)


def _completed_from(reply: Reply) -> Completed | None:
    document = _document(reply)
    reason = document.get("reason")
    if reply.status == 200 and isinstance(document.get("recorded"), bool):
        return Completed(document["recorded"], reason if isinstance(reason, str) else None)
    if reply.status == 202 and document.get("queued") is True:
        return Completed(False, "queued")
    return None


def _document(reply: Reply) -> dict[str, Any]:
    """The answer's JSON object; empty for anything else, such as the page of a proxy in between."""
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _reason(reply: Reply) -> str:
    error = _document(reply).get("error")
    return error if isinstance(error, str) else ""
