"""Up, down and status of the whole stack of one clone; all its state lies in the clone's `.local/`.

A component is started unless the user brought one (`environment.users_own`). `up` may be repeated: what runs is left
alone, what died comes back on its port and with its data.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubernetes import config

from devstack import binaries, environment
from devstack.aws import AwsServer
from devstack.console import say
from devstack.errors import DevstackError, PortTaken
from devstack.kubernetes import NAMESPACE, ControlPlane
from devstack.ports import require_free
from devstack.processes import Daemon
from devstack.redis import RedisServer

LINKED = ("kubectl", "kube-apiserver", "etcd", "redis-server", "redis-cli")


@dataclass(frozen=True, slots=True)
class Component:
    """One part of the stack: what it is called, which variable replaces it, and where it listens by default."""

    title: str
    variable: str
    port_variable: str
    default_port: int
    daemons: tuple[Daemon, ...]  # the last one listens on the component's port
    start: Callable[[int], str]  # port → value of `variable`
    stop: Callable[[], bool]

    @property
    def listener(self) -> Daemon:
        return self.daemons[-1]

    @property
    def is_running(self) -> bool:
        return all(daemon.is_running for daemon in self.daemons)

    def wanted_port(self) -> int:
        """The port that its variable names, else the one it had, else the default. Raises DevstackError."""
        given = os.environ.get(self.port_variable, "")
        if not given:
            return self.listener.port or self.default_port
        if not (given.isascii() and given.isdigit() and 0 < int(given) < 65536):
            raise DevstackError(f"{self.port_variable} is {given!r}: set it to a port number, 1 to 65535")
        return int(given)


def components(local: Path = environment.LOCAL) -> tuple[Component, ...]:
    """All parts, in the order of starting."""
    plane = ControlPlane(local / "kubernetes")
    redis = RedisServer(local / "redis")
    aws = AwsServer(local / "aws")
    return (
        Component(
            "Kubernetes API",
            "KUBECONFIG",
            "DEV_KUBERNETES_PORT",
            6443,
            (plane.etcd, plane.apiserver),
            lambda port: str(ControlPlane.start(plane.data_dir, port).kubeconfig),
            plane.stop,
        ),
        Component(
            "Redis",
            "REDIS_URL",
            "DEV_REDIS_PORT",
            6379,
            (redis.daemon,),
            lambda port: RedisServer.start(redis.data_dir, port).url,
            redis.stop,
        ),
        Component(
            "AWS (moto)",
            "AWS_ENDPOINT_URL",
            "DEV_AWS_PORT",
            4566,
            (aws.daemon,),
            lambda port: AwsServer.start(aws.data_dir, port).url,
            aws.stop,
        ),
    )


@dataclass(frozen=True, slots=True)
class Up:
    """What `up` did: the variables of `.local/env` without PATH, and the variables of what it had to start."""

    values: dict[str, str]
    started: tuple[str, ...]


def up(local: Path = environment.LOCAL) -> Up:
    """Start what is missing and write `.local/env`. Raises DevstackError."""
    with _locked(local):
        parts = [part for part in components(local) if not environment.users_own(part.variable)]
        for part in parts:  # all of them first, so that a taken port leaves nothing half started
            _require_port(part)
        ours: dict[str, str] = {}
        started = []
        for part in parts:
            if not (was_running := part.is_running):
                started.append(part.variable)
            ours[part.variable] = part.start(part.wanted_port())
            say(f"{part.title}: {'runs already' if was_running else 'started'}, {ours[part.variable]}")
        for part in components(local):
            if part.variable not in ours:
                say(f"{part.title}: yours ({part.variable}={environment.shown(os.environ[part.variable])})")
        namespace = NAMESPACE if "KUBECONFIG" in ours else _users_namespace()
        values = environment.build_environment(ours, namespace)
        link_binaries(local / "bin", ours)
        folders = (Path(sys.prefix) / "bin", local.absolute() / "bin")
        environment.write(local / "env", environment.render(values, folders))
        return Up(values, tuple(started))


def down(local: Path = environment.LOCAL, only: Collection[str] | None = None) -> None:
    """End every process that `up` started, last started first; data stays for the next `up`.

    `only` limits it to components of these variables, such as `Up.started`.
    """
    with _locked(local):
        for part in reversed(components(local)):
            if only is not None and part.variable not in only:
                continue
            say(f"{part.title}: {'stopped' if part.stop() else 'did not run'}")


def status(local: Path = environment.LOCAL) -> bool:
    """Print one line per process. Returns whether everything that should run does."""
    healthy = True
    for part in components(local):
        if own := environment.users_own(part.variable):
            print(f"{part.title:15} yours    {part.variable}={environment.shown(own)}")
            continue
        for daemon in part.daemons:
            process = daemon.process()
            healthy = healthy and process is not None
            state = f"running  pid {process.pid}, port {daemon.port}" if process else "stopped"
            print(f"{part.title:15} {daemon.name:15} {state}")
    return healthy


def link_binaries(folder: Path, ours: dict[str, str]) -> None:
    """Make `folder` hold a link to each binary of the components that we run, and nothing else."""
    found: dict[str, Path] = {}
    if "KUBECONFIG" in ours:
        found |= binaries.control_plane()
    if "REDIS_URL" in ours:
        found |= binaries.redis()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        stale.unlink()
    for name in LINKED:
        if name in found:
            (folder / name).symlink_to(found[name])


def _require_port(part: Component) -> None:
    port = part.wanted_port()
    if part.listener.is_running:
        part.listener.adopt(port)
        return
    try:
        require_free(port)
    except PortTaken as taken:
        raise DevstackError(
            f"port {port}, wanted for {part.title}, is taken: set {part.port_variable} to a free one, "
            f"for instance `{part.port_variable}={port + 10000} make up`"
        ) from taken


def _users_namespace() -> str:
    """The namespace of the current context of the user's own kubeconfig."""
    try:
        _, context = config.list_kube_config_contexts(os.environ["KUBECONFIG"])  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise DevstackError(f"KUBECONFIG={os.environ['KUBECONFIG']} cannot be used: {error}") from error
    return str(context["context"].get("namespace") or NAMESPACE)


@contextmanager
def _locked(local: Path) -> Iterator[None]:
    """One command at a time per clone: two would start the same component twice."""
    local.mkdir(parents=True, exist_ok=True)
    with (local / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another make up or make down is at work in this clone; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
