"""``alakai retry``, ``cancel``, ``done`` and ``assign``: what the dashboard does, by its public HTTP routes."""

from __future__ import annotations

from collections.abc import Mapping

from cli.api import Api, ApiRefused

_GOOD = (200, 202)


def retry(values: Mapping[str, str | None], *, dry_run: bool = False) -> None:
    """``values``: task_id, core_url, dev_user, auth_token. Prints the status code and the body. Raises ApiRefused."""
    task_id = values.get("task_id")
    if not task_id:
        raise ApiRefused("task_id is missing; give the queue-task-id, for example task_id=impl-e2e")
    api = Api.of(values.get("core_url"), dev_user=values.get("dev_user"), auth_token=values.get("auth_token"))
    _told(api.control(task_id, "retry", {}, dry_run=dry_run), "nothing was retried")


def act(api: Api, task_id: str, deed: str, body: Mapping[str, str]) -> None:
    """The other ones. Prints the status code and the body. Raises ApiRefused."""
    _told(api.control(task_id, deed, body), "nothing was changed")


def _told(answer: tuple[int, str], otherwise: str) -> None:
    status, body = answer
    print(f"{status} {body}", flush=True)
    if status not in _GOOD:
        raise ApiRefused(f"the API answered {status}; {otherwise}")
