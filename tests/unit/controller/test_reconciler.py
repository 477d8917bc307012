"""The reconciler with fakes: what it does for a record, and that a crash between any two actions changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import pytest

from controller.reconciler import Reconciler
from executions.answer import Answer, Reply
from executions.callback_token import KeyRing
from executions.control import cancel, suspend
from executions.errors import AlakaiError, LaunchRefused, LaunchUnclear, QueueUnavailable, StoreUnavailable
from executions.lifecycle import intend_launch, launched, record_outcome
from executions.names import launch_token
from executions.operations.commands import Commands
from executions.operations.transact import alter
from executions.policy import Policy
from executions.ports import CommitResult, Launched, LaunchIntent, Operation, Snapshot
from executions.record import Execution, Status
from executions.retry import request_retry
from tests.support.builders import NOW_MS, POLICY, a_task, intended, pending, running, task_document
from tests.support.fake_launcher import FakeLauncher
from tests.support.memory_queue import MemoryQueue
from tests.support.memory_store import MemoryStore
from tests.unit.domain.states import by_hand, cancelling, claimed_again, failed, outcome, succeeded

Answered = TypeVar("Answered")
ANSWER = Answer(Reply.ACCEPTED, "task-1")
WORKER = "fake/" + "t" * 64


@dataclass
class World:
    """A reconciler and all that it touches. Another reconciler on the same world is the process after a restart."""

    store: MemoryStore = field(default_factory=MemoryStore)
    launcher: FakeLauncher = field(default_factory=FakeLauncher)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    policy: Policy = POLICY
    callback_keys: KeyRing | None = None
    wakes: list[tuple[str, float]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def reconciler(self) -> Reconciler:
        return Reconciler(
            store=self.store,
            commands=Commands(self.store, self.queue, self.policy, "local"),
            launchers={"local": self.launcher},
            policy=self.policy,
            token_prefix="prefix",
            wake_after=lambda task_id, seconds: self.wakes.append((task_id, seconds)),
            emit=self.events.append,
            callback_keys=lambda: self.callback_keys,
        )

    async def put(self, execution: Execution) -> None:
        await self.store.commit(await self.store.read(execution.task_id), execution, ANSWER)

    async def found(self) -> Execution:
        execution = (await self.store.read("task-1")).execution
        assert execution is not None
        return execution

    async def reconcile(self) -> Execution:
        await self.reconciler().reconcile("task-1")
        return await self.found()

    async def settle(self) -> Execution:
        """Reconcile until nothing more is to be done: after each failure again, and whenever it asked to be woken."""
        for _ in range(50):
            try:
                await self.reconciler().reconcile("task-1")
            except (Crash, AlakaiError):
                continue
            if not self.wakes:
                return await self.found()
            self.store.now += round(max(seconds for _, seconds in self.wakes) * 1000)
            self.wakes.clear()
        raise AssertionError("it never settles")


@pytest.fixture
def world() -> World:
    return World()


def token(launch_try: int = 1, attempt: int = 1) -> str:
    return launch_token("prefix", "task-1", "incarnation-1", attempt, launch_try)


# What it does


async def test_a_claimed_attempt_gets_its_worker(world: World) -> None:
    await world.put(pending())
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.worker_id) == (Status.RUNNING, FakeLauncher.worker_of(token()))
    (intent,) = world.launcher.intents
    order = intent.order
    assert (order.task_id, order.task_type, order.attempt, order.launch_try) == ("task-1", "implementation", 1, 1)
    assert (order.trace_id, order.token, order.task) == ("trace-task-1", token(), task_document())
    assert latest.launch is not None
    assert (latest.launch.token, latest.launch.request) == (token(), intent.request)
    (event,) = world.events
    assert (event["outcome"], event["final_status"], event["component"]) == ("success", "launched", "orchestrator")
    assert event["steps"] == {"intend": "ok", "launch": "ok", "record": "ok"}
    assert event["trace_id"] == "trace-task-1"


async def test_the_intent_is_durable_before_the_launch_leaves(world: World) -> None:
    seen: list[Execution] = []

    class Watching(FakeLauncher):
        async def launch(self, intent: LaunchIntent) -> Launched:
            seen.append(await world.found())
            return await super().launch(intent)

    world.launcher = Watching()
    await world.put(pending())
    await world.reconcile()
    (before,) = seen
    assert before.latest.launch is not None
    assert (before.latest.status, before.latest.launch.token) == (Status.PENDING, token())


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param(running(), id="a running one"),
        pytest.param(succeeded(), id="a success"),
        pytest.param(failed(), id="a failure"),
        pytest.param(suspend(pending(), suspended=True), id="a suspended one"),
        pytest.param(by_hand(), id="a running record written by hand"),
    ],
)
async def test_there_is_nothing_to_do_for(world: World, execution: Execution) -> None:
    await world.put(execution)
    before = await world.found()
    assert await world.reconcile() == before
    assert (world.launcher.calls, world.events, world.wakes) == ([], [], [])


async def test_there_is_nothing_to_do_for_a_task_without_a_record(world: World) -> None:
    await world.reconciler().reconcile("nobody")
    assert world.launcher.calls == []


async def test_an_attempt_of_another_launcher_is_left_as_it_is(world: World) -> None:
    await world.put(pending().with_latest(launcher="ecs"))
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.launch) == (Status.PENDING, None)
    assert latest.waiting is not None
    assert latest.waiting.reason == "NoLauncher"
    assert "'ecs'" in latest.waiting.message
    assert await world.reconcile() == await world.found()
    assert world.launcher.calls == []
    assert [event["final_status"] for event in world.events] == ["no_launcher"]


async def test_every_attempt_and_every_launch_try_has_its_own_token(world: World) -> None:
    world.launcher.refuse()
    await world.put(claimed_again(failed()))
    await world.settle()
    assert [intent.order.token for intent in world.launcher.intents] == [token(1, 2), token(2, 2)]


# Launches that fail


async def test_an_unclear_launch_is_replayed_with_the_same_token_until_it_is_answered(world: World) -> None:
    world.launcher.lose_request()
    world.launcher.lose_reply(2)
    await world.put(pending())
    for _ in range(3):
        with pytest.raises(LaunchUnclear):
            await world.reconcile()
        assert (await world.found()).latest.status is Status.PENDING
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.launch_tries) == (Status.RUNNING, 1)
    assert {intent.order.token for intent in world.launcher.intents} == {token()}
    assert world.launcher.starts == {token(): 1}
    assert [event["final_status"] for event in world.events] == ["launch_unclear"] * 3 + ["launched"]
    assert world.events[0]["error"] == {"type": "LaunchUnclear", "message": "the request was lost"}


async def test_a_refused_launch_waits_for_its_back_off(world: World) -> None:
    world.launcher.refuse("LAUNCH_CAPACITY")
    await world.put(pending())
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.launch, latest.launch_not_before) == (Status.PENDING, None, NOW_MS + 1000)
    assert world.wakes == [("task-1", 1.0)]
    assert [event["final_status"] for event in world.events] == ["launch_refused"]
    world.store.now += 999
    assert (await world.reconcile()).latest.launch is None
    world.store.now += 1
    assert (await world.reconcile()).latest.status is Status.RUNNING
    assert world.launcher.starts == {token(2): 1}


async def test_the_last_launch_try_ends_the_attempt(world: World) -> None:
    world.policy = Policy(max_launch_tries=3)
    world.launcher.refuse("LAUNCH_CAPACITY", times=9)
    await world.put(pending())
    latest = (await world.settle()).latest
    assert (latest.status, latest.error_code, latest.error_message) == (Status.FAILED, "LAUNCH_CAPACITY", "no room")
    assert len(world.launcher.calls) == 3


async def test_a_permanent_refusal_ends_the_attempt_at_once(world: World) -> None:
    world.launcher.refuse("LAUNCH_REJECTED", permanent=True)
    await world.put(pending())
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.error_code) == (Status.FAILED, "LAUNCH_REJECTED")
    assert len(world.launcher.calls) == 1


@pytest.mark.parametrize(
    ("execution", "refusal", "code"),
    [
        pytest.param(
            pending(),
            LaunchRefused("no such image", code="IMAGE_ERROR", permanent=True),
            "IMAGE_ERROR",
            id="an order that no launcher can carry out",
        ),
        pytest.param(
            by_hand(Status.PENDING, launcher="local"), None, "PAYLOAD_LOST", id="an attempt without its message"
        ),
    ],
)
async def test_what_can_never_be_launched_fails_before_anything_is_sent(
    world: World, execution: Execution, refusal: LaunchRefused | None, code: str
) -> None:
    world.launcher.order_refusal = refusal
    await world.put(execution)
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.error_code) == (Status.FAILED, code)
    assert world.launcher.calls == []


# Stopping


async def test_a_cancelled_worker_is_asked_to_stop_until_it_is_gone(world: World) -> None:
    world.launcher.stop_calls_needed = 2
    await world.put(pending())
    worker_id = (await world.reconcile()).latest.worker_id
    await world.put(cancelling(await world.found()))
    for _ in range(2):
        assert (await world.reconcile()).latest.status is Status.RUNNING
        assert world.wakes.pop() == ("task-1", 1.0)
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.error_message) == (Status.CANCELLED, "not needed")
    assert [call for call in world.launcher.calls if call[0] == "stop"] == [("stop", worker_id, "not needed")] * 3


async def test_a_launch_without_an_answer_is_asked_for_it_before_it_is_stopped(world: World) -> None:
    world.launcher.lose_reply()
    await world.put(pending())
    with pytest.raises(LaunchUnclear):
        await world.reconcile()
    await world.put(cancelling(await world.found()))
    assert (await world.settle()).latest.status is Status.CANCELLED
    assert world.launcher.starts == {token(): 1}
    assert world.launcher.alive == set()


async def test_a_cancelled_launch_that_is_refused_is_not_tried_again(world: World) -> None:
    world.launcher.lose_request()
    world.launcher.refuse()
    await world.put(pending())
    with pytest.raises(LaunchUnclear):
        await world.reconcile()
    await world.put(cancelling(await world.found()))
    assert (await world.settle()).latest.status is Status.CANCELLED
    assert world.launcher.starts == {}


async def test_a_worker_of_another_launcher_is_not_stopped_and_the_record_says_so(world: World) -> None:
    await world.put(cancelling(running().with_latest(launcher="ecs")))
    latest = (await world.reconcile()).latest
    assert latest.status is Status.CANCELLED
    assert "its worker was not stopped: no launcher 'ecs' here" in (latest.error_message or "")
    assert world.launcher.calls == []


# What happens meanwhile


def meanwhile(world: World, change: Callable[[], Awaitable[object]]) -> None:
    """Let something happen while a launch is under way."""

    class Slow(FakeLauncher):
        async def launch(self, intent: LaunchIntent) -> Launched:
            answer = await super().launch(intent)
            if len(self.intents) == 1:
                await change()
            return answer

    world.launcher = Slow()


async def test_a_fast_worker_may_report_before_its_launch_is_answered(world: World) -> None:
    async def report() -> None:
        await Commands(world.store, world.queue, POLICY, "local").complete(outcome(succeeded=True))

    meanwhile(world, report)
    await world.put(pending())
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.worker_id) == (Status.SUCCEEDED, FakeLauncher.worker_of(token()))
    assert len(world.launcher.intents) == 1


async def test_who_is_cancelled_while_being_launched_is_stopped(world: World) -> None:
    async def stop() -> None:
        commands = Commands(world.store, world.queue, POLICY, "local")
        await commands.cancel("task-1", reason="too late", requested_by="jane")

    meanwhile(world, stop)
    await world.put(pending())
    latest = (await world.settle()).latest
    assert (latest.status, latest.error_message) == (Status.CANCELLED, "too late")
    assert world.launcher.alive == set()


async def test_a_record_made_anew_while_its_predecessor_is_launched_is_not_given_its_worker(world: World) -> None:
    async def make_anew() -> None:
        world.store.records.pop("task-1")
        await Commands(world.store, world.queue, POLICY, "ecs").submit(a_task(), operation=Operation("resource:uid"))

    meanwhile(world, make_anew)
    await world.put(pending())
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.worker_id, latest.launcher) == (Status.PENDING, None, "ecs")


class Interfering(MemoryStore):
    """Something happens right after the first read."""

    happens: Callable[[Execution], Execution] | None = None

    async def read(self, task_id: str) -> Snapshot:
        snapshot = await super().read(task_id)
        change, self.happens = self.happens, None
        if change is not None and snapshot.execution is not None:
            await super().commit(snapshot, change(snapshot.execution), ANSWER)
        return snapshot


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param(lambda found: suspend(found, suspended=True), Status.PENDING, id="suspended"),
        pytest.param(
            lambda found: cancel(found, "task-1", reason="x", requested_by="jane", now_ms=NOW_MS).execution,
            Status.CANCELLED,
            id="cancelled",
        ),
    ],
)
async def test_what_is_durable_decides_and_not_what_was_read(
    change: Callable[[Execution], Execution], status: Status
) -> None:
    store = Interfering()
    world = World(store=store)
    await world.put(pending())
    store.happens = change
    latest = (await world.reconcile()).latest
    assert (latest.status, latest.launch) == (status, None)
    assert world.launcher.calls == []


async def test_two_controllers_at_once_start_one_worker() -> None:
    store = Interfering()
    world = World(store=store)
    await world.put(pending())
    request = {"image": "worker-implementation"}
    store.happens = lambda found: intend_launch(found, 1, token=token(), request=request, now_ms=NOW_MS, policy=POLICY)
    latest = (await world.reconcile()).latest
    assert latest.status is Status.PENDING
    assert (await world.reconcile()).latest.status is Status.RUNNING
    assert world.launcher.starts == {token(): 1}


# Retries that nobody claimed


async def marked(world: World) -> None:
    execution = request_retry(failed(), "task-1", requested_by="jane", now_ms=NOW_MS, policy=POLICY).execution
    assert execution is not None
    await world.put(execution)


async def test_an_unclaimed_retry_is_sent_again_once_per_interval(world: World) -> None:
    await marked(world)
    await world.reconcile()
    assert world.queue.sent == []
    world.store.now += POLICY.retry_redeliver_ms
    for _ in range(3):
        await world.reconcile()
    assert world.queue.sent == [task_document(attempt=2)]
    world.store.now += POLICY.retry_redeliver_ms
    await world.reconcile()
    assert world.queue.sent == [task_document(attempt=2)] * 2


async def test_a_retry_that_could_not_be_sent_is_sent_an_interval_later(world: World) -> None:
    await marked(world)
    world.store.now += POLICY.retry_redeliver_ms
    world.queue.unavailable = True
    with pytest.raises(QueueUnavailable):
        await world.reconcile()
    world.queue.unavailable = False
    await world.reconcile()
    assert world.queue.sent == []
    world.store.now += POLICY.retry_redeliver_ms
    await world.reconcile()
    assert world.queue.sent == [task_document(attempt=2)]


# A crash between any two actions


class Crash(Exception):
    """The process ends here."""


Way = Literal["dies before", "dies after", "request lost", "reply lost"]
WAYS: tuple[Way, ...] = ("dies before", "dies after", "request lost", "reply lost")


@dataclass
class Fault:
    """Strikes the ``at``-th action, commit or call of the launcher, once."""

    at: int
    way: Way
    actions: int = 0
    struck: bool = False

    async def around(self, act: Callable[[], Awaitable[Answered]], lost: type[AlakaiError]) -> Answered:
        self.actions += 1
        if self.struck or self.actions != self.at:
            return await act()
        self.struck = True
        error = Crash() if self.way.startswith("dies") else lost("lost (test)")
        if self.way in ("dies after", "reply lost"):
            await act()
        raise error


class FaultyStore(MemoryStore):
    fault: Fault | None = None

    async def commit(
        self, snapshot: Snapshot, execution: Execution | None, answer: Answer, **options: Any
    ) -> CommitResult:
        async def commit() -> CommitResult:
            return await MemoryStore.commit(self, snapshot, execution, answer, **options)

        return await (self.fault.around(commit, StoreUnavailable) if self.fault else commit())


class FaultyLauncher(FakeLauncher):
    fault: Fault | None = None
    refused_tries = 0
    """Launch tries up to this one are refused, however often they are sent."""

    async def launch(self, intent: LaunchIntent) -> Launched:
        async def launch() -> Launched:
            if intent.order.launch_try <= self.refused_tries:
                self.calls.append(("launch", intent.order.token))
                raise LaunchRefused("no room", code="LAUNCH_CAPACITY", permanent=False)
            return await FakeLauncher.launch(self, intent)

        return await (self.fault.around(launch, LaunchUnclear) if self.fault else launch())

    async def stop(self, worker_id: str, reason: str) -> bool:
        async def stop() -> bool:
            return await FakeLauncher.stop(self, worker_id, reason)

        return await (self.fault.around(stop, LaunchUnclear) if self.fault else stop())


@dataclass(frozen=True)
class Scenario:
    """Where it begins, and where it must end: the latest attempt's status, launch tries, workers that run."""

    start: Execution
    status: Status
    launch_tries: int
    alive: int
    refused_tries: int = 0
    is_stopped: bool = False
    """Cancelled once it has settled; the fault strikes after that."""
    policy: Policy = POLICY


SCENARIOS = [
    pytest.param(Scenario(pending(), Status.RUNNING, 1, 1), id="a launch"),
    pytest.param(Scenario(claimed_again(failed()), Status.RUNNING, 1, 1), id="a launch of attempt 2"),
    pytest.param(Scenario(pending(), Status.RUNNING, 3, 1, refused_tries=2), id="a launch after two refused ones"),
    pytest.param(
        Scenario(pending(), Status.FAILED, 2, 0, refused_tries=9, policy=Policy(max_launch_tries=2)),
        id="a launch that is refused to the end",
    ),
    pytest.param(Scenario(pending(), Status.CANCELLED, 1, 0, is_stopped=True), id="a worker that is stopped"),
]


async def played(scenario: Scenario, fault: Fault) -> tuple[World, Execution]:
    store, launcher = FaultyStore(), FaultyLauncher()
    launcher.refused_tries = scenario.refused_tries
    world = World(store=store, launcher=launcher, policy=scenario.policy)
    await world.put(scenario.start)
    if scenario.is_stopped:
        await world.settle()
        await world.put(cancelling(await world.found()))
    store.fault = launcher.fault = fault
    return world, await world.settle()


def essence(execution: Execution) -> object:
    """What must be the same however often it was begun anew: everything but the times."""
    return (
        [
            (item.number, item.status, item.run, item.worker_id, item.launch_tries, item.error_code, item.error_message)
            for item in execution.attempts
        ],
        execution.state.sequence,
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_crash_between_any_two_actions_changes_nothing(scenario: Scenario, way: Way) -> None:
    calm = Fault(0, way)
    _, expected = await played(scenario, calm)
    latest = expected.latest
    assert (latest.status, latest.launch_tries) == (scenario.status, scenario.launch_tries)
    assert calm.actions >= 3
    for at in range(1, calm.actions + 1):
        fault = Fault(at, way)
        world, found = await played(scenario, fault)
        assert fault.struck
        assert essence(found) == essence(expected), f"{way} at action {at}"
        launches = {call[1] for call in world.launcher.calls if call[0] == "launch"}
        assert launches == {token(number + 1, latest.number) for number in range(scenario.launch_tries)}
        assert set(world.launcher.starts.values()) <= {1}
        assert len(world.launcher.alive) == scenario.alive


async def test_a_crash_between_mark_and_message_only_delays_the_retry() -> None:
    for way in WAYS:
        store = FaultyStore()
        world = World(store=store)
        await marked(world)
        world.store.now += POLICY.retry_redeliver_ms
        store.fault = Fault(1, way)
        with pytest.raises((Crash, StoreUnavailable)):
            await world.reconcile()
        world.store.now += POLICY.retry_redeliver_ms
        await world.reconcile()
        assert world.queue.sent == [task_document(attempt=2)]


async def test_an_answer_that_comes_after_the_outcome_of_the_next_attempt_is_only_noted(world: World) -> None:
    quick = record_outcome(intended(), outcome(), received_ms=NOW_MS, now_ms=NOW_MS).execution
    assert quick is not None
    await world.put(claimed_again(quick))
    await alter(world.store, "task-1", lambda found, now_ms: launched(found, 1, 1, worker_id=WORKER, now_ms=now_ms))
    found = await world.found()
    assert [(item.status, item.worker_id) for item in found.attempts] == [
        (Status.FAILED, WORKER),
        (Status.PENDING, None),
    ]
