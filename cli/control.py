"""``alakai retry``, ``cancel``, ``done`` and ``assign``: what the dashboard does, by its public HTTP routes."""

from __future__ import annotations

from collections.abc import Mapping

from cli.api import Api, ApiRefused

_GOOD = (200, 202)
_DONE = {"retry": "retried", "cancel": "cancelled", "done": "changed", "assign": "assigned"}


def act(api: Api, task_id: str | None, deed: str, body: Mapping[str, str], *, dry_run: bool = False) -> None:
    """Prints the status code and the body. Raises ApiRefused."""
    if not task_id:
        raise ApiRefused("task_id is missing; give the queue-task-id, for example task_id=impl-e2e")
    status, answer = api.control(task_id, deed, body, dry_run=dry_run)
    print(f"{status} {answer}", flush=True)
    if status not in _GOOD:
        raise ApiRefused(f"the API answered {status}; nothing was {_DONE[deed]}")
