"""What may happen next: each step is named, and made by the real decisions of the domain.

``steps(world, safeguards, kinds)`` yields every step of the wanted kinds that is possible now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from executions.callback_token import LaunchProof, launch_id
from executions.evidence import Fate, Observation, WorkerState, judge
from executions.lifecycle import claim_launch, ended, intend_launch, launched, record_outcome, suspect
from executions.names import incarnation_from_operation, launch_token
from executions.outcome import Outcome
from executions.plan import IntendLaunch, LaunchWorker, plan
from executions.policy import Policy
from executions.record import Execution, Status
from executions.retry import request_retry
from executions.submission import dispatch
from executions.task import task_from_document
from tests.model.world import GRACE_MS, POLICY, TASK, Callback, Message, Pending, Safeguards, Worker, World
from tests.support.builders import task_document

Step = tuple[str, World]
_MOST = 4
FINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


def steps(world: World, on: Safeguards, kinds: Collection[str]) -> Iterator[Step]:
    """Every possible next step, as its name and the world after it."""
    for kind in kinds:
        yield from _KINDS[kind](world, on)


# Controllers


def _deliver(world: World, on: Safeguards) -> Iterator[Step]:
    """A controller receives a message and decides; the commit is a step of its own."""
    for number in _idle(world):
        for message in world.queue:
            if on.memory and message.message_id in world.remembered:
                yield f"{_name(number)} deletes {message.message_id}", _without_message(world, message)
                continue
            decision = dispatch(
                world.execution,
                task_from_document(task_document(TASK, **({"attempt": message.attempt} if message.attempt else {}))),
                now_ms=world.now_ms,
                policy=POLICY,
                launcher="local",
                incarnation=incarnation_from_operation(message.message_id) if on.incarnation else "always the same",
            )
            if decision.execution is world.execution:
                yield f"{_name(number)} has nothing to do for {message.message_id}", _without_message(world, message)
            else:
                pending = Pending("commit", world.version, world.execution, decision.execution, message.message_id)
                yield f"{_name(number)} decides on {message.message_id}", _busy(world, number, pending)


def _reconcile(world: World, _: Safeguards) -> Iterator[Step]:
    """A controller reads and plans; what it does about it is a step of its own."""
    execution = world.execution
    if execution is None:
        return
    for number in _idle(world):
        for action in plan(execution, now_ms=world.now_ms, replay_limit_ms=None):
            match action:
                case IntendLaunch():
                    launch_try = execution.latest.launch_tries + 1
                    following = intend_launch(
                        execution,
                        action.attempt,
                        token=launch_token("p", TASK, execution.state.incarnation, action.attempt, launch_try),
                        request={},
                        now_ms=world.now_ms,
                        policy=POLICY,
                    )
                    pending = Pending("commit", world.version, execution, following)
                    yield f"{_name(number)} plans launch {launch_try}", _busy(world, number, pending)
                case LaunchWorker():
                    pending = Pending("send", world.version, execution, launch=action.launch)
                    yield f"{_name(number)} is about to send a launch", _busy(world, number, pending)


def _commit(world: World, on: Safeguards) -> Iterator[Step]:
    for number, pending in enumerate(world.controllers):
        if pending is None or pending.kind != "commit":
            continue
        free = _busy(world, number, None)
        if on.version and pending.version != world.version:
            yield f"{_name(number)} is refused its commit", free
            continue
        if on.memory and pending.operation in world.remembered:
            yield f"{_name(number)} learns that {pending.operation} was acted on", free
            continue
        after = _committed(free, pending.following)
        if pending.operation is not None:
            after = replace(after, remembered=after.remembered | {pending.operation})
            # With luck the message is deleted too; without, it comes again.
            gone = tuple(item for item in after.queue if item.message_id != pending.operation)
            yield f"{_name(number)} commits and deletes {pending.operation}", replace(after, queue=gone)
        yield f"{_name(number)} commits", after


def _send(world: World, on: Safeguards) -> Iterator[Step]:
    """The launcher starts a worker for a token that it does not know, and answers; the answer may be lost."""
    for number, pending in enumerate(world.controllers):
        if pending is None or pending.kind != "send" or pending.launch is None or pending.seen is None:
            continue
        if world.sent >= _MOST:
            yield f"{_name(number)} crashes before it sends", _busy(world, number, None)
            continue
        launch = pending.launch
        token = launch.token if on.token else f"{launch.token[:8]}-{world.sent}"
        known = next((item for item in world.workers if item.token == token and not item.forgotten), None)
        worker = known or Worker(
            f"w{len(world.workers) + 1}", token, world.life, pending.seen.latest.number, launch.launch_try
        )
        workers = world.workers if known else (*world.workers, worker)
        after = replace(world, workers=workers, sent=world.sent + 1)
        note = replace(pending, kind="note", worker=worker.name)
        yield f"{_name(number)} sends the launch, {worker.name} answers", _busy(after, number, note)
        yield f"{_name(number)} sends the launch and crashes", _busy(after, number, None)


def _note(world: World, on: Safeguards) -> Iterator[Step]:
    """The worker of a launch is recorded, on what is there by then."""
    for number, pending in enumerate(world.controllers):
        if pending is None or pending.kind != "note" or pending.seen is None or pending.launch is None:
            continue
        free = _busy(world, number, None)
        found = world.execution if on.version else pending.seen
        if found is None or found.state.incarnation != pending.seen.state.incarnation:
            yield f"{_name(number)} finds another task in its place", free
            continue
        attempt, launch_try = pending.seen.latest.number, pending.launch.launch_try
        following = launched(found, attempt, launch_try, worker_id=pending.worker or "", now_ms=world.now_ms)
        after = free if following is found else _committed(free, following)
        yield f"{_name(number)} notes {pending.worker}", after


def _crash(world: World, _: Safeguards) -> Iterator[Step]:
    for number, pending in enumerate(world.controllers):
        if pending is not None:
            yield f"{_name(number)} crashes", _busy(world, number, None)


# Workers


def _claim(world: World, on: Safeguards) -> Iterator[Step]:
    for worker in world.workers:
        if worker.state != "started":
            continue
        if not on.claim:
            yield f"{worker.name} begins to work", _with_worker(world, worker, "working")
            continue
        decision = claim_launch(
            world.execution,
            TASK,
            attempt=worker.attempt,
            launch_try=worker.launch_try,
            claim_id=worker.name,
            now_ms=world.now_ms,
        )
        is_granted = decision.answer.reply == "granted"
        after = _with_worker(world, worker, "working" if is_granted else "refused")
        if decision.execution is not None and decision.execution is not world.execution:
            after = _committed(after, decision.execution)
        yield f"{worker.name} claims and is {'granted' if is_granted else 'refused'}", after


def _finish(world: World, _: Safeguards) -> Iterator[Step]:
    for worker in world.workers:
        if worker.state == "working":
            for succeeds in (True, False):
                after = _with_worker(world, worker, "reported", succeeds=succeeds)
                sender = next(item for item in after.workers if item.name == worker.name)
                callbacks = (*after.callbacks, Callback(sender, world.now_ms))
                yield f"{worker.name} {'succeeds' if succeeds else 'fails'}", replace(after, callbacks=callbacks)


def _die(world: World, _: Safeguards) -> Iterator[Step]:
    for worker in world.workers:
        if worker.state == "working":
            yield f"{worker.name} dies without a word", _with_worker(world, worker, "dead")


def _callback(world: World, on: Safeguards) -> Iterator[Step]:
    """An outcome arrives; once more later, if the network likes."""
    for callback in world.callbacks:
        worker = callback.worker
        outcome = Outcome(
            task_id=TASK,
            succeeded=worker.succeeds,
            error_message=None if worker.succeeds else "it failed",
        )
        proof = LaunchProof(worker.attempt, worker.launch_try, launch_id(worker.token)) if on.fence else None
        decision = record_outcome(world.execution, outcome, received_ms=world.now_ms, now_ms=world.now_ms, proof=proof)
        after = world
        if decision.execution is not None and decision.execution is not world.execution:
            after = _committed(world, decision.execution)
            if decision.answer.reply == "recorded":
                decided = (world.life, decision.execution.latest.number, worker)
                after = replace(after, resolved_by=(*after.resolved_by, decided))
        left = tuple(item for item in after.callbacks if item is not callback)
        yield f"the outcome of {worker.name} arrives", replace(after, callbacks=left)
        if callback.sent_ms == world.now_ms:
            yield f"the outcome of {worker.name} arrives and will arrive again", after


# Looks, people, time


def _look(world: World, on: Safeguards) -> Iterator[Step]:
    """The sweep looks at the worker of the live attempt, and commits what it concludes."""
    execution = world.execution
    if execution is None or not execution.latest.is_live or execution.latest.worker_id is None or world.looks >= _MOST:
        return
    policy = POLICY if on.grace else Policy(max_retries=1, lost_worker_grace_ms=0)
    worker = next(item for item in world.workers if item.name == execution.latest.worker_id)
    state = WorkerState.RUNNING if worker.is_there else WorkerState.STOPPED
    observation = Observation(worker.name, state, "model", worker.state)
    verdict = judge(execution.latest, observation, now_ms=world.now_ms, policy=policy)
    following: Execution = execution
    match verdict.fate:
        case Fate.SUSPECTED:
            following = suspect(execution, execution.latest.number, suspicion=verdict.suspicion)
        case Fate.LOST | Fate.NEVER_STARTED | Fate.PREEMPTED:
            following = ended(
                execution,
                execution.latest.number,
                Status.FAILED,
                now_ms=world.now_ms,
                code="WORKER_LOST",
                message="gone",
            )
    if following is not execution:
        after = replace(_committed(world, following), looks=world.looks + 1)
        yield f"a look finds {worker.name} {worker.state}: {verdict.fate.value}", after


def _retry(world: World, _: Safeguards) -> Iterator[Step]:
    decision = request_retry(world.execution, TASK, requested_by="jane", now_ms=world.now_ms, policy=POLICY)
    if decision.answer.detail == "send" and decision.execution is not None:
        message = Message(f"retry-{world.life}-{decision.answer.attempt}", decision.answer.attempt)
        after = replace(_committed(world, decision.execution), queue=(*world.queue, message), asked=world.asked + 1)
        yield "jane asks for a retry", after


def _remove(world: World, _: Safeguards) -> Iterator[Step]:
    """Once, a person removes the record and sends the task again under its old id."""
    if world.execution is not None and world.life == 1:
        message = Message("m2")
        after = replace(
            world, execution=None, version=world.version + 1, life=2, asked=1, queue=(*world.queue, message)
        )
        yield "jane removes the record and sends the task again", after


def _time(world: World, _: Safeguards) -> Iterator[Step]:
    """Time passes, by more than what a callback may take, as long as none is on its way."""
    if not world.callbacks and world.passes:
        later = replace(world, now_ms=world.now_ms + GRACE_MS, passes=world.passes - 1)
        yield "the grace period passes", later


def _forget(world: World, _: Safeguards) -> Iterator[Step]:
    """The launcher no longer knows a token, as ECS after a day, or starts twice, as two processes may at once."""
    for worker in world.workers:
        if worker.forgotten is False:
            forgotten = tuple(replace(item, forgotten=True) if item is worker else item for item in world.workers)
            yield f"the launcher forgets the token of {worker.name}", replace(world, workers=forgotten)


_KINDS: dict[str, Callable[[World, Safeguards], Iterator[Step]]] = {
    "deliver": _deliver,
    "reconcile": _reconcile,
    "commit": _commit,
    "send": _send,
    "note": _note,
    "crash": _crash,
    "claim": _claim,
    "finish": _finish,
    "die": _die,
    "callback": _callback,
    "look": _look,
    "retry": _retry,
    "remove": _remove,
    "time": _time,
    "forget": _forget,
}
ALL = tuple(_KINDS)


def after(world: World, *names: str, on: Safeguards | None = None) -> World:
    """The world after these steps, each named by how it begins: where a search may begin."""
    for name in names:
        possible = list(steps(world, on or Safeguards(), _KINDS))
        exact = [there for found, there in possible if found == name]
        world = next(iter(exact or [there for found, there in possible if found.startswith(name)]))
    return world


def _committed(world: World, following: Execution | None) -> World:
    """The world with the execution in it, one version later; what became final by it is noted."""
    before = world.execution.latest if world.execution else None
    resolved = world.resolved
    if following is not None and following.latest.status in FINAL:
        number, status = following.latest.number, following.latest.status.value
        is_new = before is None or before.number != number or before.status != following.latest.status
        if is_new:
            resolved = (*resolved, (world.life, number, status))
    return replace(world, execution=following, version=world.version + 1, resolved=resolved)


def _idle(world: World) -> list[int]:
    """Controllers that are free, of several equal ones the first: which of them it is makes no difference."""
    return [number for number, pending in enumerate(world.controllers) if pending is None][:1]


def _busy(world: World, number: int, pending: Pending | None) -> World:
    controllers = tuple(pending if at == number else item for at, item in enumerate(world.controllers))
    return replace(world, controllers=controllers)


def _with_worker(world: World, worker: Worker, state: str, *, succeeds: bool = True) -> World:
    changed = replace(worker, state=state, succeeds=succeeds)
    return replace(world, workers=tuple(changed if item is worker else item for item in world.workers))


def _without_message(world: World, message: Message) -> World:
    return replace(world, queue=tuple(item for item in world.queue if item is not message))


def _name(number: int) -> str:
    return f"controller {'AB'[number]}"
