"""Controllers on ECS for tests: real reconciler, sweep and launcher, a store in memory, moto behind the shim."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from controller.loops.sweep import Sweep
from controller.reconciler import Reconciler
from executions.adapters.ecs_client import EcsClient
from executions.adapters.ecs_launcher import EcsLauncher
from executions.answer import Answer, Reply
from executions.errors import AlakaiError
from executions.operations.commands import Commands
from executions.operations.transact import alter
from executions.policy import Policy
from executions.ports import Launched, LaunchIntent
from executions.record import Execution
from tests.support.builders import POLICY
from tests.support.ecs_shim import EcsShim
from tests.support.ecs_world import REGION, SETTINGS, EcsWorld
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore


class Crash(Exception):
    """The controller ends here."""


class CrashingLauncher(EcsLauncher):
    """Ends the controller around its next launch, or lets something happen before the answer is handed over."""

    dies_before = False
    dies_after = False
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def launch(self, intent: LaunchIntent) -> Launched:
        if self.dies_before:
            raise Crash
        answer = await super().launch(intent)
        if self.dies_after:
            raise Crash
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            await happens()
        return answer


@dataclass
class EcsController:
    """A store in memory, reconcilers on it one after the other, and ECS."""

    ecs: EcsWorld
    policy: Policy = POLICY
    store: MemoryStore = field(default_factory=MemoryStore)
    wakes: list[float] = field(default_factory=list)
    opened: list[CrashingLauncher] = field(default_factory=list)

    @property
    def shim(self) -> EcsShim:
        return self.ecs.shim

    def controller(self) -> tuple[Reconciler, CrashingLauncher]:
        """A controller after its start."""
        launcher = CrashingLauncher(
            self.ecs.ecs_settings,
            EcsClient(region=REGION, endpoint_url=self.shim.url),
            SETTINGS,
            self.ecs.payloads,
            look_again_seconds=0.01,
        )
        self.opened.append(launcher)
        commands = Commands(self.store, MemoryQueue(), self.policy, "ecs")
        reconciler = Reconciler(
            store=self.store,
            commands=commands,
            launchers={"ecs": launcher},
            policy=self.policy,
            token_prefix="prefix",
            wake_after=lambda _, seconds: self.wakes.append(seconds),
            emit=lambda _: None,
        )
        return reconciler, launcher

    async def put(self, execution: Execution) -> None:
        await self.store.commit(await self.store.read("task-1"), execution, Answer(Reply.ACCEPTED, "task-1"))

    async def found(self) -> Execution:
        execution = (await self.store.read("task-1")).execution
        assert execution is not None
        return execution

    async def alter(self, following: Callable[[Execution], Execution]) -> None:
        await alter(self.store, "task-1", lambda found, _: following(found))

    async def settle(self, reconciler: Reconciler | None = None) -> Execution:
        """Reconcile until nothing is left to do. Time passes as it asks for."""
        reconciler = reconciler or self.controller()[0]
        for _ in range(50):
            try:
                await reconciler.reconcile("task-1")
            except AlakaiError:
                continue
            if not self.wakes:
                return await self.found()
            self.pass_time(max(self.wakes))
            self.wakes.clear()
        raise AssertionError("it never settles")

    async def sweep(self) -> Execution:
        """One pass over the workers, and what follows from it."""
        reconciler, launcher = self.controller()
        await Sweep(self.store, {"ecs": launcher}, self.policy, lambda _: None).pass_once()
        return await self.settle(reconciler)

    def pass_time(self, seconds: float) -> None:
        self.shim.advance(seconds)
        self.store.now += round(seconds * 1000)

    def alive(self) -> list[str]:
        started = {item.token for item in self.shim.launches}
        return [arn for token in started for arn in self.shim.alive(token)]

    async def close(self) -> None:
        for launcher in (*self.opened, self.ecs.launcher):
            await launcher.close()
