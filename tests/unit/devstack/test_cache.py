"""The cache: an entry is complete or absent, and is made once."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devstack.cache import Entry, cache_root, kept, platform_name

TOOL = Entry("tool", "1.2.3", ("bin/tool",))


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def make_tool(folder: Path) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "tool").write_text("#!/bin/sh\n")
    (folder / "bin" / "tool").chmod(0o755)


def visible() -> list[str]:
    """What a reader of the cache sees, lock files aside."""
    return sorted(path.name for path in cache_root().iterdir() if path.suffix != ".lock")


def test_the_folder_follows_xdg_and_names_version_and_platform(tmp_path: Path) -> None:
    assert TOOL.path == tmp_path / "alakai" / f"tool-1.2.3-{platform_name()}"


def test_without_xdg_it_lies_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "alakai"


def test_fill_returns_the_executables_by_base_name() -> None:
    assert TOOL.fill(make_tool) == {"tool": TOOL.path / "bin" / "tool"}
    assert visible() == [TOOL.path.name]


def test_a_complete_entry_is_not_made_again() -> None:
    TOOL.fill(make_tool)

    def never(folder: Path) -> None:
        raise AssertionError("made twice")

    TOOL.fill(never)


def test_nobody_sees_an_entry_while_it_is_made() -> None:
    def look(folder: Path) -> None:
        assert not TOOL.path.exists()
        make_tool(folder)
        assert not TOOL.is_complete

    TOOL.fill(look)
    assert TOOL.is_complete


def test_an_interrupted_build_leaves_nothing() -> None:
    def interrupted(folder: Path) -> None:
        make_tool(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TOOL.fill(interrupted)
    assert visible() == []
    TOOL.fill(make_tool)
    assert TOOL.is_complete


def test_what_a_killed_build_left_is_removed_by_the_next() -> None:
    left = cache_root() / f".{TOOL.path.name}.partial-dead"
    left.mkdir(parents=True)
    TOOL.fill(make_tool)
    assert visible() == [TOOL.path.name]


def test_a_build_that_made_too_little_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match=r"tool 1\.2\.3 came without bin/tool"):
        TOOL.fill(lambda folder: None)
    assert visible() == []


@pytest.mark.parametrize("damage", [os.unlink, lambda path: path.chmod(0o644)], ids=["lost", "not executable"])
def test_an_entry_that_lost_a_file_is_made_again(damage: object) -> None:
    path = TOOL.fill(make_tool)["tool"]
    assert callable(damage)
    damage(path)
    assert not TOOL.is_complete
    TOOL.fill(make_tool)
    assert TOOL.is_complete


def test_two_runs_at_once_build_once(monkeypatch: pytest.MonkeyPatch) -> None:
    building, waiting = threading.Event(), threading.Event()
    told: list[str] = []
    builds: list[Path] = []

    def say(line: str) -> None:
        told.append(line)
        waiting.set()

    def slow(folder: Path) -> None:
        builds.append(folder)
        building.set()
        assert waiting.wait(20)
        make_tool(folder)

    def second() -> dict[str, Path]:
        assert building.wait(20)
        return TOOL.fill(slow)

    monkeypatch.setattr("devstack.cache.say", say)
    with ThreadPoolExecutor(2) as runs:
        first, other = runs.submit(TOOL.fill, slow), runs.submit(second)
        assert first.result(30) == other.result(30)
    assert len(builds) == 1
    assert told == ["Another run is getting tool ready; waiting for it."]


def test_a_folder_of_files_is_made_once_however_many_want_it() -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("text")

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: kept("files-1", make), range(8)))
    assert set(found) == {cache_root() / "files-1"}
    assert (found[0] / "file").read_text() == "text"
    assert len(made) == 1
    assert visible() == ["files-1"]


def test_a_folder_of_files_that_could_not_be_made_is_not_there() -> None:
    def make(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("the line is down")

    with pytest.raises(OSError, match="down"):
        kept("files-1", make)
    assert visible() == []
