"""The dashboard page: its files, and what a browser is told to hold them to. Knows no route and no person.

The files are in ``dashboard_page/``: plain HTML, CSS and JavaScript modules, served as they are, with no build step.
They come from this process only; the one other host is Google's, and only where people sign in with Google.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from executions.adapters.settings import Settings

FOLDER = Path(__file__).with_name("dashboard_page")
GOOGLE = "https://accounts.google.com/gsi/"
_CONFIG = "@CONFIG@"
_INDEX = "index.html"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class File:
    """One file, kept in memory. ``tag`` changes with its content."""

    content: bytes
    media_type: str
    tag: str


@dataclass(frozen=True, slots=True)
class Page:
    """The page for one set of settings. ``assets`` are by their path below ``/dashboard/assets/``."""

    index: File
    assets: Mapping[str, File]
    headers: Mapping[str, str]
    """Of the page itself."""


def open_page(settings: Settings, *, folder: Path = FOLDER) -> Page:
    """Read the files. What the page must know of the settings stands in it, and is nothing secret."""
    client_ids = settings.google_client_ids
    config = {
        "googleClientId": client_ids[0] if client_ids else None,
        "isLocal": settings.is_local,
        "namespace": settings.executions_namespace or None,
    }
    text = (folder / _INDEX).read_text(encoding="utf-8")
    index = text.replace(_CONFIG, html.escape(orjson.dumps(config).decode()))
    names = (path for path in folder.rglob("*") if path.suffix in _TYPES)
    return Page(
        _file(index.encode(), "text/html"),
        {path.relative_to(folder).as_posix(): _file(path.read_bytes(), _TYPES[path.suffix]) for path in names},
        _headers(uses_google=bool(client_ids)),
    )


def _file(content: bytes, media_type: str) -> File:
    return File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _headers(*, uses_google: bool) -> dict[str, str]:
    """Sources: the content security policy and the opener policy that Google Identity Services asks for
    (https://developers.google.com/identity/gsi/web/guides/get-google-api-clientid#content_security_policy)."""

    def sources(*paths: str) -> str:
        return " ".join(["'self'", *(GOOGLE + path for path in paths if uses_google)])

    policy = {
        "default-src": "'none'",
        "script-src": sources("client"),
        "style-src": sources("style"),
        "connect-src": sources(""),
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        **({"frame-src": GOOGLE} if uses_google else {}),
    }
    return {
        "content-security-policy": "; ".join(f"{name} {said}" for name, said in policy.items()),
        # Google's window tells ours who signed in, and its frame must learn on whose page it stands.
        "cross-origin-opener-policy": "same-origin-allow-popups" if uses_google else "same-origin",
        "referrer-policy": "strict-origin-when-cross-origin" if uses_google else "no-referrer",
        "x-frame-options": "DENY",
    }
