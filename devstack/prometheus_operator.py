"""The custom resource definitions of the Prometheus operator, so that the chart's ServiceMonitor and PrometheusRule
meet the schema that a cluster holds them to. They are files of the operator's Go module, whose checksum is pinned, and
are kept in the cache; the operator itself never runs here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from devstack.cache import kept
from devstack.console import say
from devstack.golang import module_files

MODULE = "github.com/prometheus-operator/prometheus-operator"
VERSION = "0.85.0"
SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
"""Checksum of the module, as go.sum would have it."""
PLURALS = ("prometheusrules", "servicemonitors")
"""The kinds that the chart makes objects of."""


def definitions() -> list[Path]:
    """A file with the definition of each of `PLURALS`. Raises DevstackError."""

    def make(folder: Path) -> None:
        say(f"Fetching the definitions of the Prometheus operator {VERSION}: 4 MB to download, 80 kB for good.")
        with module_files(MODULE, VERSION, SUM) as module:
            for plural in PLURALS:
                name = f"monitoring.coreos.com_{plural}.yaml"
                shutil.copyfile(module / "example" / "prometheus-operator-crd" / name, folder / f"{plural}.yaml")

    folder = kept(f"prometheus-operator-definitions-{VERSION}", make)
    return [folder / f"{plural}.yaml" for plural in PLURALS]
