"""``python -m tests.crash.process controller|api``: the real process, with a trap at one of its durable steps.

The adapters' methods are wrapped here, in this process only; without FAILPOINT it is the product as it is.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import api.__main__
import controller.__main__
from executions.adapters.ecs_launcher import EcsLauncher
from executions.adapters.kube_client import KubeClient
from executions.adapters.local_launcher import LocalLauncher
from executions.adapters.redis_lease import RedisLease
from executions.adapters.redis_payloads import RedisPayloads
from executions.adapters.redis_store import RedisStore
from executions.adapters.sqs_queue import SqsQueue
from executions.cluster import Unavailable
from executions.errors import LaunchUnclear, QueueUnavailable, QueueUnclear, StoreUnavailable
from tests.crash.failpoints import MARK_VARIABLE, VARIABLE, Failpoint, Trap, commit_step

_LOST = "the answer was lost (failpoint)"
_METHODS: tuple[tuple[type, str, str, Callable[[], Exception]], ...] = (
    (SqsQueue, "receive", "receive", lambda: QueueUnavailable(_LOST)),
    (SqsQueue, "delete", "sqs_delete", lambda: QueueUnavailable(_LOST)),
    (SqsQueue, "send", "retry_send", lambda: QueueUnclear(_LOST)),
    (RedisPayloads, "put", "payload", lambda: StoreUnavailable(_LOST)),
    (RedisLease, "hold", "lease", lambda: StoreUnavailable(_LOST)),
    (KubeClient, "create", "cr_create", lambda: Unavailable(_LOST)),
    (KubeClient, "patch_status", "cr_status", lambda: Unavailable(_LOST)),
    (KubeClient, "patch", "cr_patch", lambda: Unavailable(_LOST)),
    (KubeClient, "delete", "cr_delete", lambda: Unavailable(_LOST)),
    (KubeClient, "create_event", "event", lambda: Unavailable(_LOST)),
    *((launcher, "launch", "launch", lambda: LaunchUnclear(_LOST)) for launcher in (LocalLauncher, EcsLauncher)),
    *((launcher, "stop", "stop", lambda: LaunchUnclear(_LOST)) for launcher in (LocalLauncher, EcsLauncher)),
)


def set_up(trap: Trap) -> None:
    """Put the trap around every durable step of this process."""
    for owner, name, step, lost in _METHODS:
        setattr(owner, name, _trapped(trap, getattr(owner, name), lambda *_, step=step, **__: step, lost))
    RedisStore.commit = _trapped(  # type: ignore[method-assign]
        trap,
        RedisStore.commit,
        lambda _, snapshot, execution, *__, operation=None, **___: commit_step(
            snapshot.execution, execution, operation
        ),
        lambda: StoreUnavailable(_LOST),
    )


def _trapped(
    trap: Trap, method: Callable[..., Any], step_of: Callable[..., str], lost: Callable[[], Exception]
) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(*arguments: Any, **named: Any) -> Any:
        step = step_of(*arguments, **named)
        return await trap.around(step, lambda: method(*arguments, **named), lost)

    return call


def main(name: str) -> int:
    text = os.environ.get(VARIABLE)
    if text:
        set_up(Trap(Failpoint.from_text(text), Path(os.environ[MARK_VARIABLE])))
    return {"controller": lambda: controller.__main__.main([]), "api": api.__main__.main}[name]()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
