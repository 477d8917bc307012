"""The sweep: looks at live workers, judges those that are gone, and wakes what was missed.

What a look means is decided in ``executions.evidence``; an error of a launcher's API is logged and judges nobody.
Launchers are looked through side by side, so one that hangs keeps no other waiting, and those workers first that were
not seen for the longest, so a launcher that answers only some calls leaves none out for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from controller.breakers import tell_nobody
from executions.answer import Reply
from executions.errors import AlakaiError, LaunchUnclear, StoreUnavailable
from executions.evidence import Fate, Observation, Verdict, WorkerState, judge, report_is_overdue
from executions.index import Index
from executions.lifecycle import ended, launch_failed, report_counts, stop_ordered, suspect
from executions.operations.transact import alter
from executions.policy import Policy
from executions.ports import Launcher, Snapshot, Store
from executions.record import Attempt, Execution, Status

LOOK_BATCH = 100
"""ECS DescribeTasks takes at most 100 tasks (botocore service model)."""
_READ_BATCH = 200
_EVERYTHING = 1_000_000
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Watched:
    """A worker to look at, and the attempt that it works for as it was read, without its payload."""

    task_id: str
    incarnation: str
    attempt: Attempt
    read_ms: int


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
    on_launch_failed: Callable[[Attempt, str], Awaitable[None]] = tell_nobody
    """Told of each worker that was judged to have never started, with the code."""
    on_started: Callable[[Attempt], Awaitable[None]] = tell_nobody
    """Told of each worker that is seen at work."""
    answer_seconds: float = 60
    """For one call to a launcher; it counts as failed after that."""
    patience_seconds: float = 10
    """How long a pass waits for its launchers before it ends without those that are still busy."""
    _has_woken_all: bool = field(default=False, init=False)
    _passed_at: float = field(default_factory=time.monotonic, init=False)
    _looked_ms: dict[str, int] = field(default_factory=dict, init=False)
    _alive_ms: dict[str, int] = field(default_factory=dict, init=False)
    """By worker: when it was last looked at, and when last seen alive. Only sharpens verdicts, so it may be lost."""
    _busy: dict[str, set[asyncio.Task[None]]] = field(default_factory=lambda: defaultdict(set), init=False)

    async def run(self, interval_seconds: float, beat: Callable[[], None] = lambda: None) -> None:
        """Sweep for ever. A failed pass is logged and followed by the next."""
        try:
            while True:
                beat()
                try:
                    await self.pass_once()
                except AlakaiError as error:
                    _log.warning("Sweep ended early", reason=str(error))
                except Exception:
                    _log.exception("Sweep failed")
                await asyncio.sleep(interval_seconds)
        finally:
            looks = [look for looks in self._busy.values() for look in looks]
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    @property
    def age_seconds(self) -> float:
        """Since the last pass ended, or since there was none."""
        return time.monotonic() - self._passed_at

    async def pass_once(self) -> None:
        await self.wake_waiting()
        wanted = await self._wanted(await self.store.members(Index.LIVE, limit=_EVERYTHING))
        live = {worker_id for watched in wanted.values() for worker_id in watched}
        for memory in (self._looked_ms, self._alive_ms):
            for worker_id in memory.keys() - live:
                del memory[worker_id]
        await self._look(wanted)
        self._passed_at = time.monotonic()

    async def look_at(self, task_ids: Sequence[str]) -> None:
        """What a pass does, for these tasks only and now. Those without a live attempt are passed over."""
        await self._look(await self._wanted(task_ids))

    async def wake_waiting(self) -> None:
        """Wake what waits for a launch or is due, in the order of age: a missed watch event delays, never loses."""
        now_ms = await self.store.now_ms()
        due = await self.store.members(Index.DUE, up_to_ms=now_ms, limit=_EVERYTHING)
        for task_id in due + await self._whose_turn_it_is(now_ms):
            self.wake(task_id)

    async def _whose_turn_it_is(self, now_ms: int) -> list[str]:
        """Of those that wait: all in the first pass, so that each knows why it waits.

        Later nobody during a hold, and with limits nobody either: the line wakes those that there is room for.
        """
        is_first, self._has_woken_all = not self._has_woken_all, True
        if not is_first and (self.policy.slots.is_limited or await self.store.held()):
            return []
        return await self.store.members(Index.WAITING, up_to_ms=now_ms, limit=_EVERYTHING)

    async def _wanted(self, task_ids: Sequence[str]) -> dict[str, dict[str, _Watched]]:
        """The workers of live attempts, by launcher; wakes what has no worker yet or is to be stopped."""
        wanted: dict[str, dict[str, _Watched]] = defaultdict(dict)
        for start in range(0, len(task_ids), _READ_BATCH):
            for snapshot in await self.store.read_many(task_ids[start : start + _READ_BATCH]):
                self._sort(snapshot, wanted)
        return wanted

    def _sort(self, snapshot: Snapshot, wanted: dict[str, dict[str, _Watched]]) -> None:
        execution = snapshot.execution
        if execution is None or not execution.latest.is_live:
            return
        latest = execution.latest
        if latest.worker_id is None or execution.state.cancellation is not None:
            self.wake(snapshot.task_id)
        if latest.worker_id is not None:
            # Thousands of attempts are held at once, and a payload may have a megabyte.
            attempt = latest.model_copy(update={"task_snapshot": None})
            watched = _Watched(snapshot.task_id, execution.state.incarnation, attempt, snapshot.now_ms)
            wanted[latest.launcher or ""][latest.worker_id] = watched

    async def _look(self, wanted: Mapping[str, Mapping[str, _Watched]]) -> None:
        looks = set[asyncio.Task[None]]()
        for name, watched in wanted.items():
            launcher = self.launchers.get(name)
            if launcher is None:
                _log.warning("No launcher of this name here; its workers are not looked at", launcher=name)
                looks.add(asyncio.create_task(_guarded(name, self._count_overdue_reports(watched.values())), name=name))
            elif self._busy[name]:
                _log.warning("The launcher has not answered the last looks yet; no more are sent", launcher=name)
            else:
                looks.add(asyncio.create_task(_guarded(name, self._look_through(launcher, watched)), name=name))
        if not looks:
            return
        try:
            _, late = await asyncio.wait(looks, timeout=self.patience_seconds)
        except asyncio.CancelledError:
            for look in looks:
                look.cancel()
            raise
        for look in late:
            self._busy[look.get_name()].add(look)
            look.add_done_callback(self._busy[look.get_name()].discard)

    async def _look_through(self, launcher: Launcher, watched: Mapping[str, _Watched]) -> None:
        """All workers of one launcher, in full batches."""
        ids = sorted(watched, key=lambda worker_id: self._looked_ms.get(worker_id, 0))
        for start in range(0, len(ids), LOOK_BATCH):
            try:
                async with asyncio.timeout(self.answer_seconds):
                    observations = await launcher.observe(ids[start : start + LOOK_BATCH])
            except LaunchUnclear as error:
                _log.warning("Workers could not be looked at", launcher=launcher.name, reason=str(error))
                continue
            for observation in observations:
                if (one := watched.get(observation.worker_id)) is not None:
                    await self._apply(launcher, one, observation)

    async def _apply(self, launcher: Launcher, watched: _Watched, observation: Observation) -> None:
        self._looked_ms[observation.worker_id] = watched.read_ms
        verdict = self._verdict(watched.attempt, observation, watched.read_ms)
        if observation.state.is_present and verdict.fate is not Fate.SUSPECTED:  # else perhaps an overtaken answer
            self._alive_ms[observation.worker_id] = watched.read_ms
        if observation.state is WorkerState.RUNNING:
            await self.on_started(watched.attempt)
        if verdict.fate is Fate.ALIVE and watched.attempt.suspicion is None:
            return  # Most looks show a worker that runs: they cost no commit.
        after: Execution | None = None

        def judged(found: Execution, now_ms: int) -> Execution:
            nonlocal after
            is_same = found.latest.worker_id == observation.worker_id and found.latest.is_live
            after = self._judged(found, observation, now_ms) if is_same else found
            return after

        reply = await self._alter(watched, judged)
        if after is None:
            return
        latest = after.latest
        if reply is Reply.ACCEPTED and latest.status is not Status.RUNNING:
            spoken = latest.verdict
            if spoken is not None and spoken.kind == "never_started":
                await self.on_launch_failed(watched.attempt, spoken.code)
            _log.info(
                "Worker judged", task_id=watched.task_id, attempt=latest.number, status=latest.status,
                grade=spoken.grade if spoken else None, code=latest.error_code, seen=observation.detail,
            )  # fmt: skip
            self.wake(watched.task_id)
        if latest.is_live and latest.stop is not None and latest.worker_id == observation.worker_id:
            await self._stop(launcher, latest)

    def _judged(self, execution: Execution, observation: Observation, now_ms: int) -> Execution:
        latest, cancellation = execution.latest, execution.state.cancellation
        verdict = self._verdict(latest, observation, now_ms)
        spoken, evidence = verdict.spoken, verdict.suspicion.evidence if verdict.suspicion else []
        is_cancelled = cancellation is not None and cancellation.attempt == latest.number
        # A worker that the launcher does not know may be one that is only just starting: that needs further looks.
        if is_cancelled and cancellation and (observation.state is WorkerState.STOPPED or spoken):
            return ended(execution, latest.number, Status.CANCELLED, now_ms=now_ms, message=cancellation.reason)
        if verdict.stop is not None and not is_cancelled:
            return stop_ordered(execution, latest.number, verdict.stop)
        if verdict.fate in (Fate.ALIVE, Fate.STOP):
            return suspect(execution, latest.number, suspicion=None)
        if verdict.fate is Fate.SUSPECTED or not self.may_judge(now_ms):
            return suspect(execution, latest.number, suspicion=verdict.suspicion)
        if spoken is None:
            said = suspect(execution, latest.number, suspicion=verdict.suspicion)
            return report_counts(said, latest.number, now_ms=now_ms)
        if verdict.fate is Fate.LOST:
            return ended(
                execution,
                latest.number,
                Status.FAILED,
                now_ms=now_ms,
                code=spoken.code,
                message=spoken.message,
                evidence=evidence,
                verdict=spoken,
            )
        return launch_failed(
            execution,
            latest.number,
            latest.launch.launch_try if latest.launch else 0,
            code=spoken.code,
            message=spoken.message,
            permanent=verdict.is_permanent,
            now_ms=now_ms,
            policy=self.policy,
            evidence=evidence,
            verdict=spoken,
        )

    def _verdict(self, attempt: Attempt, observation: Observation, now_ms: int) -> Verdict:
        alive_ms = self._alive_ms.get(observation.worker_id)
        return judge(attempt, observation, now_ms=now_ms, policy=self.policy, seen_alive_ms=alive_ms)

    async def _count_overdue_reports(self, unreachable: Iterable[_Watched]) -> None:
        """Nobody here can look at these workers: who said that it was told to stop is taken at its word."""

        def counted(found: Execution, now_ms: int) -> Execution:
            latest = found.latest
            is_due = report_is_overdue(latest.suspicion, now_ms, self.policy) and self.may_judge(now_ms)
            return report_counts(found, latest.number, now_ms=now_ms) if is_due else found

        for watched in unreachable:
            if report_is_overdue(watched.attempt.suspicion, watched.read_ms, self.policy):
                await self._alter(watched, counted)

    async def _alter(self, watched: _Watched, following: Callable[[Execution, int], Execution]) -> Reply | None:
        """Commit; None when just this record cannot be changed, which must not keep others from their verdict."""
        try:
            return (await alter(self.store, watched.task_id, following, incarnation=watched.incarnation)).reply
        except StoreUnavailable:
            raise
        except AlakaiError as error:
            _log.warning("A worker could not be judged", task_id=watched.task_id, reason=str(error))
            return None

    async def _stop(self, launcher: Launcher, attempt: Attempt) -> None:
        """A worker that cannot be stopped now is tried again at the next look; it must not keep others from theirs.

        Raises TimeoutError: the next pass begins with the workers that this one did not come to.
        """
        if attempt.worker_id is None or attempt.stop is None:
            return
        reason = f"the attempt is past its deadline ({attempt.stop.code})"
        try:
            async with asyncio.timeout(self.answer_seconds):
                await launcher.stop(attempt.worker_id, reason)
        except AlakaiError as error:
            _log.warning(
                "A worker could not be stopped", launcher=launcher.name, worker_id=attempt.worker_id, reason=str(error)
            )


async def _guarded(launcher: str, work: Awaitable[None]) -> None:
    """What goes wrong with one launcher ends the pass for its workers only."""
    try:
        await work
    except TimeoutError:
        _log.warning("The launcher does not answer in time", launcher=launcher)
    except AlakaiError as error:
        _log.warning("Sweep ended early", launcher=launcher, reason=str(error))
    except Exception:
        _log.exception("Sweep failed", launcher=launcher)
