"""``alakai retry``: the dashboard's retry, by its public HTTP route."""

from __future__ import annotations

import os
from collections.abc import Mapping
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from executions.errors import AlakaiError

_SECONDS = 30


class RetryRefused(AlakaiError):
    """The API answered something else than 202, or nothing."""


def run(values: Mapping[str, str | None], *, dry_run: bool = False) -> None:
    """``values``: task_id, core_url, dev_user, auth_token. Prints the status code and the body."""
    task_id = values.get("task_id")
    if not task_id:
        raise RetryRefused("task_id is missing; give the queue-task-id, for example task_id=impl-e2e")
    core_url = values.get("core_url") or f"http://localhost:{os.environ.get('PORT') or 3000}"
    if urlsplit(core_url).scheme not in ("http", "https"):
        raise RetryRefused("core_url must begin with http:// or https://")
    url = f"{core_url.rstrip('/')}/dashboard/executions/{quote(task_id, safe='')}/retry"
    headers = {"content-type": "application/json"}
    if token := values.get("auth_token"):
        headers["authorization"] = f"Bearer {token}"
    elif user := values.get("dev_user"):
        headers["x-dev-user"] = user
    status, body = _post(f"{url}?dryRun=true" if dry_run else url, headers)
    print(f"{status} {body}", flush=True)
    if status not in (200, 202):
        raise RetryRefused(f"the API answered {status}; nothing was retried")


def _post(url: str, headers: Mapping[str, str]) -> tuple[int, str]:
    request = Request(url, data=b"{}", headers=dict(headers), method="POST")  # noqa: S310 -- the scheme is checked
    try:
        with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            return answer.status, answer.read().decode("utf-8", "replace")
    except HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise RetryRefused(f"the API at {urlsplit(url).netloc} was not reached ({reason}); is it running?") from error
