"""What users ask for through custom resources: a new object submits, annotations and spec fields steer.

Looks at one object at a time (``work_queue``, by object name) and acts by the same rules as every other door; what was
acted on is remembered in the record by the same commit, so a relist or a restart repeats nothing. Deletion is the
mirror's work, and so is every write of a status that an execution stands behind.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from controller.api_health import ApiHealth
from controller.mirror import Mirror
from controller.notifier import Notifier
from controller.observed import ObservedResources
from controller.work_queue import WorkQueue
from executions import link, submission
from executions.answer import Answer, Decision, Reply, unchanged
from executions.cluster import Body, Cluster, Conflict, Invalid, NotFound
from executions.conditions import Reason, Why
from executions.errors import InvalidTask, QueueUnavailable, QueueUnclear
from executions.link import Wish
from executions.names import incarnation_from_operation, resource_name
from executions.notices import Notice
from executions.operations.commands import Commands
from executions.operations.transact import alter, transact
from executions.ports import Operation, Snapshot, Store
from executions.record import Execution, Refusal
from executions.resource import Observed, observed_from_body, protected, refused_status, task_from_resource
from executions.task import Task

_log = structlog.get_logger(__name__)


class ResourceOperations:
    """Acts on objects. ``queue`` must run; ``add`` wakes it for an object name."""

    def __init__(
        self,
        *,
        store: Store,
        cluster: Cluster,
        commands: Commands,
        observed: ObservedResources,
        health: ApiHealth,
        notifier: Notifier,
        mirror: Mirror,
        wake: Callable[[str], None],
        workers: int = 4,
    ) -> None:
        """``wake(task_id)`` has an execution reconciled."""
        self.queue = WorkQueue("operations", self.handle, workers=workers)
        self._store = store
        self._cluster = cluster
        self._commands = commands
        self._policy = commands.policy
        self._observed = observed
        self._health = health
        self._notifier = notifier
        self._mirror = mirror
        self._wake = wake

    def add(self, name: str) -> None:
        self.queue.add(name)

    async def run(self) -> None:
        await self.queue.run()

    async def handle(self, name: str) -> None:
        """Act on what the object asks for. Raises ClusterError and the store's errors: try later."""
        await self._health.ready()
        observed = self._observed.get(name)
        if observed is None or observed.is_deleting:
            return
        with self._health.watching():
            try:
                if observed.is_submitted:
                    await self._steer(observed)
                else:
                    await self._submit(observed)
            except (Conflict, Invalid, NotFound):
                await self._read_again(observed)
                raise

    async def _submit(self, observed: Observed) -> None:
        """Finalizer first, commit second: a deletion in between waits for us and finds the execution to cancel."""
        if not observed.has_its_name:
            await self._refuse(observed, _name_mismatch(observed))
            return
        execution = (await self._store.read(observed.task_id)).execution
        if execution is not None and execution.state.resource.uid == observed.uid:
            self._mirror.add(observed.task_id)  # submitted; only its status is not written yet
            return
        if observed.is_protected:
            body = await self._cluster.read(observed.name)
        else:
            body = await self._cluster.patch(observed.name, protected(observed))
        observed = self._seen(body)
        try:
            task = task_from_resource(body)
        except InvalidTask as error:
            await self._refuse(observed, Why(Reason.INVALID_TASK, str(error)))
            return
        operation = Operation(link.submission_key(observed.uid), None)
        answer = await transact(
            self._store,
            task.task_id,
            lambda seen: self._submission(seen, task, observed, operation),
            operation=operation,
        )
        # The record of a submission that is only repeated here may have been made anew by hand, without its link.
        await alter(self._store, task.task_id, lambda found, now_ms: self._bound(found, observed, None, now_ms))
        _log.info("Submitted by a resource", task_id=task.task_id, reply=answer.reply.value, attempt=answer.attempt)
        await self._tell_refusal(observed, Reason.SUBMIT_REFUSED, answer, operation.key)
        self._mirror.add(task.task_id)
        self._wake(task.task_id)

    def _submission(self, seen: Snapshot, task: Task, observed: Observed, operation: Operation) -> Decision:
        decision = submission.submit(
            seen.execution,
            task,
            now_ms=seen.now_ms,
            policy=self._policy,
            launcher=self._commands.launcher,
            incarnation=incarnation_from_operation(operation.key),
        )
        if decision.execution is None:
            return decision
        message = link.refusal_message(decision.answer, self._policy)
        refusal = Refusal(reason=Reason.SUBMIT_REFUSED, message=message, at=seen.now_ms) if message else None
        return Decision(self._bound(decision.execution, observed, refusal, seen.now_ms), decision.answer)

    @staticmethod
    def _bound(execution: Execution, observed: Observed, refusal: Refusal | None, now_ms: int) -> Execution:
        if execution.state.resource.uid == observed.uid:
            return execution
        return link.submitted(execution, uid=observed.uid, wishes=observed.wishes, refusal=refusal, now_ms=now_ms)

    async def _steer(self, observed: Observed) -> None:
        execution = (await self._store.read(observed.task_id)).execution
        if execution is None or not observed.has_its_name:
            return
        wishes = link.open_wishes(execution, observed.uid, observed.wishes, observed.made_by)
        for wish in wishes:
            await self._grant(observed, wish)
        if wishes:
            self._mirror.add(observed.task_id)
            self._wake(observed.task_id)

    async def _grant(self, observed: Observed, wish: Wish) -> None:
        operation = _operation(observed, wish)
        answer = await transact(
            self._store, observed.task_id, lambda seen: self._granting(seen, wish, observed), operation=operation
        )
        # A repeat, as from an old view of the object, changes nothing; it counts as seen all the same.
        await alter(
            self._store,
            observed.task_id,
            lambda found, _: link.seen(found, wish, uid=observed.uid, wishes=observed.wishes, made_by=observed.made_by),
        )
        _log.info("Asked through a resource", task_id=observed.task_id, wish=wish.value, reply=answer.reply.value)
        if answer.reply is Reply.QUEUED:
            await self._send_retry(observed.task_id)
        await self._tell_refusal(observed, link.refusal_reason(wish), answer, operation.key)

    def _granting(self, seen: Snapshot, wish: Wish, observed: Observed) -> Decision:
        if seen.execution is None:
            return unchanged(None, Reply.NOT_FOUND, observed.task_id)
        return link.granted(
            seen.execution,
            wish,
            uid=observed.uid,
            wishes=observed.wishes,
            made_by=observed.made_by,
            now_ms=seen.now_ms,
            policy=self._policy,
            launcher=self._commands.launcher,
        )

    async def _send_retry(self, task_id: str) -> None:
        try:
            await self._commands.resend_retry(task_id)
        except (QueueUnavailable, QueueUnclear) as error:
            # The mark is durable: it is enqueued again when it is due.
            _log.warning("The retry is enqueued later", task_id=task_id, reason=str(error))

    async def _tell_refusal(self, observed: Observed, reason: str, answer: Answer, key: str) -> None:
        """Tell a refusal as an Event; the condition comes from the record."""
        message = link.refusal_message(answer, self._policy)
        if message is not None:
            notice = Notice(key, Why(reason, message))
            await self._notifier.tell(observed, [notice], now_ms=await self._store.now_ms())

    async def _refuse(self, observed: Observed, why: Why) -> None:
        """Tell by condition and Event that this object submits nothing; nothing is kept of it but its status."""
        if observed.observed_generation == observed.generation:
            return
        now_ms = await self._store.now_ms()
        status = refused_status(why, generation=observed.generation, at_ms=now_ms)
        observed = self._seen(await self._cluster.patch_status(observed.name, status))
        _log.warning("A resource is refused", object=observed.name, reason=why.message)
        notice = Notice(f"refused/{observed.generation}", why)
        await self._notifier.tell(observed, [notice], now_ms=now_ms)

    def _seen(self, body: Body) -> Observed:
        observed = observed_from_body(body)
        self._observed.put(observed)
        return observed

    async def _read_again(self, observed: Observed) -> None:
        try:
            self._observed.put(observed_from_body(await self._cluster.read(observed.name)), listed=True)
        except NotFound:
            self._observed.drop(observed.name, observed.uid)


def _operation(observed: Observed, wish: Wish) -> Operation:
    """What makes acting on a wish happen once: an annotation's value, or for spec fields the generation."""
    if wish in (Wish.SUSPEND, Wish.ASSIGNEE):
        return Operation(f"resource:{observed.uid}:{wish.value}:{observed.generation}")
    return Operation(f"resource:{observed.uid}:{wish.value}:{link.memorable(observed.wishes.value(wish))}")


def _name_mismatch(observed: Observed) -> Why:
    try:
        wanted = resource_name(observed.task_id)
    except InvalidTask as error:
        return Why(Reason.INVALID_TASK, str(error))
    return Why(
        Reason.NAME_MISMATCH,
        f"the object of task {observed.task_id} must be named {wanted}: create it again with that name",
    )
