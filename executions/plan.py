"""What must be done next for an execution: one pure look at the record, a tuple of actions.

The reconciler runs them one by one; each is safe to run again after a crash. Ends of workers are judged in
``evidence`` from the sweep's looks, not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from executions.record import Execution, Launch, Status
from executions.retry import retry_is_due

REPLAY_LIMIT_MS = 50 * 60_000
"""For so long after its intent a launch may be sent again blindly, where its launcher names no limit of its own.

ECS may forget a client token one hour after its task stopped, and after 24 hours in any case; the same token then
starts a second task. Ten minutes of the hour are left for everything between the look at the record and the call.
"""


@dataclass(frozen=True, slots=True)
class IntendLaunch:
    """Write down the next launch of the waiting attempt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class LaunchWorker:
    """Send, or send again, the launch that is written down."""

    attempt: int
    launch: Launch


@dataclass(frozen=True, slots=True)
class FindWorker:
    """Look for what a launch started that is too old to be sent again; it is adopted, or never sent."""

    attempt: int
    launch: Launch


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Stop the live worker because somebody asked for it; the attempt is cancelled once it is gone."""

    attempt: int
    worker_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResendRetry:
    """Enqueue a marked retry again that nobody claimed in time."""

    attempt: int


@dataclass(frozen=True, slots=True)
class PromoteRetry:
    """Begin the attempt of the automatic retry that is due."""

    attempt: int


Action = IntendLaunch | LaunchWorker | FindWorker | StopWorker | ResendRetry | PromoteRetry


def plan(execution: Execution, *, now_ms: int, replay_limit_ms: int | None = REPLAY_LIMIT_MS) -> tuple[Action, ...]:
    """The actions that the record calls for now; an empty tuple when there is nothing to do.

    ``replay_limit_ms`` is the launcher's: how long after its intent a launch may be sent, None for ever.
    """
    latest = execution.latest
    if retry_is_due(execution, now_ms):
        return (ResendRetry(latest.number + 1),)
    schedule = execution.waiting_schedule
    if schedule is not None and schedule.due_at is not None and schedule.due_at <= now_ms:
        return (PromoteRetry(schedule.attempt),)
    if latest.status is Status.PENDING and latest.launch is None:
        held = execution.state.suspended or (latest.launch_not_before or 0) > now_ms
        return () if held else (IntendLaunch(latest.number),)
    if not latest.is_live:
        return ()
    # A launch without an answer is sent again even when the attempt is to be cancelled: only the answer
    # tells which worker to stop, and a cancelled launch is refused at its claim.
    if latest.worker_id is None and latest.launch is not None:
        age_ms = now_ms - latest.launch.intent_at
        if replay_limit_ms is not None and age_ms >= replay_limit_ms:
            return (FindWorker(latest.number, latest.launch),)
        return (LaunchWorker(latest.number, latest.launch),)
    cancellation = execution.state.cancellation
    if cancellation is not None and cancellation.attempt == latest.number and latest.worker_id is not None:
        return (StopWorker(latest.number, latest.worker_id, cancellation.reason),)
    return ()
