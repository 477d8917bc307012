"""Alakai's own API, as commands use it: where it is, who asks, what it answered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import orjson

from executions.errors import AlakaiError

_SECONDS = 30


class ApiRefused(AlakaiError):
    """The API answered something else than was hoped for, or nothing."""


@dataclass(frozen=True, slots=True)
class Api:
    """One API, asked by one person."""

    url: str
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, core_url: str | None, *, dev_user: str | None, auth_token: str | None) -> Api:
        """Raises ApiRefused for an address that is none. The token wins over the development sign-in."""
        url = core_url or f"http://localhost:{os.environ.get('PORT') or 3000}"
        if urlsplit(url).scheme not in ("http", "https"):
            raise ApiRefused("core_url must begin with http:// or https://")
        identity = {"authorization": f"Bearer {auth_token}"} if auth_token else {}
        if not identity and dev_user:
            identity = {"x-dev-user": dev_user}
        return cls(url.rstrip("/"), identity)

    def control(self, task_id: str, deed: str, body: Mapping[str, str], *, dry_run: bool = False) -> tuple[int, str]:
        """Status and body of ``POST /dashboard/executions/{taskId}/{deed}``. Raises ApiRefused when nobody answers."""
        query = "?dryRun=true" if dry_run else ""
        return self.post(f"/dashboard/executions/{quote(task_id, safe='')}/{deed}{query}", body)

    def post(self, path: str, body: Mapping[str, str]) -> tuple[int, str]:
        headers = {"content-type": "application/json", **self.headers}
        return self._asked(Request(f"{self.url}{path}", data=orjson.dumps(body), headers=headers, method="POST"))  # noqa: S310

    def get(self, path: str) -> tuple[int, str]:
        return self._asked(Request(f"{self.url}{path}", headers=dict(self.headers)))  # noqa: S310 -- it is checked

    def _asked(self, request: Request) -> tuple[int, str]:
        try:
            with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                return answer.status, answer.read().decode("utf-8", "replace")
        except HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace")
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise ApiRefused(
                f"the API at {urlsplit(self.url).netloc} was not reached ({reason}); is it running?"
            ) from error
