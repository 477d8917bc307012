"""What the figures were measured on, and whether others used it meanwhile. Names no host."""

from __future__ import annotations

import os
import platform
import resource
import time

import psutil

_GIB = 2**30


def machine_facts(*, kubernetes: str, redis: str) -> dict[str, str]:
    """Fact → text; the arguments are the versions that the servers of this run report."""
    memory = psutil.virtual_memory().total / _GIB
    return {
        "Machine": f"{_cores()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Kubernetes": f"{kubernetes}, kube-apiserver and etcd on this machine, etcd without fsync",
        "Redis": f"{redis}, append-only file, on this machine",
    }


class OtherWork:
    """How much of the machine others used, from the making of this object on.

    What is ours is known of children only once they ended: ask when everything was stopped.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._others_seconds = _busy_seconds() - _own_seconds()

    @property
    def share(self) -> float:
        """0 to 1, of all cores."""
        others = _busy_seconds() - _own_seconds() - self._others_seconds
        return max(others, 0.0) / ((time.monotonic() - self._began) * (psutil.cpu_count() or 1))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system)


def _own_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
