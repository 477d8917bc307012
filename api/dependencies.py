"""What routes ask for beside a body and a person: the context they work in, and a checked task id."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from api.errors import Refused
from api.limits import RateLimit
from api.live import Live
from api.task_list import VisibleTasks
from executions.adapters.callback_keys import CallbackKeys
from executions.adapters.health import Health
from executions.adapters.logging import emit_summary
from executions.adapters.settings import Settings
from executions.errors import InvalidTask
from executions.names import checked_task_id
from executions.operations.commands import Commands
from executions.ports import IdentityVerifier, Queue, Store


def wall_clock_ms() -> int:
    """For durations in logs and the time of receipt of an outcome that Redis could not take."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that the application is wired from. Tests make one from fakes, a process by ``context``."""

    settings: Settings
    commands: Commands
    store: Store
    outcomes: Queue
    """Keeps outcomes that arrive while the store is away."""
    identity: IdentityVerifier | None
    """None where dashboard sign-in is not configured."""
    health: Health
    tasks: VisibleTasks
    live: Live
    callback_keys: CallbackKeys | None = None
    """None where callbacks carry no token."""
    per_person: RateLimit = field(default_factory=lambda: RateLimit(0, 1))
    """How often a person, or a token that proves nobody, may ask."""
    per_task: RateLimit = field(default_factory=lambda: RateLimit(0, 1))
    """How often workers of one task may ask."""
    clock_ms: Callable[[], int] = wall_clock_ms
    emit: Callable[[dict[str, Any]], None] = emit_summary
    resources: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Entered while the application serves; closes on the way out what was opened."""


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _task_id(request: Request) -> str:
    try:
        return checked_task_id(request.path_params["taskId"])
    except InvalidTask as error:
        raise Refused(400, str(error)) from error


ContextOf = Annotated[Context, Depends(_context)]
TaskId = Annotated[str, Depends(_task_id)]
"""Named after ``Person`` in a route's parameters: who is not signed in does not learn what a good id is."""
