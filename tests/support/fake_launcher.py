"""A launcher in memory for the reconciler's tests: what it is asked is recorded, what it answers is told beforehand."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Literal

from executions.errors import LaunchRefused, LaunchUnclear
from executions.evidence import Observation, WorkerState
from executions.plan import REPLAY_LIMIT_MS
from executions.ports import Launched, LaunchIntent, LaunchOrder
from executions.record import Rung

SOURCE = "fake"


class FakeLauncher:
    """Keeps the launcher's contract, and misbehaves only as told.

    ``calls`` holds every call in order as (method, token or worker id, …); ``starts`` counts the workers that were
    really started by token, ``alive`` the ids of those that run.
    """

    name = "fake"

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.intents: list[LaunchIntent] = []
        self.starts: Counter[str] = Counter()
        self.alive: set[str] = set()
        self.is_closed = False
        self.is_blind = False
        """``observe`` and ``find`` fail as a whole."""
        self.replay_limit_ms: int | None = REPLAY_LIMIT_MS
        self.stop_calls_needed = 1
        """How often a worker must be asked to stop until it is gone; the call after that says so."""
        self.order_refusal: LaunchRefused | None = None
        """What ``prepare`` raises."""
        self._script: deque[LaunchRefused | Literal["reply lost", "request lost"]] = deque()
        self._seen: dict[str, Observation] = {}
        self._forgotten: set[str] = set()
        self._overlooked: set[str] = set()
        self._stop_calls: Counter[str] = Counter()

    # What the test tells beforehand

    def lose_reply(self, times: int = 1) -> None:
        """The next launches start their worker and raise LaunchUnclear."""
        self._script.extend(["reply lost"] * times)

    def lose_request(self, times: int = 1) -> None:
        """The next launches start nothing and raise LaunchUnclear."""
        self._script.extend(["request lost"] * times)

    def refuse(self, code: str = "LAUNCH_CAPACITY", *, permanent: bool = False, times: int = 1) -> None:
        """The next launches are refused."""
        self._script.extend([LaunchRefused("no room", code=code, permanent=permanent)] * times)

    def see(
        self,
        worker_id: str,
        state: WorkerState,
        detail: str = "as told",
        *,
        exit_code: int | None = None,
        never_started: bool = False,
        code: str | None = None,
    ) -> None:
        """What every further look at a worker shows."""
        self._seen[worker_id] = Observation(worker_id, state, SOURCE, detail, exit_code, never_started, code)
        if state in (WorkerState.STARTING, WorkerState.RUNNING):
            self.alive.add(worker_id)
        else:
            self.alive.discard(worker_id)

    def forget(self, token: str) -> None:
        """From now on the token counts as never used, so that a replay starts a second worker."""
        self._forgotten.add(token)

    def overlook(self, worker_id: str, *, overlooked: bool = True) -> None:
        """Further looks leave the worker out, as after an error about it alone."""
        (self._overlooked.add if overlooked else self._overlooked.discard)(worker_id)

    def end(self, worker_id: str, exit_code: int = 1) -> None:
        """The worker stops by itself, without a callback."""
        self.see(worker_id, WorkerState.STOPPED, f"exit code {exit_code}", exit_code=exit_code)

    @staticmethod
    def worker_of(token: str) -> str:
        return f"fake/{token}"

    # ports.Launcher

    def prepare(self, order: LaunchOrder) -> dict[str, Any]:
        if self.order_refusal is not None:
            raise self.order_refusal
        return {"image": f"worker-{order.task_type}"}

    async def launch(self, intent: LaunchIntent) -> Launched:
        token = intent.order.token
        self.calls.append(("launch", token))
        for earlier in self.intents:
            if earlier.order.token == token and earlier != intent:
                raise AssertionError("a replay must send the very same order and request")
        self.intents.append(intent)
        scripted = self._script.popleft() if self._script else None
        if isinstance(scripted, LaunchRefused):
            raise scripted
        if scripted == "request lost":
            raise LaunchUnclear("the request was lost")
        worker_id = self.worker_of(token)
        if not self.starts[token] or token in self._forgotten:
            self._forgotten.discard(token)
            self.starts[token] += 1
            self.see(worker_id, WorkerState.RUNNING)
        if scripted == "reply lost":
            raise LaunchUnclear("the reply was lost")
        return Launched(worker_id, Rung.SENT)

    async def find(self, intent: LaunchIntent) -> str | None:
        token = intent.order.token
        self.calls.append(("find", token))
        if self.is_blind:
            raise LaunchUnclear("nothing could be looked at")
        return self.worker_of(token) if self.starts[token] else None

    async def observe(self, worker_ids: Sequence[str]) -> list[Observation]:
        self.calls.append(("observe", *worker_ids))
        if self.is_blind:
            raise LaunchUnclear("nothing could be looked at")
        unknown = [Observation(worker_id, WorkerState.MISSING, SOURCE, "never heard of") for worker_id in worker_ids]
        return [self._seen.get(item.worker_id, item) for item in unknown if item.worker_id not in self._overlooked]

    async def stop(self, worker_id: str, reason: str) -> bool:
        self.calls.append(("stop", worker_id, reason))
        if worker_id not in self.alive:
            return True
        self._stop_calls[worker_id] += 1
        if self._stop_calls[worker_id] >= self.stop_calls_needed:
            self.see(worker_id, WorkerState.STOPPED, f"stopped: {reason}", exit_code=143)
        return False

    async def close(self) -> None:
        self.is_closed = True
