"""What is to be known beside a record to say why its launch waits, asked of the store."""

from __future__ import annotations

from executions.admission import Standing
from executions.explanation import Surroundings
from executions.index import Index
from executions.ports import Store
from executions.record import Execution, Status

HOLDERS_READ = 1000


async def surroundings_of(store: Store, execution: Execution) -> Surroundings:
    """Raises StoreUnavailable. Of an execution that waits for no launch only the time is asked for."""
    if execution.latest.status is not Status.PENDING or execution.latest.launch is not None:
        return Surroundings(None, (), Standing({}, {}), (), now_ms=await store.now_ms())
    return Surroundings(
        hold=await store.held(),
        breakers=await store.breakers(),
        standing=await store.standing(),
        holders=await store.members(Index.LIVE, limit=HOLDERS_READ),
        now_ms=await store.now_ms(),
    )
