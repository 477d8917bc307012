"""The rungs that lead to a Chromium, which only the browser tests need: nothing that runs a stack asks for it.

Every one is tried out by asking it for its version, so that one without its libraries, or too old, is passed over.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from devstack.ladder import Missed

NEEDED_MAJOR = 132
"""Since then `--headless` is the browser that people have; the older headless mode was another program."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell")
MAC_NAMES = ("Google Chrome", "Chromium", "Google Chrome for Testing")
VERSION_SECONDS = 30.0


def chromium_of_variable() -> dict[str, Path]:
    """The browser named by CHROMIUM."""
    if not (browser := os.environ.get("CHROMIUM")):
        raise Missed("not set")
    if not os.access(browser, os.X_OK) or Path(browser).is_dir():
        raise Missed(f"{browser} is not an executable file")
    return {"chromium": tried(Path(browser).absolute())}


def chromium_of_machine(which: Callable[[str], Path | None], applications: Iterable[Path]) -> dict[str, Path]:
    """The first good one on PATH or, on macOS, among the applications."""
    on_path = (path for name in NAMES if (path := which(name)) is not None)
    installed = (folder / f"{name}.app/Contents/MacOS/{name}" for folder in applications for name in MAC_NAMES)
    misses: list[str] = []
    for path in [*on_path, *(path for path in installed if path.is_file())]:
        try:
            return {"chromium": tried(path)}
        except Missed as miss:
            misses.append(str(miss))
    raise Missed("; ".join(misses) or "none")


def tried(browser: Path) -> Path:
    """The browser itself, once it has told a version that is new enough. Raises `Missed`."""
    try:
        answer = subprocess.run([browser, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missed(f"{browser} does not start: {error}") from error
    version = re.search(r"\b(\d+)(?:\.\d+){3}", answer.stdout)
    if answer.returncode or version is None:
        said = [line.strip() for line in (answer.stderr + answer.stdout).splitlines() if line.strip()]
        raise Missed(f"{browser} does not start: {said[-1] if said else f'it ended with {answer.returncode}'}")
    if int(version[1]) < NEEDED_MAJOR:
        raise Missed(f"{browser} is {version[0]}, older than {NEEDED_MAJOR}")
    return browser
