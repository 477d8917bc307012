"""The downloaded archive: used only with the pinned checksum, every failure falls to the next rung."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from devstack.archive import ENVTEST, SHA512, download_envtest
from devstack.cache import cache_root, platform_name
from devstack.ladder import Missed


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    return tmp_path / "releases"


def publish(releases: Path, members: dict[str, str]) -> dict[str, str]:
    """Write the archive of this platform; returns its checksums as the module pins them."""
    version = f"envtest-v{ENVTEST.version}"
    archive = releases / version / f"{version}-{platform_name()}.tar.gz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return {platform_name(): hashlib.sha512(archive.read_bytes()).hexdigest()}


GOOD = {f"controller-tools/envtest/{name}": f"this is {name}" for name in ENVTEST.files}


def test_the_binaries_are_taken_out_flat_and_executable(releases: Path) -> None:
    checksums = publish(releases, GOOD)
    found = download_envtest(releases.as_uri(), checksums)
    assert {name: path.read_text() for name, path in found.items()} == {
        name: f"this is {name}" for name in ENVTEST.files
    }
    assert ENVTEST.is_complete
    assert sorted(path.name for path in ENVTEST.path.iterdir()) == sorted(ENVTEST.files)


def test_a_download_with_another_checksum_is_thrown_away(releases: Path) -> None:
    publish(releases, GOOD)
    with pytest.raises(Missed, match="checksum differs"):
        download_envtest(releases.as_uri(), {platform_name(): "0" * 128})
    assert not ENVTEST.path.exists()
    assert not list(cache_root().glob("*partial*"))


def test_a_missing_archive_is_a_miss_that_names_the_address(releases: Path) -> None:
    with pytest.raises(Missed, match="releases/envtest-v"):
        download_envtest(releases.as_uri(), {platform_name(): "0" * 128})


def test_an_archive_without_a_binary_is_a_miss(releases: Path) -> None:
    checksums = publish(releases, {"controller-tools/envtest/etcd": "only etcd"})
    with pytest.raises(Missed, match="came without kube-apiserver, kubectl"):
        download_envtest(releases.as_uri(), checksums)
    assert not ENVTEST.path.exists()


def test_member_paths_never_leave_the_entry(releases: Path, tmp_path: Path) -> None:
    checksums = publish(releases, {**GOOD, "../../../escaped": "x", "../../../etcd": "outside"})
    download_envtest(releases.as_uri(), checksums)
    assert not list(tmp_path.rglob("escaped"))
    assert [path for path in tmp_path.rglob("etcd") if path.parent != ENVTEST.path] == []


def test_an_unknown_platform_is_a_miss() -> None:
    with pytest.raises(Missed, match="no archive is pinned"):
        download_envtest("file:///nowhere", {})


def test_the_pinned_checksums_are_whole() -> None:
    assert set(SHA512) == {"linux-amd64", "linux-arm64", "darwin-arm64", "darwin-amd64"}
    assert all(len(bytes.fromhex(value)) == 64 for value in SHA512.values())
