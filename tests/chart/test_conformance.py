"""Every rendering fits the API of every version of Kubernetes that the chart promises: kubeconform, strict."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from devstack import binaries
from devstack.schemas import SUMS, schemas
from tests.chart.charts import CHART, ROOT, VALUES, rendered

NEWEST = max(SUMS, key=lambda version: [int(part) for part in version.split(".")])
VERSIONS = sorted(SUMS) if os.environ.get("ALAKAI_CHART") == "full" else [NEWEST]
"""`make chart-test` takes all of them."""
OF_OTHERS = "ServiceMonitor,PrometheusRule"
"""Kinds of the Prometheus operator, which Kubernetes has no schema for; `test_api_server.py` holds them to theirs."""


def test_the_versions_are_those_that_the_chart_promises() -> None:
    promised = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    first = re.search(r">=1\.(\d+)", promised)
    assert first is not None
    assert {int(version.split(".")[1]) for version in SUMS} == set(range(int(first[1]), int(NEWEST.split(".")[1]) + 1))


def kubeconform(text: str, version: str) -> subprocess.CompletedProcess[str]:
    location = f"{schemas(version)}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    return subprocess.run(
        [binaries.kubeconform(), "-strict", "-summary", "-schema-location", location, "-skip", OF_OTHERS, "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_a_rendering_fits(path: Path, version: str) -> None:
    done = kubeconform(rendered(path, "--kube-version", version), version)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Invalid: 0, Errors: 0" in done.stdout


@pytest.mark.timeout(300)
def test_what_the_kind_example_puts_beside_the_chart_fits() -> None:
    done = kubeconform((ROOT / "examples" / "kind" / "dependencies.yaml").read_text(), NEWEST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid: 4, Invalid: 0, Errors: 0" in done.stdout


@pytest.mark.timeout(300)
def test_it_would_be_seen_if_one_did_not_fit() -> None:
    done = kubeconform(rendered(VALUES[0]).replace("revisionHistoryLimit", "revisionHistoryLimt"), NEWEST)
    assert done.returncode != 0
    assert "revisionHistoryLimt" in done.stdout
