"""The keys of the callback tokens, from a file that may change while we run: a mounted Secret is replaced in place.

    current: "2026-11"          # makes new tokens
    keys:                       # all of them verify, so that a key can be replaced under running workers
      "2026-11": <base64 of at least 32 random bytes>
      "2026-05": <base64 of at least 32 random bytes>

A file that cannot be used stops start-up; later it is told in one line and the keys that are known stay.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from executions.adapters.settings import Settings
from executions.adapters.watched_file import WatchedFile
from executions.callback_token import KEY_ID, KeyRing
from executions.errors import InvalidSettings

VARIABLE = "CALLBACK_TOKEN_KEYS_FILE"
KEY_BYTES = 32
"""The least that HMAC-SHA-256 makes full use of (RFC 2104, section 3)."""


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    current: str
    keys: dict[str, str]


class CallbackKeys:
    """The key ring of a file, as new as a second ago."""

    def __init__(self, path: Path, audience: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InvalidSettings with one line that says what is wrong with the file, never what is in it."""
        self._file = WatchedFile(
            path,
            lambda found: ring_from_file(found, audience),
            what="The callback keys",
            about=lambda ring: {"current": ring.current, "keys": len(ring.keys)},
            clock=clock,
        )

    @property
    def ring(self) -> KeyRing:
        return self._file.value


def open_callback_keys(settings: Settings) -> CallbackKeys | None:
    """The keys of these settings, None where callbacks carry no token. Raises InvalidSettings."""
    if not settings.callback_token_keys_file:
        if settings.callback_token_required:
            raise InvalidSettings(f"CALLBACK_TOKEN_REQUIRED is set and {VARIABLE} is not; set it to the file of keys")
        return None
    return CallbackKeys(Path(settings.callback_token_keys_file), settings.executions_redis_key_prefix)


def ring_from_file(path: Path, audience: str) -> KeyRing:
    """Read and check the file. Raises InvalidSettings."""
    try:
        found = _File.model_validate(yaml.safe_load(path.read_bytes()))
    except OSError as error:
        raise _invalid(f"names {path}, which cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(f"names {path}, which is neither YAML nor JSON") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"][:1]) or "the document"
        raise _invalid(f"names {path}, where {field!r} is invalid ({first['type']})") from error
    if found.current not in found.keys:
        raise _invalid(f"names {path}, where 'current' is none of the keys")
    return KeyRing(found.current, {key_id: _key(path, key_id, text) for key_id, text in found.keys.items()}, audience)


def _key(path: Path, key_id: str, text: str) -> bytes:
    if not KEY_ID.fullmatch(key_id):
        raise _invalid(f"names {path}, where a key's id is not 1 to 32 of A-Z, a-z, 0-9, - and _")
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) < KEY_BYTES:
        raise _invalid(f"names {path}, where key {key_id!r} is not the base64 of {KEY_BYTES} or more bytes")
    return key


def _invalid(text: str) -> InvalidSettings:
    return InvalidSettings(f"{VARIABLE} {text}; make a key with: openssl rand -base64 32")
