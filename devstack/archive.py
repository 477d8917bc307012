"""The rung that downloads: the envtest archive which the controller-tools project releases for every Kubernetes minor.

It never trusts what it gets: a download that does not have the SHA-512 pinned here is thrown away, and every failure
(no network, a proxy's error page, a slow line) is a miss, so that the next rung is tried.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import time
import urllib.request
from pathlib import Path

from devstack.cache import Entry, platform_name
from devstack.console import Progress
from devstack.ladder import Missed

ENVTEST = Entry("envtest", "1.36.2", ("kube-apiserver", "etcd", "kubectl"))
RELEASES = "https://github.com/kubernetes-sigs/controller-tools/releases/download"
SHA512 = {  # as published in the release list (envtest-releases.yaml) of controller-tools
    "linux-amd64": (
        "ea743186c8a799f5cf8faf16969f86189d003cb7d130e0ac4b58789f1e5748dc"
        "f30ebe91c837a10d5ac415383da3e10b9e64d65785c938c23e739781cfb76f08"
    ),
    "linux-arm64": (
        "2d72ee985a8e262a3c57dc9f7f0fd891f6a8c7bf7ebaa2db6dc6d8eac8ae2818"
        "1afe51c1f368b67756cdb40b10de9b205609e1726e5f27f7c6d824dd9c6649ac"
    ),
    "darwin-arm64": (
        "9278f9e5af556b2f1f2d139769c1f0d717c7b4426917fdebdba898bcb725a916"
        "e4910d6160886194ff9be9589ea7c5c32c2b8ae0754703874b7c8ba8ddfc41ce"
    ),
    "darwin-amd64": (
        "b4fe9f973cd1992e3880f8b230ed32c0c243b83371591e3e3315f4404df2cdbe"
        "f8ee94eeb9bb245b7e5feb987d5c4a76c43e0877654ab73f00d7bbc2b9984514"
    ),
}

SOCKET_TIMEOUT_SECONDS = 8
DOWNLOAD_TIMEOUT_SECONDS = 300
CHUNK_BYTES = 1 << 18


def download_envtest(releases: str = RELEASES, checksums: dict[str, str] = SHA512) -> dict[str, Path]:
    """Fetch and unpack the archive of this platform into the cache. Raises `Missed`."""
    platform = platform_name()
    if (sha512 := checksums.get(platform)) is None:
        raise Missed(f"no archive is pinned for {platform}")
    version = f"envtest-v{ENVTEST.version}"
    url = f"{releases}/{version}/{version}-{platform}.tar.gz"

    def make(folder: Path) -> None:
        archive = folder / "archive.tar.gz"
        _download(url, archive, sha512)
        _unpack(archive, folder, ENVTEST.files)
        archive.unlink()

    try:
        return ENVTEST.fill(make)
    except (OSError, http.client.HTTPException, tarfile.TarError) as error:
        raise Missed(f"{url}: {error}") from error


def _download(url: str, target: Path, sha512: str) -> None:
    digest = hashlib.sha512()
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_SECONDS
    progress = Progress("downloading the Kubernetes test binaries")
    done_bytes = 0
    with urllib.request.urlopen(url, timeout=SOCKET_TIMEOUT_SECONDS) as answer, target.open("wb") as file:
        while chunk := answer.read(CHUNK_BYTES):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not complete after {DOWNLOAD_TIMEOUT_SECONDS} s")
            digest.update(chunk)
            file.write(chunk)
            done_bytes += len(chunk)
            progress.show(f"{done_bytes / 1e6:.0f} MB")
    progress.end()
    if digest.hexdigest() != sha512:
        raise OSError("the checksum differs from the pinned one, the download is not used")


def _unpack(archive: Path, folder: Path, wanted: tuple[str, ...]) -> None:
    """Write the wanted binaries flat into `folder`; member paths are never followed."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            source = tar.extractfile(member) if member.isfile() and name in wanted else None
            if source is None:
                continue
            with source, (folder / name).open("wb") as file:
                shutil.copyfileobj(source, file)
            (folder / name).chmod(0o755)
