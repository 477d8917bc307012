"""The one way to change an execution: read, decide, commit; on a conflict the decision is made anew."""

from __future__ import annotations

from collections.abc import Callable

from executions.answer import Answer, Decision, Reply, changed, unchanged
from executions.errors import TooMuchContention
from executions.ports import Committed, Operation, Snapshot, Store
from executions.record import Execution

_ROUNDS = 50
"""Far more than any honest race needs: each round means that another writer made progress."""


async def transact(
    store: Store,
    task_id: str,
    decide: Callable[[Snapshot], Decision],
    *,
    operation: Operation | None = None,
) -> Answer:
    """Commit what ``decide`` decides and return its answer.

    A decision that changes nothing is committed only when an operation must be remembered with it. The repeat of a
    remembered operation returns the answer that was given first. Raises StoreUnavailable, RecordUnreadable and
    TooMuchContention.
    """
    for _ in range(_ROUNDS):
        snapshot = await store.read(task_id)
        decision = decide(snapshot)
        following = None if decision.execution is snapshot.execution else decision.execution
        if following is None and operation is None:
            return decision.answer
        if operation is not None and not decision.is_final:
            # Not remembered by this decision, but perhaps by an earlier one that was final.
            return await store.remembered(operation) or decision.answer
        result = await store.commit(snapshot, following, decision.answer, operation=operation)
        if result.committed is Committed.REPEATED and result.answer is not None:
            return result.answer
        if result.committed is not Committed.CONFLICT:
            return decision.answer
    raise TooMuchContention(f"task {task_id} was changed by others {_ROUNDS} times in a row; try again")


async def alter(
    store: Store, task_id: str, following: Callable[[Execution, int], Execution], *, incarnation: str | None = None
) -> Answer:
    """Commit what ``following(execution, now_ms)`` makes of the execution as it is by then.

    ACCEPTED when that changed something, NOTHING_TO_DO when it did not, when there is no record, or when the record
    is not of the ``incarnation`` that the caller looked at: one made anew is none of its business.
    """

    def decide(seen: Snapshot) -> Decision:
        found = seen.execution
        if found is None or (incarnation is not None and found.state.incarnation != incarnation):
            return unchanged(found, Reply.NOTHING_TO_DO, task_id)
        after = following(found, seen.now_ms)
        if after is found:
            return unchanged(found, Reply.NOTHING_TO_DO, task_id)
        return changed(after, Reply.ACCEPTED)

    return await transact(store, task_id, decide)
