"""What became of the work, and how it is told to ``/task-complete``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alakai_worker.launch import Launch

MESSAGE_LIMIT = 4096
_SHORT_LIMIT = 256
_URL_LIMIT = 2048


@dataclass(frozen=True)
class Outcome:
    """The end of one attempt. Made by ``Outcome.success`` and ``Outcome.failure``."""

    succeeded: bool
    error_message: str | None = None
    error_code: str | None = None
    """A stable code for machines, for example ``codex_transient_upstream``."""
    error_family: str | None = None
    """``transient_upstream`` makes a failure one that is retried automatically."""
    retry_not_before: str | float | None = None
    """ISO 8601 time or seconds since the epoch: when the upstream is willing again."""
    pull_request_url: str | None = None
    agent: Mapping[str, str] | None = None
    """``{"provider": "codex", "model": "…"}``"""

    @classmethod
    def success(cls, *, pull_request_url: str | None = None, agent: Mapping[str, str] | None = None) -> Outcome:
        return cls(True, pull_request_url=pull_request_url, agent=agent)

    @classmethod
    def failure(
        cls,
        message: str,
        *,
        code: str | None = None,
        family: str | None = None,
        retry_not_before: str | float | None = None,
        agent: Mapping[str, str] | None = None,
    ) -> Outcome:
        return cls(False, message, code, family, retry_not_before, agent=agent)

    def body(self, launch: Launch) -> dict[str, Any]:
        """The callback's body. Texts are cut to what the callback takes: a refused body would lose the outcome."""
        result = {
            "status": "success" if self.succeeded else "error",
            "errorMessage": _cut(self.error_message, MESSAGE_LIMIT),
            "errorCode": _cut(self.error_code, _SHORT_LIMIT),
            "errorFamily": _cut(self.error_family, _SHORT_LIMIT),
            "retryNotBefore": _moment(self.retry_not_before),
            "pullRequestUrl": _url(self.pull_request_url),
        }
        body = {
            "taskId": launch.task_id,
            "attempt": launch.attempt,
            "launchTry": launch.launch_try,
            "result": _without_nulls(result),
            "agent": self.told_agent(),
            "token": launch.token,
        }
        return _without_nulls(body)

    def told_agent(self) -> dict[str, Any] | None:
        """Provider and model as they are reported, None when neither is known."""
        agent = self.agent or {}
        known = {name: _cut(agent.get(name), _SHORT_LIMIT) for name in ("provider", "model")}
        return _without_nulls(known) or None


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _cut(text: object, limit: int) -> str | None:
    """A command's output may hold bytes that are no text; a lone surrogate would make the whole body invalid."""
    if not isinstance(text, str):
        return None if text is None else _cut(str(text), limit)
    return text[:limit].encode("utf-8", "replace").decode()


def _url(url: str | None) -> str | None:
    # Half a URL leads nowhere, so it is told whole or not at all.
    return None if url is None or len(url) > _URL_LIMIT else _cut(url, _URL_LIMIT)


def _moment(value: str | float | None) -> str | float | None:
    return _cut(value, _SHORT_LIMIT) if isinstance(value, str) else value
