"""How the browser of tests, measurements and screenshots is started: with no window, and asking nobody by itself."""

from __future__ import annotations

from typing import Any

from devstack import binaries

FLAGS = ("--disable-gpu", "--disable-quic", "--disable-sync", "--no-first-run", "--disable-background-networking")
"""Beside Playwright's own, which also bring a fresh profile, no sandbox and no updates."""


def launch_options() -> dict[str, Any]:
    """For Playwright's ``chromium.launch``. Raises DevstackError where there is no browser to be had."""
    return {"executable_path": binaries.chromium(), "args": list(FLAGS)}
