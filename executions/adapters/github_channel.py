"""Tells outcomes on GitHub: one comment per execution on the issue that its message names, updated by each outcome.

Which comment that is lies in Redis; where that is not known, also because an answer was lost, the comment is looked
for by the mark in its first line before another one is made. Never follows what a comment says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from executions.adapters.outbound import Outbound, Reply, failure_of
from executions.adapters.secret_file import SecretFile
from executions.adapters.told_messages import Told, ToldMessages
from executions.errors import NotDelivered
from executions.moment import iso_from_ms
from executions.notification import Notification, execution_mark, github_comment

_PAGE = 50
_PAGES = 40
_LARGEST_ANSWER = 16 * 1024 * 1024
"""A page of the longest comments there may be (65,536 characters each), as JSON."""
_LOOK_BACK_MS = 90 * 24 * 3600 * 1000
"""A comment that was updated longer ago is not looked for."""
_GONE = (404, 410)


class GitHubChannel:
    """``ports.Channel``."""

    def __init__(self, api_url: str, token: SecretFile, outbound: Outbound, told: ToldMessages) -> None:
        self.name = "github"
        self._api_url = api_url.rstrip("/")
        self._token = token
        self._outbound = outbound
        self._told = told

    def concerns(self, notification: Notification) -> bool:
        return "github" in notification.callbacks

    async def deliver(self, notification: Notification, *, now_ms: int) -> None:
        place = notification.callbacks["github"]
        issue = f"{place['repo']}#{place['issueNumber']}"
        known = await self._told.read(issue, notification.execution_id)
        if known is not None and known.order >= notification.order:
            return  # The comment says something newer.
        comment_id = known.message_id if known is not None else None
        body = orjson.dumps({"body": github_comment(notification)})
        if comment_id is None:
            comment_id = await self._found(place, notification, now_ms)
        if comment_id is not None and not await self._updated(place["repo"], comment_id, body, now_ms):
            comment_id = None  # Somebody removed it.
        if comment_id is None:
            comment_id = await self._created(place, body, now_ms)
        await self._told.write(issue, notification.execution_id, Told(comment_id, notification.order))

    async def close(self) -> None:
        await self._outbound.close()

    async def _found(self, place: Mapping[str, Any], notification: Notification, now_ms: int) -> str | None:
        mark = execution_mark(notification)
        for page in range(1, _PAGES + 1):
            query = {
                "per_page": str(_PAGE),
                "page": str(page),
                "since": iso_from_ms(now_ms - _LOOK_BACK_MS)[:19] + "Z",
            }
            comments = _decoded(await self._asked("GET", _comments(place), now_ms, query=query))
            for comment in comments if isinstance(comments, list) else ():
                if isinstance(comment, dict) and str(comment.get("body", "")).splitlines()[:1] == [mark]:
                    return str(comment["id"])
            if not isinstance(comments, list) or len(comments) < _PAGE:
                break
        return None

    async def _updated(self, repo: str, comment_id: str, body: bytes, now_ms: int) -> bool:
        reply = await self._sent("PATCH", f"/repos/{repo}/issues/comments/{comment_id}", body=body)
        if reply.status in _GONE:
            return False
        _check(reply, now_ms)
        return True

    async def _created(self, place: Mapping[str, Any], body: bytes, now_ms: int) -> str:
        made = _decoded(await self._asked("POST", _comments(place), now_ms, body=body))
        if not isinstance(made, dict) or not isinstance(made.get("id"), int):
            raise NotDelivered("GitHub answered something else than a comment")
        return str(made["id"])

    async def _asked(
        self, method: str, path: str, now_ms: int, *, body: bytes | None = None, query: Mapping[str, str] | None = None
    ) -> Reply:
        reply = await self._sent(method, path, body=body, query=query)
        _check(reply, now_ms)
        return reply

    async def _sent(
        self, method: str, path: str, *, body: bytes | None = None, query: Mapping[str, str] | None = None
    ) -> Reply:
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "Authorization": f"Bearer {self._token.text}",
            **({"Content-Type": "application/json"} if body is not None else {}),
        }
        return await self._outbound.request(
            method, f"{self._api_url}{path}", headers=headers, body=body, query=query, keep=_LARGEST_ANSWER
        )


def _comments(place: Mapping[str, Any]) -> str:
    return f"/repos/{place['repo']}/issues/{place['issueNumber']}/comments"


def _check(reply: Reply, now_ms: int) -> None:
    if reply.is_success:
        return
    failure = failure_of(reply, now_ms=now_ms, who="GitHub", is_shared=True)
    # GitHub's rate limits come as 403 too; who goes on asking under one is locked out.
    if reply.status in (403, 429):
        reset, left = reply.headers.get("X-RateLimit-Reset", ""), reply.headers.get("X-RateLimit-Remaining")
        wait_ms = failure.retry_after_ms
        if left == "0" and reset.isdecimal():
            wait_ms = max(wait_ms or 0, int(reset) * 1000 - now_ms)
        if wait_ms is not None:
            raise NotDelivered("GitHub's rate limit is reached", retry_after_ms=max(wait_ms, 0), is_for_all=True)
    raise failure


def _decoded(reply: Reply) -> Any:
    try:
        return orjson.loads(reply.body)
    except ValueError:
        raise NotDelivered("GitHub answered something else than JSON") from None
