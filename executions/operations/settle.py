"""Take over what hands did to a record: one that was written or edited becomes ours, of a removed one nothing is left.

The commit writes lists and sequence anew, so it also mends lists that do not fit their record.
"""

from __future__ import annotations

import structlog

from executions.answer import Answer, Decision, Reply, unchanged
from executions.link import kept_from
from executions.operations.transact import transact
from executions.ports import Committed, Snapshot, Store
from executions.record import adopted

_log = structlog.get_logger(__name__)


async def settle(store: Store, snapshot: Snapshot) -> None:
    """Raises the store's errors."""
    task_id = snapshot.task_id
    if snapshot.execution is None:
        result = await store.commit(snapshot, None, Answer(Reply.ACCEPTED, task_id))
        if result.committed is Committed.WRITTEN:
            _log.info("A record was removed by hand", task_id=task_id)
        return

    def adopt(seen: Snapshot) -> Decision:
        if seen.execution is None:
            return unchanged(None, Reply.NOT_FOUND, task_id)
        return Decision(kept_from(adopted(seen.execution), seen.now_ms), Answer(Reply.ACCEPTED, task_id))

    await transact(store, task_id, adopt)
    _log.info("A record was written by hand", task_id=task_id, attempt=snapshot.execution.latest.number)
