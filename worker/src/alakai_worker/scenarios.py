"""Work that is only pretended: how the whole path is tried on a developer's machine.

Which attempt plays which scenario is the local launcher's decision; here each scenario is simply played.
"""

from __future__ import annotations

import os
import re
import time
import zlib

from alakai_worker.client import Claimed
from alakai_worker.outcome import Outcome
from alakai_worker.worker import Work

SHORT_SECONDS = 0.2
SLOW_SECONDS = 4.0
SLOW_LIMIT_SECONDS = 86_400
DIED_EXIT_CODE = 1
_REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}", re.ASCII)


def succeed(claimed: Claimed) -> Outcome:
    """A little work, then a pull request where the task names a repository."""
    time.sleep(SHORT_SECONDS)
    return Outcome.success(pull_request_url=_pull_request_url(claimed), agent=_agent(claimed))


def slow(claimed: Claimed) -> Outcome:
    """Like ``succeed``, after ``payload.seconds`` (a number)."""
    seconds = claimed.payload.get("seconds", SLOW_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= SLOW_LIMIT_SECONDS:
        return Outcome.failure(f"payload.seconds must be a number from 0 to {SLOW_LIMIT_SECONDS}", code="WORKER_FAILED")
    time.sleep(seconds)
    return Outcome.success(pull_request_url=_pull_request_url(claimed), agent=_agent(claimed))


def fail(claimed: Claimed) -> Outcome:
    """The work went wrong for good."""
    return Outcome.failure("the scenario fails on purpose", code="WORKER_FAILED", agent=_agent(claimed))


def transient(claimed: Claimed) -> Outcome:
    """The agent's provider is overloaded: the kind of failure that is retried automatically."""
    agent = _agent(claimed) or {"provider": "codex"}
    provider = agent.get("provider", "codex")
    return Outcome.failure(
        f"{provider} is overloaded", code=f"{provider}_transient_upstream", family="transient_upstream", agent=agent
    )


def die(claimed: Claimed) -> Outcome:
    """The process ends without a word, as after a crash."""
    os._exit(DIED_EXIT_CODE)


def hang(claimed: Claimed) -> Outcome:
    """Never comes to an end by itself."""
    while True:
        time.sleep(3600)


SCENARIOS: dict[str, Work] = {
    "succeed": succeed,
    "slow": slow,
    "fail": fail,
    "transient": transient,
    "die": die,
    "hang": hang,
}


def _agent(claimed: Claimed) -> dict[str, str] | None:
    agent = claimed.payload.get("agent")
    if not isinstance(agent, dict):
        return None
    known = {name: agent[name] for name in ("provider", "model") if isinstance(agent.get(name), str)}
    return known or None


def _pull_request_url(claimed: Claimed) -> str | None:
    repository = claimed.payload.get("repo")
    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository):
        return None
    number = zlib.crc32(claimed.launch.task_id.encode()) % 9000 + 1000
    return f"https://github.com/{repository}/pull/{number}"
