"""The sweep: looks at live workers, judges those that are gone, and wakes what was missed.

What a look means is decided in ``executions.evidence``; an error of a launcher's API is logged and judges nobody.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from executions.answer import Reply
from executions.errors import AlakaiError
from executions.evidence import Fate, Observation, Verdict, WorkerState, judge
from executions.index import Index
from executions.lifecycle import ended, launch_failed, suspect
from executions.operations.transact import alter
from executions.policy import Policy
from executions.ports import Launcher, Snapshot, Store
from executions.record import Attempt, Execution, Status

LOOK_BATCH = 100
"""ECS DescribeTasks takes at most 100 tasks (botocore service model)."""
_READ_BATCH = 200
_EVERYTHING = 1_000_000
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Sweep:
    """One pass over everything that is not finished."""

    store: Store
    launchers: Mapping[str, Launcher]
    policy: Policy
    wake: Callable[[str], None]
    """Reconcile the task soon."""
    may_judge: Callable[[int], bool] = lambda _: True
    """Whether loss verdicts may be spoken at this time (ms): not while kept outcomes may still be waiting."""

    async def run(self, interval_seconds: float, beat: Callable[[], None] = lambda: None) -> None:
        """Sweep for ever. A failed pass is logged and followed by the next."""
        while True:
            beat()
            try:
                await self.pass_once()
            except AlakaiError as error:
                _log.warning("Sweep ended early", reason=str(error))
            except Exception:
                _log.exception("Sweep failed")
            await asyncio.sleep(interval_seconds)

    async def pass_once(self) -> None:
        await self.wake_waiting()
        await self.look_at(await self.store.members(Index.LIVE, limit=_EVERYTHING))

    async def look_at(self, task_ids: Sequence[str]) -> None:
        """What a pass does, for these tasks only and now. Those without a live attempt are passed over."""
        to_look_at: dict[str, dict[str, Snapshot]] = defaultdict(dict)
        for start in range(0, len(task_ids), _READ_BATCH):
            for snapshot in await self.store.read_many(task_ids[start : start + _READ_BATCH]):
                self._sort(snapshot, to_look_at)
            # Only full batches, so that n workers cost as few calls of the launcher's API as can be.
            await self._look(to_look_at, at_least=LOOK_BATCH)
        await self._look(to_look_at, at_least=1)

    async def wake_waiting(self) -> None:
        """Wake what waits for a launch or is due, in the order of age: a missed watch event delays, never loses."""
        now_ms = await self.store.now_ms()
        for index in (Index.DUE, Index.WAITING):
            for task_id in await self.store.members(index, up_to_ms=now_ms, limit=_EVERYTHING):
                self.wake(task_id)

    def _sort(self, snapshot: Snapshot, to_look_at: dict[str, dict[str, Snapshot]]) -> None:
        """Note the worker under its launcher; wake what has no worker yet or is to be stopped."""
        execution = snapshot.execution
        if execution is None or not execution.latest.is_live:
            return
        latest = execution.latest
        if latest.worker_id is None or execution.state.cancellation is not None:
            self.wake(snapshot.task_id)
        if latest.worker_id is not None:
            to_look_at[latest.launcher or ""][latest.worker_id] = snapshot

    async def _look(self, to_look_at: dict[str, dict[str, Snapshot]], *, at_least: int) -> None:
        for name, seen in to_look_at.items():
            launcher = self.launchers.get(name)
            if launcher is None:
                if seen:
                    _log.warning("No launcher of this name here; its workers are not looked at", launcher=name)
                seen.clear()
                continue
            while len(seen) >= at_least:
                ids = list(seen)[:LOOK_BATCH]
                await self._observe(launcher, ids, {worker_id: seen.pop(worker_id) for worker_id in ids})

    async def _observe(self, launcher: Launcher, ids: list[str], seen: Mapping[str, Snapshot]) -> None:
        try:
            observations = await launcher.observe(ids)
        except AlakaiError as error:
            _log.warning("Workers could not be looked at", launcher=launcher.name, reason=str(error))
            return
        for observation in observations:
            snapshot = seen.get(observation.worker_id)
            if snapshot is not None:
                await self._apply(launcher, snapshot, observation)

    async def _apply(self, launcher: Launcher, snapshot: Snapshot, observation: Observation) -> None:
        execution = snapshot.execution
        if execution is None or not self._says_something(execution, observation, snapshot.now_ms):
            return

        def judged(found: Execution, now_ms: int) -> Execution:
            is_same = found.latest.worker_id == observation.worker_id and found.latest.is_live
            return self._judged(found, observation, now_ms) if is_same else found

        answer = await alter(self.store, snapshot.task_id, judged, incarnation=execution.state.incarnation)
        if answer.reply is Reply.ACCEPTED and answer.status != Status.RUNNING:
            _log.info(
                "Worker judged", task_id=snapshot.task_id, attempt=answer.attempt, status=answer.status,
                seen=observation.detail,
            )  # fmt: skip
            self.wake(snapshot.task_id)
        if self._verdict(execution.latest, observation, snapshot.now_ms).fate is Fate.STOP:
            await _stop(launcher, observation.worker_id)

    def _says_something(self, execution: Execution, observation: Observation, now_ms: int) -> bool:
        """Most looks show a worker that runs: they cost no commit."""
        latest = execution.latest
        fate = self._verdict(latest, observation, now_ms).fate
        return fate is not Fate.ALIVE or latest.suspicion is not None

    def _judged(self, execution: Execution, observation: Observation, now_ms: int) -> Execution:
        latest = execution.latest
        cancellation = execution.state.cancellation
        verdict = self._verdict(latest, observation, now_ms)
        # A worker that the launcher does not know may be one that is only just starting: that needs a second look.
        is_gone = observation.state is WorkerState.STOPPED or verdict.fate is Fate.LOST
        if is_gone and cancellation is not None and cancellation.attempt == latest.number:
            return ended(execution, latest.number, Status.CANCELLED, now_ms=now_ms, message=cancellation.reason)
        match verdict.fate:
            case Fate.ALIVE | Fate.STOP:
                return suspect(execution, latest.number, suspicion=None)
            case Fate.SUSPECTED:
                return suspect(execution, latest.number, suspicion=verdict.suspicion)
            case Fate.NEVER_STARTED | Fate.LOST if not self.may_judge(now_ms):
                return suspect(execution, latest.number, suspicion=verdict.suspicion)
            case Fate.NEVER_STARTED:
                return launch_failed(
                    execution,
                    latest.number,
                    latest.launch.launch_try if latest.launch else 0,
                    code=verdict.code or "WORKER_NEVER_STARTED",
                    message=verdict.message or "the worker never started",
                    permanent=False,
                    now_ms=now_ms,
                    policy=self.policy,
                    evidence=verdict.evidence,
                )
            case Fate.LOST:
                return ended(
                    execution,
                    latest.number,
                    Status.FAILED,
                    now_ms=now_ms,
                    code=verdict.code,
                    message=verdict.message,
                    evidence=verdict.evidence,
                )

    def _verdict(self, attempt: Attempt, observation: Observation, now_ms: int) -> Verdict:
        return judge(attempt, observation, now_ms=now_ms, policy=self.policy)


async def _stop(launcher: Launcher, worker_id: str) -> None:
    """A worker that cannot be stopped now is tried again at the next look; it must not keep others from theirs."""
    try:
        await launcher.stop(worker_id, "the attempt is past its deadline")
    except AlakaiError as error:
        _log.warning("A worker could not be stopped", launcher=launcher.name, worker_id=worker_id, reason=str(error))
