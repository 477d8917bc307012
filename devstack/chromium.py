"""The rungs that lead to a Chromium. Only the tests of pages need one; nothing that runs a stack asks for it.

Each rung asks its browser for the version before it gives it, so that one without its libraries is passed over.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from devstack.cache import Entry
from devstack.console import Progress, say
from devstack.ladder import Missed

NEEDED_MAJOR = 132
"""Since then `--headless` is the browser that people have; before, it was another program beside it."""
NAMES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    *("chromium-headless-shell", "chrome-headless-shell"),
)
MAC_NAMES = ("Google Chrome", "Chromium", "Google Chrome for Testing")
DOWNLOADED = ("chrome-headless-shell", "headless_shell")
"""How Playwright's browser is called, which differs by platform."""

PLAYWRIGHT = (sys.executable, "-m", "playwright", "install", "chromium-headless-shell")
APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3")
VERSION_SECONDS = 30.0
CONNECTION_SECONDS = 8
QUIET_SECONDS = 60.0
"""A download that says nothing for this long has stopped: both of them tell every tenth or every package."""
DOWNLOAD_SECONDS = 600.0
UPDATE_SECONDS = 180.0
POLL_SECONDS = 0.2


def chromium_of_variable() -> dict[str, Path]:
    """The browser named by CHROMIUM."""
    if not (browser := os.environ.get("CHROMIUM")):
        raise Missed("not set")
    if not os.access(browser, os.X_OK) or Path(browser).is_dir():
        raise Missed(f"{browser} is not an executable file")
    return _tried(Path(browser).absolute())


def chromium_of_machine() -> dict[str, Path]:
    """The first good one on PATH or, on macOS, among the applications."""
    on_path = [Path(found).absolute() for name in NAMES if (found := shutil.which(name))]
    folders = [Path("/Applications"), Path.home() / "Applications"]
    installed = [folder / f"{name}.app/Contents/MacOS/{name}" for folder in folders for name in MAC_NAMES]
    misses = []
    for path in [*on_path, *filter(Path.is_file, installed)]:
        try:
            return _tried(path, snap=False)
        except Missed as miss:
            misses.append(str(miss))
    raise Missed("; ".join(misses) or "none")


def download_chromium(command: Sequence[str] = PLAYWRIGHT) -> dict[str, Path]:
    """The one that belongs to the installed Playwright, from its makers, into the cache."""
    revision, version = _wanted_by_playwright()
    entry = Entry("chromium-headless-shell", revision, ("chromium",))
    if not entry.is_complete:
        say(f"Fetching Chromium {version}, once for this user: about 110 MB, 270 MB on disk.")

    def make(folder: Path) -> None:
        own = {"PLAYWRIGHT_BROWSERS_PATH": str(folder), "PLAYWRIGHT_SKIP_BROWSER_GC": "1"}
        own["PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT"] = f"{CONNECTION_SECONDS * 1000}"
        _run(command, "downloading Chromium", DOWNLOAD_SECONDS, own)
        for path in (path for name in DOWNLOADED for path in folder.rglob(name) if path.is_file()):
            (folder / "chromium").symlink_to(path.relative_to(folder))
            break

    try:
        found = entry.fill(make)
    except OSError as error:
        raise Missed(str(error)) from error
    return _tried(found["chromium"].resolve())  # it looks for its files beside the path that it was started by


def install_chromium(apt: Sequence[str] = APT) -> dict[str, Path]:
    """Debian's package. Only the downloads are bounded in time: an installation that is killed leaves a mess."""
    if os.geteuid() != 0 or shutil.which(apt[0]) is None:
        raise Missed("only for root, where there is apt-get")
    say("Installing the package chromium with apt-get, for the tests of pages: about 150 MB to download.")
    install = [*apt, "install", "--no-install-recommends"]
    environ = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        _run([*apt, "update"], "apt-get update", UPDATE_SECONDS, environ)
        _run([*install, "--download-only", "chromium"], "downloading the package", DOWNLOAD_SECONDS, environ)
        _run([*install, "chromium"], "installing the package", None, environ)
    except OSError as error:
        raise Missed(str(error)) from error
    return chromium_of_machine()


def _tried(browser: Path, *, snap: bool = True) -> dict[str, Path]:
    try:
        answer = subprocess.run([browser, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missed(f"{browser} does not start: {error}") from error
    version = re.search(r"\b(\d+)(?:\.\d+){3}( snap)?", answer.stdout)
    if answer.returncode or version is None:
        said = [line.strip() for line in (answer.stdout + answer.stderr).splitlines() if line.strip()]
        raise Missed(f"{browser} does not start: {said[-1] if said else f'it ended with {answer.returncode}'}")
    if int(version[1]) < NEEDED_MAJOR:
        raise Missed(f"{browser} is {version[1]}, older than {NEEDED_MAJOR}")
    if version[2] and not snap:
        raise Missed(f"{browser} is a snap, which cannot write to our folders")
    return {"chromium": browser}


def _wanted_by_playwright() -> tuple[str, str]:
    """Revision and version."""
    spec = importlib.util.find_spec("playwright")
    if spec is None or spec.origin is None:
        raise Missed("the package playwright is not installed")
    browsers = json.loads((Path(spec.origin).parent / "driver/package/browsers.json").read_text())["browsers"]
    browser = next(browser for browser in browsers if browser["name"] == "chromium-headless-shell")
    return browser["revision"], browser["browserVersion"]


def _run(command: Sequence[str], what: str, seconds: float | None, environ: Mapping[str, str]) -> None:
    """Run it to its end, telling how far it is. Raises OSError, also when it takes too long or stands still."""
    progress = Progress(what)
    started = last_change = time.monotonic()
    size = 0
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            env=os.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=seconds is not None,  # so that its children can be ended with it
        )
        try:
            while process.poll() is None:
                now = time.monotonic()
                if (grown := os.fstat(output.fileno()).st_size) != size:
                    size, last_change = grown, now
                    progress.show(_lines(output.fileno(), size)[-1][-60:])
                if seconds is not None and now - started > seconds:
                    raise TimeoutError(f"not complete after {seconds:.0f} s")
                if seconds is not None and now - last_change > QUIET_SECONDS:
                    raise TimeoutError(f"nothing came for {QUIET_SECONDS:.0f} s")
                time.sleep(POLL_SECONDS)
        finally:
            if seconds is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            progress.end()
        if process.returncode:
            said = _lines(output.fileno(), os.fstat(output.fileno()).st_size)
            errors = [line for line in said if line.startswith(("E:", "Error:"))]
            raise OSError((errors or said)[0] or f"{command[0]} ended with {process.returncode}")


def _lines(descriptor: int, size: int) -> list[str]:
    """What a command said, without colours; never empty."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", os.pread(descriptor, size, 0).decode(errors="replace"))
    return [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()] or [""]
