"""Failpoints: before or after which durable step a process crashes, stands still, or loses an answer.

``FAILPOINT=after_claim:kill@2`` is the second time that a claim was committed. Which step a commit is can be told from
what it changes, so that the product needs to name nothing.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from executions.ports import Operation
from executions.record import Execution, Status

VARIABLE = "FAILPOINT"
MARK_VARIABLE = "FAILPOINT_MARK"
"""A file that is made when the failpoint is reached."""
_TEXT = re.compile(
    r"(?P<side>before|after)_(?P<step>[a-z_]+):(?P<action>kill|pause|lose_reply)@(?P<occurrence>[1-9]\d*)"
)
Result = TypeVar("Result")


class Action(StrEnum):
    """What happens there."""

    KILL = "kill"
    """SIGKILL: nothing is put in order."""
    PAUSE = "pause"
    """SIGSTOP, until somebody sends SIGCONT."""
    LOSE_REPLY = "lose_reply"
    """The step is done, and whoever asked for it is told that nobody knows."""


CONTROLLER_STEPS = (
    *("receive", "sqs_delete"),
    *("claim", "intend", "payload", "launch", "record_worker", "suspect", "verdict", "stop"),
    *("cancelled", "cr_create", "cr_status", "cr_patch", "event", "lease", "link"),
)
API_STEPS = ("worker_claim", "outcome", "retry_mark", "retry_send", "cancel_mark")


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One side of one step, what happens there, and at which time of its being reached."""

    side: str
    step: str
    action: Action
    occurrence: int

    @classmethod
    def from_text(cls, text: str) -> Failpoint:
        """Raises ValueError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a failpoint: {text!r}; for example after_claim:kill@1")
        return cls(match["side"], match["step"], Action(match["action"]), int(match["occurrence"]))

    def __str__(self) -> str:
        return f"{self.side}_{self.step}:{self.action.value}@{self.occurrence}"

    @property
    def is_of_api(self) -> bool:
        return self.step in API_STEPS


class Trap:
    """Waits for its failpoint in a process, and springs once."""

    def __init__(self, failpoint: Failpoint, mark: Path) -> None:
        self._failpoint = failpoint
        self._mark = mark
        self._reached: Counter[tuple[str, str]] = Counter()

    async def around(self, step: str, call: Callable[[], Awaitable[Result]], lost: Callable[[], Exception]) -> Result:
        """Make the call of a step; ``lost`` is what its caller is told when its answer is lost."""
        self._at("before", step)
        result = await call()
        if self._at("after", step):
            raise lost()
        return result

    def _at(self, side: str, step: str) -> bool:
        """Whether the answer of the step is to be lost."""
        wanted = self._failpoint
        self._reached[side, step] += 1
        if (side, step, self._reached[side, step]) != (wanted.side, wanted.step, wanted.occurrence):
            return False
        self._mark.touch()
        match wanted.action:
            case Action.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Action.PAUSE:
                os.kill(os.getpid(), signal.SIGSTOP)
        return wanted.action is Action.LOSE_REPLY


def commit_step(before: Execution | None, after: Execution | None, operation: Operation | None) -> str:
    """Which step a commit is."""
    if after is None:
        return "remember" if operation else "forget"
    old = before.latest if before is not None else None
    new = after.latest
    if old is None or new.number > old.number:
        return "claim"
    if new.status is not old.status:
        return _step_of_status(after)
    if old.launch is None and new.launch is not None:
        return "intend"
    if old.worker_id is None and new.worker_id is not None:
        return "record_worker"
    if old.launch is not None and new.launch is not None and old.launch.claim_id != new.launch.claim_id:
        return "worker_claim"
    if old.suspicion != new.suspicion:
        return "suspect"
    return _step_of_state(before, after)


def _step_of_status(after: Execution) -> str:
    latest = after.latest
    match latest.status:
        case Status.RUNNING:
            return "record_worker"
        case Status.PENDING:
            return "relaunch"
        case Status.CANCELLED:
            return "cancelled"
    return "outcome" if latest.result is not None else "verdict"


def _step_of_state(before: Execution | None, after: Execution) -> str:
    old, new = before.state if before else None, after.state
    if old is not None and new.retry is not None and old.retry != new.retry:
        return "retry_mark"
    if old is not None and new.cancellation is not None and old.cancellation != new.cancellation:
        return "cancel_mark"
    return "link" if old is None or old.resource != new.resource else "update"
