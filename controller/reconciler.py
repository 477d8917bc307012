"""Reconcile one execution: read the record, plan (pure), act, until there is nothing left to do.

Level-based: it does not matter what woke it, nor how often. Ends of workers are judged by ``loops/sweep.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from executions.adapters.logging import emit_summary
from executions.answer import Answer, Reply
from executions.errors import InvalidTask, LaunchRefused, LaunchUnclear
from executions.lifecycle import ended, intend_launch, launch_failed, launched
from executions.names import launch_token
from executions.operations.commands import Commands
from executions.operations.transact import alter
from executions.plan import Action, IntendLaunch, LaunchWorker, ResendRetry, StopWorker, plan
from executions.policy import Policy
from executions.ports import Launcher, LaunchIntent, LaunchOrder, Snapshot, Store
from executions.record import Attempt, Evidence, Execution, Status
from executions.summary import Slice
from executions.task import task_from_document

_TURNS = 8
"""More than any real chain of actions (intend, launch, stop); a longer one would be a loop in the plan."""
_STOP_AGAIN_SECONDS = 1.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Reconciler:
    """Acts on executions one at a time; callers see to it that one execution is never reconciled twice at once."""

    store: Store
    commands: Commands
    launchers: Mapping[str, Launcher]
    policy: Policy
    token_prefix: str
    """Part of every launch token, so that two installations on one cluster never adopt each other's workers."""
    wake_after: Callable[[str, float], None]
    """Reconcile the task again after that many seconds."""
    emit: Callable[[dict[str, Any]], None] = field(default=emit_summary)

    async def reconcile(self, task_id: str) -> None:
        """Raises LaunchUnclear, StoreUnavailable and the queue's errors: the caller tries again later."""
        for _ in range(_TURNS):
            snapshot = await self.store.read(task_id)
            if snapshot.execution is None:
                return
            actions = plan(snapshot.execution, now_ms=snapshot.now_ms)
            if not actions:
                self._wake_when_due(snapshot)
                return
            for action in actions:
                if not await self._act(snapshot.execution, action, snapshot.now_ms):
                    return

    async def _act(self, execution: Execution, action: Action, now_ms: int) -> bool:
        """Carry out one action; False when there is nothing more to do until something else wakes us."""
        match action:
            case IntendLaunch():
                return await self._intend(execution)
            case LaunchWorker():
                return await self._launch(execution, action, now_ms)
            case StopWorker():
                return await self._stop(execution, action)
            case ResendRetry():
                await self.commands.resend_retry(execution.task_id)
                return False

    async def _intend(self, execution: Execution) -> bool:
        latest = execution.latest
        launcher = self._launcher(latest)
        if launcher is None:
            return False
        try:
            order = self._order(execution, latest.launch_tries + 1)
            request = launcher.prepare(order)
        except LaunchRefused as error:
            await self._change(execution, _ending(latest.number, error.code, str(error)))
            return False

        def intend(found: Execution, now_ms: int) -> Execution:
            # Somebody may have suspended or cancelled it since: what is durable decides, not what was read before.
            if not any(isinstance(item, IntendLaunch) for item in plan(found, now_ms=now_ms)):
                return found
            return intend_launch(
                found, latest.number, token=order.token, request=request, now_ms=now_ms, policy=self.policy
            )

        return (await self._change(execution, intend)).reply is Reply.ACCEPTED

    async def _launch(self, execution: Execution, action: LaunchWorker, started_ms: int) -> bool:
        latest = execution.latest
        launcher = self._launcher(latest)
        if launcher is None:
            return False
        part = self._slice(execution, started_ms)
        try:
            # The token that is written down, and not one computed anew: only it finds a worker that was started.
            order = replace(self._order(execution, action.launch.launch_try), token=action.launch.token)
            answer = await launcher.launch(LaunchIntent(order, action.launch.request))
        except LaunchRefused as error:
            refusal = error  # the name ``error`` ends with this block, the closure below lives on

            def refused(found: Execution, now_ms: int) -> Execution:
                return launch_failed(
                    found,
                    latest.number,
                    action.launch.launch_try,
                    code=refusal.code,
                    message=str(refusal),
                    permanent=refusal.permanent,
                    now_ms=now_ms,
                    policy=self.policy,
                    evidence=_evidence(launcher, str(refusal), now_ms),
                )

            await self._change(execution, refused)
            part.failed("launch")
            await self._finish(part, "launch_refused", refusal)
            return True
        except LaunchUnclear as error:
            part.failed("launch")
            await self._finish(part, "launch_unclear", error)
            raise
        part.ok("launch")
        await self._change(
            execution,
            lambda found, now_ms: launched(
                found,
                latest.number,
                action.launch.launch_try,
                worker_id=answer.worker_id,
                now_ms=now_ms,
                rung=answer.rung,
                evidence=_evidence(launcher, answer.detail, now_ms) if answer.detail else (),
            ),
        )
        part.ok("record")
        await self._finish(part, "launched")
        return True

    async def _stop(self, execution: Execution, action: StopWorker) -> bool:
        launcher = self._launcher(execution.latest)
        reason = action.reason
        if launcher is None:
            # Somebody wants it ended, and nobody here can reach its worker: it ends, and says so.
            reason = f"{reason} (its worker was not stopped: no launcher {execution.latest.launcher!r} here)"
        elif not await launcher.stop(action.worker_id, reason):
            self.wake_after(execution.task_id, _STOP_AGAIN_SECONDS)
            return False
        await self._change(
            execution,
            lambda found, now_ms: ended(found, action.attempt, Status.CANCELLED, now_ms=now_ms, message=reason),
        )
        return True

    def _launcher(self, attempt: Attempt) -> Launcher | None:
        launcher = self.launchers.get(attempt.launcher or "")
        if launcher is None:
            _log.warning(
                "No launcher of this name here; the attempt is left as it is",
                task_id=attempt.task_id,
                launcher=attempt.launcher,
                remedy="run a controller with this LAUNCHER, or cancel the execution",
            )
        return launcher

    def _order(self, execution: Execution, launch_try: int) -> LaunchOrder:
        latest = execution.latest
        if not latest.task_snapshot:
            raise LaunchRefused("the task's payload is lost", code="PAYLOAD_LOST", permanent=True)
        return LaunchOrder(
            task_id=execution.task_id,
            task_type=latest.task_type,
            attempt=latest.number,
            launch_try=launch_try,
            trace_id=latest.trace_id or execution.task_id,
            token=launch_token(
                self.token_prefix, execution.task_id, execution.state.incarnation, latest.number, launch_try
            ),
            task=latest.task_snapshot,
        )

    async def _change(self, execution: Execution, following: Callable[[Execution, int], Execution]) -> Answer:
        """Commit what ``following`` makes of the execution as it is by then; ACCEPTED when it changed something."""
        return await alter(self.store, execution.task_id, following, incarnation=execution.state.incarnation)

    def _wake_when_due(self, snapshot: Snapshot) -> None:
        execution = snapshot.execution
        not_before_ms = execution.latest.launch_not_before if execution else None
        # Only for what lies ahead: what holds a launch back after its time (a suspension) wakes us by itself.
        if not_before_ms is not None and not_before_ms > snapshot.now_ms:
            self.wake_after(snapshot.task_id, (not_before_ms - snapshot.now_ms) / 1000)

    def _slice(self, execution: Execution, started_ms: int) -> Slice:
        latest = execution.latest
        try:
            part = Slice.of_task("orchestrator", task_from_document(latest.task_snapshot), started_ms)
        except InvalidTask:
            part = Slice("orchestrator", latest.task_type, latest.trace_id or latest.task_id, started_ms)
            part.task_id, part.task_type = latest.task_id, latest.task_type
        part.ok("intend")
        return part

    async def _finish(self, part: Slice, final_status: str, error: Exception | None = None) -> None:
        now_ms = await self.store.now_ms()
        if error is None:
            self.emit(part.event("success", final_status, now_ms=now_ms))
            return
        name, text = type(error).__name__, str(error)
        self.emit(part.event("error", final_status, now_ms=now_ms, error_type=name, error_message=text))


def _evidence(launcher: Launcher, detail: str, now_ms: int) -> tuple[Evidence, ...]:
    return (Evidence(source=f"{launcher.name}:launch", observed_at=now_ms, detail=detail),)


def _ending(attempt: int, code: str, message: str) -> Callable[[Execution, int], Execution]:
    def end(found: Execution, now_ms: int) -> Execution:
        return ended(found, attempt, Status.FAILED, now_ms=now_ms, code=code, message=message)

    return end
