"""Which launch this process is: read once from the environment that the launcher gave it.

Never talks to anybody: that is ``client``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

GIVE_UP_SECONDS = 3600.0
"""Longer than the longest outage that the control plane is expected to have."""


class InvalidEnvironment(Exception):
    """The launcher's environment is missing something; the text names the variable."""


@dataclass(frozen=True)
class Launch:
    """One launch of one attempt of a task."""

    task_id: str
    attempt: int
    launch_try: int
    claim_url: str
    callback_url: str
    trace_id: str
    task_type: str = "unknown"
    token: str | None = field(default=None, repr=False)
    """Proves to the control plane that a call comes from this launch; a secret."""
    give_up_seconds: float = GIVE_UP_SECONDS
    """How long one call is repeated before it counts as failed."""


def launch_from_environment(environ: Mapping[str, str]) -> Launch:
    """Read the ``ALAKAI_*`` variables. Raises InvalidEnvironment."""
    task_id = _text(environ, "ALAKAI_TASK_ID")
    return Launch(
        task_id=task_id,
        attempt=_count(environ, "ALAKAI_ATTEMPT"),
        launch_try=_count(environ, "ALAKAI_LAUNCH_TRY"),
        claim_url=_url(environ, "ALAKAI_CLAIM_URL"),
        callback_url=_url(environ, "ALAKAI_CALLBACK_URL"),
        trace_id=environ.get("ALAKAI_TRACE_ID") or task_id,
        task_type=environ.get("ALAKAI_TASK_TYPE") or "unknown",
        token=environ.get("ALAKAI_CALLBACK_TOKEN") or None,
        give_up_seconds=_seconds(environ, "ALAKAI_GIVE_UP_SECONDS", GIVE_UP_SECONDS),
    )


def _text(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise InvalidEnvironment(f"{name} is not set; a worker is started by a launcher, which sets it")
    return value


def _count(environ: Mapping[str, str], name: str) -> int:
    value = _text(environ, name)
    if not value.isascii() or not value.isdigit() or int(value[:9]) < 1:
        raise InvalidEnvironment(f"{name} must be a whole number from 1 on")
    return int(value[:9])


def _url(environ: Mapping[str, str], name: str) -> str:
    value = _text(environ, name)
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not value.isascii() or any(character.isspace() for character in value):
        raise InvalidEnvironment(f"{name} must be an http or https URL, for example http://localhost:3000/task-claim")
    return value


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(environ.get(name) or default)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InvalidEnvironment(f"{name} must be a number of seconds, 0 or more")
    return value
