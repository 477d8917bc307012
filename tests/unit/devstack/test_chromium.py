"""The rungs of Chromium: a browser is taken when it tells a version that is new enough; nothing waits for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from devstack import binaries, chromium
from devstack.cache import cache_root
from devstack.errors import NothingFound
from devstack.ladder import Missed

NEW = "156.0.8078.108"


@pytest.fixture(autouse=True)
def _bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CHROMIUM", raising=False)
    (tmp_path / "bin").mkdir()


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def browser(path: Path, version: str = NEW) -> Path:
    return script(path, f'[ "$1" = --version ] && echo "Chromium {version}"')


def installer(tmp_path: Path, *lines: str) -> list[str]:
    """A command that does what Playwright's would."""
    return [str(script(tmp_path / "installer", "PATH=/bin:/usr/bin", *lines))]


def a_download(tmp_path: Path, name: str, version: str = NEW) -> list[str]:
    shell = browser(tmp_path / "made" / name, version)
    folder = "$PLAYWRIGHT_BROWSERS_PATH/chromium_headless_shell-1/chrome-headless-shell-linux64"
    return installer(tmp_path, f'mkdir -p "{folder}"', f'cp "{shell}" "{folder}/"')


def test_the_order_of_the_rungs() -> None:
    assert [rung.name for rung in binaries.CHROMIUM_LADDER.rungs] == [
        "CHROMIUM",
        "on this machine",
        "cache, or Playwright's download",
        "apt-get install chromium",
    ]


def test_the_variable_wins_over_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = browser(tmp_path / "mine" / "my-chrome")
    browser(tmp_path / "bin" / "chromium")
    monkeypatch.setenv("CHROMIUM", str(mine))
    assert binaries.CHROMIUM_LADDER.climb() == {"chromium": mine}


@pytest.mark.parametrize("path", ["bin", "nowhere"])
def test_a_variable_that_names_no_program_is_a_miss(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", str(tmp_path / path))
    with pytest.raises(Missed, match="is not an executable file"):
        chromium.chromium_of_variable()


@pytest.mark.parametrize("name", chromium.NAMES)
def test_every_usual_name_is_found(name: str, tmp_path: Path) -> None:
    found = browser(tmp_path / "bin" / name)
    assert chromium.chromium_of_machine() == {"chromium": found}


def test_an_application_of_a_mac_is_found(tmp_path: Path) -> None:
    path = "home/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    found = script(tmp_path / path, f'echo "Google Chrome {NEW} "')
    assert chromium.chromium_of_machine() == {"chromium": found}


def test_an_old_one_is_passed_over_for_the_next(tmp_path: Path) -> None:
    browser(tmp_path / "bin" / "chromium", "131.0.6778.204")
    good = browser(tmp_path / "bin" / "google-chrome", "132.0.6834.83")
    assert chromium.chromium_of_machine() == {"chromium": good}


def test_each_that_is_passed_over_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bin"
    browser(bare / "chromium", "120.0.6099.224")
    browser(bare / "chromium-browser", f"{NEW} snap")
    script(bare / "chrome", "echo 'error while loading shared libraries: libnss3.so' >&2", "exit 127")
    (bare / "google-chrome").write_text("not a program")
    (bare / "google-chrome").chmod(0o755)
    with pytest.raises(Missed) as caught:
        chromium.chromium_of_machine()
    reasons = str(caught.value).split("; ")
    assert len(reasons) == 4
    assert f"{bare}/chromium is 120, older than 132" in reasons
    assert f"{bare}/chromium-browser is a snap, which cannot write to our folders" in reasons
    assert f"{bare}/chrome does not start: error while loading shared libraries: libnss3.so" in reasons
    assert f"{bare}/google-chrome does not start: [Errno 8]" in str(caught.value)


def test_a_snap_that_somebody_asks_for_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = browser(tmp_path / "mine", f"{NEW} snap")
    monkeypatch.setenv("CHROMIUM", str(mine))
    assert chromium.chromium_of_variable() == {"chromium": mine}


def test_one_that_does_not_answer_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin" / "chromium", "exec /bin/sleep 60")
    monkeypatch.setattr(chromium, "VERSION_SECONDS", 0.05)
    with pytest.raises(Missed, match=r"does not start: .* timed out"):
        chromium.chromium_of_machine()


@pytest.mark.parametrize("name", chromium.DOWNLOADED)
def test_a_download_is_kept_for_the_next_time(name: str, tmp_path: Path) -> None:
    found = chromium.download_chromium(a_download(tmp_path, name))["chromium"]
    assert found.name == name  # not a link: it looks for its own files beside its path
    assert found.is_relative_to(cache_root())
    assert chromium.download_chromium(installer(tmp_path, "exit 1")) == {"chromium": found}


def test_a_download_that_fails_is_a_miss_with_its_first_error(tmp_path: Path) -> None:
    command = installer(
        tmp_path,
        "printf 'Downloading\\033[2m from somewhere\\033[22m\\n'",
        "echo 'Error: getaddrinfo ENOTFOUND somewhere'",
        "echo 'Error: Download failure, code=1'",
        "exit 1",
    )
    with pytest.raises(Missed, match=r"^Error: getaddrinfo ENOTFOUND somewhere$"):
        chromium.download_chromium(command)
    assert [path for path in cache_root().iterdir() if path.is_dir()] == []


def test_a_download_without_a_browser_is_a_miss(tmp_path: Path) -> None:
    with pytest.raises(Missed, match="came without chromium"):
        chromium.download_chromium(installer(tmp_path, "echo Skipping browsers download"))


def test_a_downloaded_one_that_lacks_libraries_is_a_miss(tmp_path: Path) -> None:
    with pytest.raises(Missed, match="does not start"):
        chromium.download_chromium(a_download(tmp_path, "headless_shell", "no version"))


@pytest.mark.parametrize(
    ("limit", "said"), [("DOWNLOAD_SECONDS", "not complete after"), ("QUIET_SECONDS", "nothing came for")]
)
def test_a_download_that_stands_still_is_ended_with_its_children(
    limit: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chromium, limit, 0.2)
    monkeypatch.setattr(chromium, "POLL_SECONDS", 0.01)
    command = installer(tmp_path, "sleep 60 &", f"echo $! > {tmp_path / 'child'}", "wait")
    with pytest.raises(Missed, match=said):
        chromium.download_chromium(command)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not _is_gone(child):
        time.sleep(0.01)
    assert _is_gone(child)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_apt_is_for_root_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Missed, match="only for root"):
        chromium.install_chromium()


def test_apt_updates_downloads_and_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = browser(tmp_path / "made")
    script(
        tmp_path / "bin" / "apt-get",
        f'echo "$DEBIAN_FRONTEND: $*" >> {tmp_path}/log',
        f'case "$*" in *download-only*|*update) ;; *) /bin/cp {made} {tmp_path}/bin/chromium;; esac',
    )
    assert chromium.install_chromium(["apt-get"]) == {"chromium": tmp_path / "bin" / "chromium"}
    assert (tmp_path / "log").read_text().splitlines() == [
        "noninteractive: update",
        "noninteractive: install --no-install-recommends --download-only chromium",
        "noninteractive: install --no-install-recommends chromium",
    ]


def test_a_package_that_apt_does_not_have_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    refusal = "E: Package 'chromium' has no installation candidate"
    script(tmp_path / "bin" / "apt-get", "echo Reading package lists...", f'echo "{refusal}" >&2', "exit 100")
    with pytest.raises(Missed, match=f"^{refusal}$"):
        chromium.install_chromium(["apt-get"])


def test_where_there_is_none_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rungs = binaries.CHROMIUM_LADDER.rungs
    nothing = [type(rung)(rung.name, _miss) if rung.name.startswith(("cache", "apt")) else rung for rung in rungs]
    ladder = type(binaries.CHROMIUM_LADDER)("Chromium", tuple(nothing), binaries.CHROMIUM_LADDER.advice)
    with pytest.raises(NothingFound, match=r"^no Chromium could be had\. Install .* or set CHROMIUM=/path/of/chromium"):
        ladder.climb()


def _miss() -> dict[str, Path]:
    raise Missed("no network")
