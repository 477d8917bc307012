"""The mirror: makes the custom resource of a task look like its record, with as few writes as possible.

Level-based and one task at a time (``work_queue``): it reads the record, compares it with the object as last seen and
makes the one or two requests that bring them together. Whatever wakes it (change feed, watch event, resync) says only
which task to look at. What users ask for through an object is acted on in ``resource_operations``; only deletion is
acted on here, because it ends the object.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from controller.api_health import ApiHealth
from controller.definition import Definition
from controller.notifier import Notifier
from controller.observed import ObservedResources
from controller.work_queue import WorkQueue
from executions.answer import Answer, Reply
from executions.cluster import AlreadyExists, Body, Cluster, Conflict, Invalid, NotFound
from executions.conditions import phase
from executions.link import REQUESTED_BY, open_wishes, submission_key, tombstoned
from executions.names import resource_name
from executions.notices import notices_from
from executions.operations.commands import Commands
from executions.operations.transact import alter
from executions.ports import Snapshot, Store
from executions.record import Attempt, Execution, RecordUnreadable
from executions.resource import (
    Observed,
    is_entombed,
    manifest_from_execution,
    observed_from_body,
    protected,
    released,
    resource_is_wanted,
    short_wait_since,
    status_digest,
    status_from_execution,
)

_ROUNDS = 4
"""Each round means that the object was not as last seen and was read again; more than this waits for its next turn."""
PENDING_SHOWN_AFTER_MS = 1000
"""What waits for a shorter time is not worth a write that says so: most attempts are at work by then."""
_log = structlog.get_logger(__name__)


async def _nobody_owned(_: Attempt) -> None: ...


async def _nothing_is_archived(_: Execution) -> bool:
    """Without an archive a resource waits for none."""
    return True


class Mirror:
    """Writes custom resources. ``queue`` must run; ``add`` wakes it for a task."""

    def __init__(
        self,
        *,
        store: Store,
        cluster: Cluster,
        commands: Commands,
        observed: ObservedResources,
        health: ApiHealth,
        notifier: Notifier,
        namespace: str,
        on_wish: Callable[[str], None],
        wake: Callable[[str], None],
        disown: Callable[[Attempt], Awaitable[None]] = _nobody_owned,
        is_archived: Callable[[Execution], Awaitable[bool]] = _nothing_is_archived,
        workers: int = 16,
    ) -> None:
        """``on_wish(name)`` hands an object with an open wish on; ``wake(task_id)`` has an execution reconciled.

        ``disown(attempt)`` sees to it that the attempt's worker outlives the object. An object whose time is over stays
        until ``is_archived(execution)``.
        """
        self.queue = WorkQueue("mirror", self.sync, workers=workers)
        self.compared: dict[str, tuple[str, int]] = {}
        """Task → incarnation and sequence of the record that its object was last found or made equal to."""
        self._store = store
        self._cluster = cluster
        self._commands = commands
        self._policy = commands.policy
        self._observed = observed
        self._health = health
        self._notifier = notifier
        self._namespace = namespace
        self._on_wish = on_wish
        self._wake = wake
        self._disown = disown
        self._is_archived = is_archived
        self._definition = Definition(cluster)
        self._let_go: set[str] = set()
        """Uids of objects that end by our own doing: their deletion is nobody's wish."""
        self._vanished: dict[str, Observed] = {}
        """Task → its object that was deleted although nobody waited for us."""
        self._stored_as: dict[str, tuple[bytes, bytes]] = {}
        """Task → digests of a status as it was written and as the API server kept it, where these differ."""

    @property
    def api_is_away(self) -> bool:
        """Whether custom resources can be neither written nor seen at present."""
        return self._health.is_away

    def add(self, task_id: str) -> None:
        self.queue.add(task_id)

    async def run(self) -> None:
        await self.queue.run()

    def deleted(self, observed: Observed) -> None:
        """An object is gone, by its watch event."""
        if observed.uid not in self._let_go and observed.has_its_name:
            self._vanished[observed.task_id] = observed
        self.lost(observed)

    def lost(self, observed: Observed) -> None:
        """An object is gone and how is not known; our finalizer kept it from going by a user's wish unnoticed."""
        self._let_go.discard(observed.uid)
        self.compared.pop(observed.task_id, None)
        self._stored_as.pop(observed.task_id, None)
        self.add(observed.task_id)

    async def sync(self, task_id: str) -> None:
        """Bring the task's object and its record together. Raises ClusterError and the store's errors: try later."""
        await self._health.ready()
        with self._health.watching():
            for turn in range(_ROUNDS):
                try:
                    snapshot = await self._store.read(task_id)
                except RecordUnreadable as error:
                    _log.warning("Its resource is left as it is", task_id=task_id, reason=str(error))
                    return
                try:
                    await self._converge(snapshot)
                    return
                except (NotFound, AlreadyExists, Conflict, Invalid):
                    if turn == _ROUNDS - 1:
                        raise
                    await self._read_again(resource_name(task_id))

    async def _converge(self, snapshot: Snapshot) -> None:
        execution, task_id = snapshot.execution, snapshot.task_id
        observed = self._observed.get(resource_name(task_id))
        if observed is not None or execution is None:
            self._vanished.pop(task_id, None)
        vanished = self._vanished.get(task_id)
        if observed is not None and observed.task_id != task_id:
            _log.warning("Another task's object has this name", name=observed.name, task_id=task_id)
        elif execution is None:
            await self._without_record(observed)
        elif vanished is not None:
            await self._deleted_unasked(vanished, execution)
        elif observed is not None and observed.is_deleting:
            await self._bury(observed, execution)
        elif observed is not None and not _stood_for(observed, execution):
            self._on_wish(observed.name)  # a user's new object: it is judged only once it was submitted
        elif resource_is_wanted(execution, now_ms=snapshot.now_ms, policy=self._policy) or (
            observed is not None and not is_entombed(execution) and not await self._is_archived(execution)
        ):
            await self._show(observed, execution, snapshot.now_ms)
        else:
            if observed is not None:
                await self._remove(observed)
            self.compared[task_id] = _position(execution)

    async def _show(self, observed: Observed | None, execution: Execution, now_ms: int) -> None:
        if observed is None:
            observed = self._seen(await self._cluster.create(manifest_from_execution(execution, self._namespace)))
        elif not observed.is_protected:
            observed = self._seen(await self._cluster.patch(observed.name, protected(observed)))
        wishes = open_wishes(execution, observed.uid, observed.wishes, observed.made_by)
        if wishes:
            self._on_wish(observed.name)
        waits_since_ms = short_wait_since(execution, observed)
        if waits_since_ms is not None and now_ms - waits_since_ms < PENDING_SHOWN_AFTER_MS:
            self.queue.add_after(execution.task_id, (waits_since_ms + PENDING_SHOWN_AFTER_MS - now_ms) / 1000)
            return
        generation = observed.observed_generation if wishes else observed.generation
        status = status_from_execution(
            execution, self._policy, observed_generation=generation, unknown_ms=observed.created_ms
        )
        since_attempt = observed.attempt if observed.incarnation == execution.state.incarnation else 0
        if not self._is_told(execution.task_id, observed, status):
            observed = await self._tell(execution.task_id, observed, status)
            notices = notices_from(execution, self._policy, since_attempt=since_attempt)
            await self._notifier.tell(observed, notices, now_ms=now_ms)
        self.compared[execution.task_id] = _position(execution)

    def _is_told(self, task_id: str, observed: Observed, status: Body) -> bool:
        digest = status_digest(status)
        return observed.status_digest == digest or self._stored_as.get(task_id) == (digest, observed.status_digest)

    async def _tell(self, task_id: str, observed: Observed, status: Body) -> Observed:
        # A finished attempt shown by a resource never changes: not even to what is true after a failover.
        await self._store.secure()
        kept = self._seen(await self._cluster.patch_status(observed.name, status))
        digest = status_digest(status)
        if kept.status_digest == digest:
            self._stored_as.pop(task_id, None)
        else:
            # Without this memory each look would find a difference and write again, for ever.
            self._stored_as[task_id] = (digest, kept.status_digest)
            _log.warning("The API server kept a status differently; is its CRD of this version?", task_id=task_id)
        return kept

    async def _without_record(self, observed: Observed | None) -> None:
        if observed is None:
            return
        if observed.is_deleting:
            await self._release(observed)
        elif observed.is_submitted:
            await self._remove(observed)

    async def _bury(self, observed: Observed, execution: Execution) -> None:
        """A user deleted the object: cancel what is unfinished, note that it stays away, and only then let it go."""
        if not observed.is_protected:
            return
        if not _stood_for(observed, execution) or await self._definition.is_leaving():
            if _stood_for(observed, execution) and execution.latest.is_live:
                await self._disown(execution.latest)
            await self._release(observed, is_ours=True)
            return
        if not phase(execution).is_finished:
            execution = await self._cancelled(execution)
            if not phase(execution).is_finished:
                await self._show_ending(observed, execution)
                return
        await self._entomb(execution)
        await self._release(observed, is_ours=True)

    async def _show_ending(self, observed: Observed, execution: Execution) -> None:
        status = status_from_execution(
            execution, self._policy, observed_generation=observed.observed_generation, unknown_ms=observed.created_ms
        )
        if not self._is_told(execution.task_id, observed, status):
            await self._tell(execution.task_id, observed, status)

    async def _deleted_unasked(self, vanished: Observed, execution: Execution) -> None:
        """An object went without our finalizer, so that nobody waited for us: act on its deletion afterwards."""
        if _stood_for(vanished, execution) and not await self._definition.is_leaving():
            if not phase(execution).is_finished:
                await self._cancelled(execution)
            await self._entomb(execution)
        await self._forget_submission(vanished)
        self._vanished.pop(execution.task_id, None)
        self.add(execution.task_id)

    async def _entomb(self, execution: Execution) -> None:
        """Note that the resource stays away, unless a later attempt began meanwhile, which brings it back."""

        def entombed(found: Execution, _: int) -> Execution:
            return tombstoned(found) if found.latest.number == execution.latest.number else found

        await alter(self._store, execution.task_id, entombed, incarnation=execution.state.incarnation)

    async def _cancelled(self, execution: Execution) -> Execution:
        answer: Answer = await self._commands.cancel(
            execution.task_id, reason="the WorkerExecution was deleted", requested_by=REQUESTED_BY
        )
        if answer.reply is Reply.ACCEPTED:
            self._wake(execution.task_id)
        return (await self._store.read(execution.task_id)).execution or execution

    async def _remove(self, observed: Observed) -> None:
        """Delete an object of our own accord.

        The finalizer goes first: an object of ours is never seen half-deleted, so that half-deleted always means
        that a user wants it gone, and exactly what was looked at is deleted, not what a retry made of it meanwhile.
        """
        await self._forget_submission(observed)
        if observed.is_protected:
            observed = self._seen(await self._cluster.patch(observed.name, released(observed)))
        self._let_go.add(observed.uid)
        await self._cluster.delete(observed.name, uid=observed.uid, resource_version=observed.resource_version)
        self._observed.drop(observed.name, observed.uid)

    async def _release(self, observed: Observed, *, is_ours: bool = False) -> None:
        """Take our finalizer from an object that is being deleted, which ends it."""
        await self._forget_submission(observed)
        if is_ours:
            self._let_go.add(observed.uid)
        if observed.is_protected:
            self._seen(await self._cluster.patch(observed.name, released(observed)))

    async def _forget_submission(self, observed: Observed) -> None:
        """A user's object that is about to end never submits again, so nobody will ask whether it did."""
        if observed.made_by is None:
            await self._store.forget_operation(submission_key(observed.uid))

    def _seen(self, body: Body) -> Observed:
        observed = observed_from_body(body)
        self._observed.put(observed)
        return observed

    async def _read_again(self, name: str) -> None:
        known = self._observed.get(name)
        try:
            self._observed.put(observed_from_body(await self._cluster.read(name)), listed=True)
        except NotFound:
            if known is not None:
                self._observed.drop(name, known.uid)


def _stood_for(observed: Observed, execution: Execution) -> bool:
    """Whether the object is this execution's, and not a user's that was not submitted or was refused."""
    return observed.is_submitted or execution.state.resource.uid == observed.uid


def _position(execution: Execution) -> tuple[str, int]:
    return execution.state.incarnation, execution.state.sequence
