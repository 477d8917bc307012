"""Reconcile one execution: read the record, plan (pure), act, until there is nothing left to do.

Level-based: it does not matter what woke it, nor how often. Ends of workers are judged by ``loops/sweep.py``.

A launch is sent only on a look at the record that is fresh: a controller that was stopped for a while (SIGSTOP, a
frozen node) must not send what was given up meanwhile. What slips through all the same, by microseconds, starts a
worker whose claim is refused, and which is stopped here when its launch is answered.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from controller.breakers import tell_nobody
from executions.adapters.logging import emit_summary
from executions.admission import Admission, Hindrance, who_holds
from executions.answer import Reply
from executions.automatic_retry import message_for_worker
from executions.callback_token import KeyRing
from executions.conditions import Reason
from executions.errors import InvalidTask, LaunchRefused, LaunchUnclear
from executions.index import Index, index_scores
from executions.lifecycle import ended, hindered, intend_launch, is_orphan, launch_failed, launched
from executions.moment import iso_from_ms
from executions.names import launch_token
from executions.operations.commands import Commands
from executions.operations.transact import alter_seen
from executions.plan import (
    REPLAY_LIMIT_MS,
    Action,
    FindWorker,
    IntendLaunch,
    LaunchWorker,
    PromoteRetry,
    ResendRetry,
    StopWorker,
    plan,
)
from executions.policy import Policy
from executions.ports import Launched, Launcher, LaunchIntent, LaunchOrder, Snapshot, Store
from executions.record import Attempt, Evidence, Execution, Launch, Rung, Status, Waiting
from executions.submission import promote
from executions.summary import Slice
from executions.task import task_from_document

_TURNS = 8
"""More than any real chain of actions (intend, launch, stop); a longer one would be a loop in the plan."""
_STOP_AGAIN_SECONDS = 1.0
_STOP_UNCLEAR_SECONDS = 30.0
_FRESH_SECONDS = 5.0
"""How old a look at the record may be when a launch is sent on it."""
_FINAL_STATUS = {
    Hindrance.HELD: "held",
    Hindrance.BREAKER_OPEN: "breaker_open",
    **dict.fromkeys((Hindrance.NO_SLOT, Hindrance.NO_SLOT_OF_TYPE, Hindrance.NOT_ITS_TURN), "slot_unavailable"),
}
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
    callback_keys: Callable[[], KeyRing | None] = lambda: None
    """The keys of the workers' callback tokens as they are now; None where workers get none."""
    on_launch_failed: Callable[[Attempt, str], Awaitable[None]] = tell_nobody
    """Told of each launch that gave no worker, with its code."""
    on_launched: Callable[[Attempt], Awaitable[None]] = tell_nobody
    """Told of each launch that was accepted."""
    emit: Callable[[dict[str, Any]], None] = field(default=emit_summary)
    clock: Callable[[], float] = time.monotonic
    """Seconds that never go back, for the age of a look; deadlines go by the store's clock."""
    _orphans: dict[str, list[tuple[Launcher, str]]] = field(default_factory=dict, init=False)
    """By task: workers to be stopped that nobody works for. What is forgotten with this process is refused a claim."""

    async def reconcile(self, task_id: str) -> None:
        """Raises LaunchUnclear, StoreUnavailable and the queue's errors: the caller tries again later."""
        await self._stop_orphans(task_id)
        looked_at = self.clock()
        snapshot: Snapshot | None = await self.store.read(task_id)
        for _ in range(_TURNS):
            execution = snapshot.execution if snapshot else None
            if snapshot is None or execution is None:
                return
            limit_ms = _replay_limit_ms(self.launchers.get(execution.latest.launcher or ""))
            actions = plan(execution, now_ms=snapshot.now_ms, replay_limit_ms=limit_ms)
            if not actions:
                self._wake_when_due(snapshot)
                return
            if self.clock() - looked_at > _FRESH_SECONDS:
                # What is seen may have been given up meanwhile.
                looked_at, snapshot = self.clock(), await self.store.read(task_id)
                continue
            looked_at, snapshot = self.clock(), await self._act(snapshot, execution, actions[0])

    async def _act(self, seen: Snapshot, execution: Execution, action: Action) -> Snapshot | None:
        """Carry out one action. What is there after it; None when nothing more is to be done until we are woken."""
        match action:
            case IntendLaunch():
                return await self._intend(seen, execution)
            case LaunchWorker():
                return await self._launch(seen, execution, action.launch)
            case FindWorker():
                return await self._find(seen, execution, action.launch, "it was never answered")
            case StopWorker():
                return await self._stop(seen, execution, action)
            case PromoteRetry():
                return await self._promote(seen, execution)
            case ResendRetry():
                await self.commands.resend_retry(execution.task_id)
                return None

    async def _promote(self, seen: Snapshot, execution: Execution) -> Snapshot | None:
        launcher = self.commands.launcher
        done = await alter_seen(
            self.store,
            seen,
            lambda found, now_ms: promote(found, now_ms=now_ms, policy=self.policy, launcher=launcher),
        )
        following = done.following.execution if done.following else None
        if done.answer.reply is Reply.ACCEPTED and following is not None:
            part = self._slice(following, seen.now_ms)
            part.ok("promote")
            is_begun = following.latest.number > execution.latest.number
            self.emit(
                part.event(
                    "success" if is_begun else "skipped",
                    "retry_promoted" if is_begun else "retry_dropped",
                    now_ms=seen.now_ms,
                )
            )
        return done.following

    async def _intend(self, seen: Snapshot, execution: Execution) -> Snapshot | None:
        latest = execution.latest
        launcher = self._launcher(latest)
        if launcher is None:
            why = f"no controller here has the launcher {latest.launcher!r}"
            waiting = Waiting(reason=Reason.NO_LAUNCHER, message=why, since=seen.now_ms)
            await self._note_waiting(seen, execution, waiting, "no_launcher")
            return None
        try:
            order = self._order(execution, latest.launch_tries + 1)
            if not order.task:
                raise _payload_lost()
            request = launcher.prepare(order)
        except LaunchRefused as error:
            await alter_seen(self.store, seen, _ending(latest.number, error.code, str(error)))
            return None

        keys = self.callback_keys()

        def intend(found: Execution, now_ms: int) -> Execution:
            # Somebody may have suspended or cancelled it since: what is durable decides, not what was read before.
            if not any(isinstance(item, IntendLaunch) for item in plan(found, now_ms=now_ms)):
                return found
            return intend_launch(
                found,
                latest.number,
                token=order.token,
                request=request,
                now_ms=now_ms,
                policy=self.policy,
                callback_key=keys.current if keys else None,
            )

        admission = Admission(latest.launcher or "", self.policy.slots, self.policy.breaker)
        done = await alter_seen(self.store, seen, intend, admission=admission)
        if done.answer.reply is Reply.HINDERED:
            await self._wait(done.following or seen, Hindrance(str(done.answer.detail)))
        return done.following if done.answer.reply is Reply.ACCEPTED else None

    async def _wait(self, seen: Snapshot, hindrance: Hindrance) -> None:
        """Say why the launch does not begin; whoever makes room wakes us."""
        execution = seen.execution
        if execution is None:
            return
        latest = execution.latest
        if hindrance is Hindrance.HELD:
            hold = await self.store.held()
            why = f"on hold by {hold.by}: {hold.reason}" if hold else "on hold until a moment ago"
            waiting = Waiting(reason=Reason.HELD, message=why, since=seen.now_ms)
        elif hindrance is Hindrance.BREAKER_OPEN:
            waiting = Waiting(reason=Reason.BREAKER_OPEN, message=await self._why_barred(latest), since=seen.now_ms)
        else:
            standing = await self.store.standing()
            why = who_holds(standing, self.policy.slots, latest.task_type)
            waiting = Waiting(reason=Reason.SLOT_UNAVAILABLE, message=why, since=seen.now_ms)
        await self._note_waiting(seen, execution, waiting, _FINAL_STATUS[hindrance])

    async def _why_barred(self, attempt: Attempt) -> str:
        for breaker in await self.store.breakers():
            if (breaker.launcher, breaker.task_type) == (attempt.launcher, attempt.task_type):
                at = iso_from_ms(breaker.probe_at_ms)
                return (
                    f"launches of {breaker.task_type} with {breaker.launcher} fail with {breaker.code}; the next one "
                    f"is tried at {at}"
                )
        return "launches of its class failed until a moment ago"

    async def _note_waiting(self, seen: Snapshot, execution: Execution, waiting: Waiting, final_status: str) -> None:
        attempt = execution.latest.number
        done = await alter_seen(self.store, seen, lambda found, _: hindered(found, attempt, waiting))
        if done.answer.reply is Reply.ACCEPTED:
            part = self._slice(execution, seen.now_ms)
            part.left_out("launch")
            self.emit(part.event("skipped", final_status, now_ms=seen.now_ms))

    async def _launch(self, seen: Snapshot, execution: Execution, launch: Launch) -> Snapshot | None:
        launcher = self._launcher(execution.latest)
        if launcher is None:
            return None
        intent = self._intent(execution, launch)
        if not intent.order.task:
            return await self._find(seen, execution, launch, "its payload is lost")
        if launch.callback_key is not None and intent.order.callback_token is None:
            return await self._find(seen, execution, launch, "its callback token's key is gone")
        part = self._slice(execution, seen.now_ms)
        part.ok("intend")
        try:
            answer = await launcher.launch(intent)
        except LaunchRefused as refusal:
            after = await self._give_up(seen, execution, launch, launcher, refusal, part)
            if after is not None and after.execution is not None and not after.execution.latest.is_live:
                await self.on_launch_failed(execution.latest, refusal.code)
            return after
        except LaunchUnclear as error:
            part.failed("launch")
            self._finish(part, "launch_unclear", await self.store.now_ms(), error)
            raise
        return await self._note(seen, execution, launch, launcher, answer, part)

    async def _find(self, seen: Snapshot, execution: Execution, launch: Launch, problem: str) -> Snapshot | None:
        """A launch that can no longer be proven safe is never sent: what it started is found, or it is given up."""
        launcher = self._launcher(execution.latest)
        if launcher is None:
            return None
        worker_id = await launcher.find(self._intent(execution, launch))
        part = self._slice(execution, seen.now_ms)
        part.ok("intend")
        if worker_id is not None:
            return await self._note(seen, execution, launch, launcher, Launched(worker_id, Rung.LISTED), part)
        if execution.latest.task_snapshot:
            minutes = (seen.now_ms - launch.intent_at) // 60_000
            refusal = LaunchRefused(
                f"the launch could not be proven: it was written down {minutes} min ago, {problem}, no worker of it is "
                "found, and sent again it could start a second one; retry the task",
                code="START_TIMEOUT",
                permanent=True,
            )
        else:
            refusal = _payload_lost()
        return await self._give_up(seen, execution, launch, launcher, refusal, part)

    async def _give_up(
        self,
        seen: Snapshot,
        execution: Execution,
        launch: Launch,
        launcher: Launcher,
        refusal: LaunchRefused,
        part: Slice,
    ) -> Snapshot | None:
        """The launch provably has no worker."""

        def given_up(found: Execution, now_ms: int) -> Execution:
            if found.latest.worker_id is not None:
                # Another controller was told of a worker: refused was only our own sending of the launch.
                return found
            return launch_failed(
                found,
                execution.latest.number,
                launch.launch_try,
                code=refusal.code,
                message=str(refusal),
                permanent=refusal.permanent,
                now_ms=now_ms,
                policy=self.policy,
                evidence=_evidence(launcher, str(refusal), now_ms),
            )

        after = (await alter_seen(self.store, seen, given_up)).following
        part.failed("launch")
        self._finish(part, "launch_refused", after.now_ms if after else seen.now_ms, refusal)
        return after

    async def _note(
        self,
        seen: Snapshot,
        execution: Execution,
        launch: Launch,
        launcher: Launcher,
        answer: Launched,
        part: Slice,
    ) -> Snapshot | None:
        """Record the worker of a launch, or stop it when its launch was answered too late."""
        task_id, attempt = execution.task_id, execution.latest.number

        def note(found: Execution, now_ms: int) -> Execution:
            return launched(
                found,
                attempt,
                launch.launch_try,
                worker_id=answer.worker_id,
                now_ms=now_ms,
                rung=answer.rung,
                evidence=_evidence(launcher, answer.detail, now_ms) if answer.detail else (),
            )

        part.ok("launch")
        after = (await alter_seen(self.store, seen, note)).following
        part.ok("record")
        await self.on_launched(execution.latest)
        self._finish(part, "launched", after.now_ms if after else seen.now_ms)
        if is_orphan(after.execution if after else None, launch.token, answer.worker_id):
            _log.warning("A launch was answered too late; its worker is stopped", task_id=task_id, attempt=attempt)
            self._orphans.setdefault(task_id, []).append((launcher, answer.worker_id))
            await self._stop_orphans(task_id)
        return after

    async def _stop_orphans(self, task_id: str) -> None:
        """Ask those of a task until they are gone."""
        left = list[tuple[Launcher, str]]()
        again_seconds = _STOP_AGAIN_SECONDS
        for launcher, worker_id in self._orphans.pop(task_id, []):
            try:
                if await launcher.stop(worker_id, "its launch was answered too late"):
                    continue
            except LaunchUnclear as error:
                again_seconds = _STOP_UNCLEAR_SECONDS
                _log.warning("An orphan could not be stopped yet", task_id=task_id, reason=str(error))
            left.append((launcher, worker_id))
        if left:
            self._orphans[task_id] = left
            self.wake_after(task_id, again_seconds)

    async def _stop(self, seen: Snapshot, execution: Execution, action: StopWorker) -> Snapshot | None:
        launcher = self._launcher(execution.latest)
        reason = action.reason
        if launcher is None:
            # Somebody wants it ended, and nobody here can reach its worker: it ends, and says so.
            reason = f"{reason} (its worker was not stopped: no launcher {execution.latest.launcher!r} here)"
        elif not await launcher.stop(action.worker_id, reason):
            self.wake_after(execution.task_id, _STOP_AGAIN_SECONDS)
            return None
        done = await alter_seen(
            self.store,
            seen,
            lambda found, now_ms: ended(found, action.attempt, Status.CANCELLED, now_ms=now_ms, message=reason),
        )
        return done.following

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

    def _intent(self, execution: Execution, launch: Launch) -> LaunchIntent:
        """What was written down, to be sent or found."""
        # The token that is written down, and not one computed anew: only it finds a worker that was started.
        keys, attempt = self.callback_keys(), execution.latest.number
        callback_token = keys.token(execution.task_id, attempt, launch) if keys else None
        order = replace(self._order(execution, launch.launch_try), token=launch.token, callback_token=callback_token)
        return LaunchIntent(order, launch.request)

    def _order(self, execution: Execution, launch_try: int) -> LaunchOrder:
        latest = execution.latest
        return LaunchOrder(
            task_id=execution.task_id,
            task_type=latest.task_type,
            attempt=latest.number,
            launch_try=launch_try,
            trace_id=latest.trace_id or execution.task_id,
            token=launch_token(
                self.token_prefix, execution.task_id, execution.state.incarnation, latest.number, launch_try
            ),
            task=message_for_worker(latest),
        )

    def _wake_when_due(self, snapshot: Snapshot) -> None:
        execution = snapshot.execution
        due_ms = index_scores(execution)[Index.DUE] if execution else None
        # Only for what lies ahead: what holds a launch back after its time (a suspension) wakes us by itself.
        if due_ms is not None and due_ms > snapshot.now_ms:
            self.wake_after(snapshot.task_id, (due_ms - snapshot.now_ms) / 1000)

    def _slice(self, execution: Execution, started_ms: int) -> Slice:
        latest = execution.latest
        try:
            part = Slice.of_task("orchestrator", task_from_document(latest.task_snapshot), started_ms)
        except InvalidTask:
            part = Slice("orchestrator", latest.task_type, latest.trace_id or latest.task_id, started_ms)
            part.task_id, part.task_type = latest.task_id, latest.task_type
        return part

    def _finish(self, part: Slice, final_status: str, now_ms: int, error: Exception | None = None) -> None:
        if error is None:
            self.emit(part.event("success", final_status, now_ms=now_ms))
            return
        name, text = type(error).__name__, str(error)
        self.emit(part.event("error", final_status, now_ms=now_ms, error_type=name, error_message=text))


def _replay_limit_ms(launcher: Launcher | None) -> int | None:
    """The launcher's own limit where it names one; a launcher that says nothing gets that of ECS."""
    limit_ms: int | None = getattr(launcher, "replay_limit_ms", REPLAY_LIMIT_MS)
    return limit_ms


def _payload_lost() -> LaunchRefused:
    return LaunchRefused("the task's payload is lost", code="PAYLOAD_LOST", permanent=True)


def _evidence(launcher: Launcher, detail: str, now_ms: int) -> tuple[Evidence, ...]:
    return (Evidence(source=f"{launcher.name}:launch", observed_at=now_ms, detail=detail),)


def _ending(attempt: int, code: str, message: str) -> Callable[[Execution, int], Execution]:
    def end(found: Execution, now_ms: int) -> Execution:
        return ended(found, attempt, Status.FAILED, now_ms=now_ms, code=code, message=message)

    return end
