"""The one way to change an execution: read, decide, commit; on a conflict the decision is made anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from executions.admission import Admission
from executions.answer import Answer, Decision, Reply, changed, unchanged
from executions.errors import TooMuchContention
from executions.ports import Committed, Operation, Snapshot, Store
from executions.record import Execution

_ROUNDS = 50
"""Far more than any honest race needs: each round means that another writer made progress."""


@dataclass(frozen=True, slots=True)
class Done:
    """The answer, and what is there after it: None where only a read could tell."""

    answer: Answer
    following: Snapshot | None = None


async def transact(
    store: Store, task_id: str, decide: Callable[[Snapshot], Decision], *, operation: Operation | None = None
) -> Answer:
    """Commit what ``decide`` decides and return its answer.

    A decision that changes nothing is committed only when an operation must be remembered with it. The repeat of a
    remembered operation returns the answer that was given first. Raises StoreUnavailable, RecordUnreadable and
    TooMuchContention.
    """
    return (await transacted(store, task_id, decide, operation=operation)).answer


async def transacted(
    store: Store,
    task_id: str,
    decide: Callable[[Snapshot], Decision],
    *,
    operation: Operation | None = None,
    seen: Snapshot | None = None,
    admission: Admission | None = None,
) -> Done:
    """``transact``, and what is there after it. ``seen`` takes the place of the first read: when it is out of date, the
    commit conflicts. ``admission`` is checked for a launch: HINDERED when it may not begin now.
    """
    for turn in range(_ROUNDS):
        snapshot = seen if seen is not None and turn == 0 else await store.read(task_id)
        decision = decide(snapshot)
        following = None if decision.execution is snapshot.execution else decision.execution
        if following is None and operation is None:
            return Done(decision.answer, snapshot)
        if operation is not None and not decision.is_final:
            # Not remembered by this decision, but perhaps by an earlier one that was final.
            return Done(await store.remembered(operation) or decision.answer)
        result = await store.commit(snapshot, following, decision.answer, operation=operation, admission=admission)
        if result.hindrance is not None:
            return Done(Answer(Reply.HINDERED, task_id, detail=result.hindrance), snapshot)
        if result.committed is Committed.REPEATED and result.answer is not None:
            return Done(result.answer)
        if result.committed is not Committed.CONFLICT:
            return Done(decision.answer, result.following)
    raise TooMuchContention(f"task {task_id} was changed by others {_ROUNDS} times in a row; try again")


async def alter(
    store: Store, task_id: str, following: Callable[[Execution, int], Execution], *, incarnation: str | None = None
) -> Answer:
    """Commit what ``following(execution, now_ms)`` makes of the execution as it is by then.

    ACCEPTED when that changed something, NOTHING_TO_DO when it did not, when there is no record, or when the record
    is not of the ``incarnation`` that the caller looked at: one made anew is none of its business.
    """
    return await transact(store, task_id, _altering(task_id, following, incarnation))


async def alter_seen(
    store: Store,
    seen: Snapshot,
    following: Callable[[Execution, int], Execution],
    *,
    admission: Admission | None = None,
) -> Done:
    """The same for an execution that was just read, which saves reading it again; any other incarnation is left."""
    incarnation = seen.execution.state.incarnation if seen.execution else None
    decide = _altering(seen.task_id, following, incarnation)
    return await transacted(store, seen.task_id, decide, seen=seen, admission=admission)


def _altering(
    task_id: str, following: Callable[[Execution, int], Execution], incarnation: str | None
) -> Callable[[Snapshot], Decision]:
    def decide(seen: Snapshot) -> Decision:
        found = seen.execution
        if found is None or (incarnation is not None and found.state.incarnation != incarnation):
            return unchanged(found, Reply.NOTHING_TO_DO, task_id)
        after = following(found, seen.now_ms)
        if after is found:
            return unchanged(found, Reply.NOTHING_TO_DO, task_id)
        return changed(after, Reply.ACCEPTED)

    return decide
