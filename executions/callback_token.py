"""Callback tokens: a worker proves which launch it is, so that its outcome can decide that launch and no other.

A token is an HMAC-SHA-256 over everything that makes a launch one of its kind. It is not stored: what it is made from
(key id, expiry) stands in the launch intent, so that a repeated launch hands out the very same token. Never reads the
keys: that is ``adapters/callback_keys.py``. What a proven launch may do is ``lifecycle``.

    v1.<key id>.<attempt>.<launch try>.<launch id>.<expiry, seconds since 1970>.<MAC, base64url>
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from executions.errors import AlakaiError
from executions.record import Launch

LIFE_MS = 30 * 24 * 3600 * 1000
"""Longer than any attempt; a token ends with its attempt anyway, because it is for that one only."""
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_ID_LENGTH = 32
_TOKEN = re.compile(
    rf"v1\.(?P<key_id>{KEY_ID.pattern})\.(?P<attempt>[1-9]\d{{0,8}})\.(?P<launch_try>[1-9]\d{{0,3}})"
    rf"\.(?P<launch_id>[A-Za-z0-9]{{{_ID_LENGTH}}})\.(?P<expires>[1-9]\d{{0,11}})\.(?P<mac>[A-Za-z0-9_-]{{43}})",
    re.ASCII,
)


class BadToken(AlakaiError):
    """A token that proves nothing: malformed, of an unknown key, forged, of another task, or expired."""


@dataclass(frozen=True, slots=True)
class LaunchProof:
    """One launch of one attempt, as a verified token names it. ``launch_id`` begins the launch's idempotency token,
    which no other incarnation, attempt or launch try has.
    """

    attempt: int
    launch_try: int
    launch_id: str

    def is_of(self, launch: Launch | None) -> bool:
        return launch is not None and launch_id(launch.token) == self.launch_id


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The installation's keys by id. ``current`` makes new tokens; all of them verify."""

    current: str
    keys: Mapping[str, bytes] = field(repr=False)
    audience: str
    """Whose tokens these are (the key prefix of the installation), so that two installations may share keys."""

    def token(self, task_id: str, attempt: int, launch: Launch) -> str | None:
        """The token of a launch, always the same one; None when its key is gone, or when it was made without."""
        key = self.keys.get(launch.callback_key or "")
        if key is None or launch.callback_expires_at is None:
            return None
        name = launch_id(launch.token)
        claims = f"{launch.callback_key}.{attempt}.{launch.launch_try}.{name}.{launch.callback_expires_at // 1000}"
        return f"v1.{claims}.{self._mac(key, task_id, claims)}"

    def proof(self, token: str, task_id: str, *, now_ms: int) -> LaunchProof:
        """The launch that a token is for. Raises BadToken, which does not say why: nobody shall learn from it."""
        match = _TOKEN.fullmatch(token)
        key = self.keys.get(match["key_id"]) if match else None
        if match is None or key is None:
            raise BadToken("not a callback token of ours")
        claims = token[len("v1.") :].rpartition(".")[0]
        is_genuine = hmac.compare_digest(self._mac(key, task_id, claims), match["mac"])
        if not is_genuine or int(match["expires"]) * 1000 <= now_ms:
            raise BadToken("not a callback token of ours")
        return LaunchProof(int(match["attempt"]), int(match["launch_try"]), match["launch_id"])

    def _mac(self, key: bytes, task_id: str, claims: str) -> str:
        # Neither a prefix nor a task id holds the separator, so no two launches have the same text.
        text = "\0".join(("alakai callback v1", self.audience, task_id, claims))
        return base64.urlsafe_b64encode(hmac.digest(key, text.encode(), "sha256")).rstrip(b"=").decode()


def launch_id(token: str) -> str:
    """What stands for a launch in its callback token: the first half of its idempotency token."""
    return token[:_ID_LENGTH]
