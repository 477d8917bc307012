"""The chart as helm sees it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from devstack import binaries
from devstack.kubernetes import ControlPlane

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm"
VALUES = [
    *sorted((Path(__file__).parent / "values").glob("*.yaml")),
    ROOT / "examples" / "kind" / "values.yaml",
]
NAMESPACE, RELEASE = "alakai", "alakai"
Body = dict[str, Any]


def helm(*arguments: str | Path, kubeconfig: Path | None = None, fails: bool = False) -> str:
    """What helm printed, or with ``fails`` what it complained of."""
    env = {**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {"KUBECONFIG": "/nonexistent"})}
    done = subprocess.run([binaries.helm(), *arguments], capture_output=True, text=True, timeout=120, env=env)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def rendered(values: Path, *arguments: str, fails: bool = False) -> str:
    return helm("template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", values, *arguments, fails=fails)


def objects(text: str) -> list[Body]:
    return [item for item in yaml.safe_load_all(text) if item]


def of_kind(found: list[Body], kind: str) -> list[Body]:
    return [item for item in found if item["kind"] == kind]


def the(found: list[Body], kind: str, suffix: str = "") -> Body:
    """The object of that kind whose name ends like this; the shortest name of several."""
    fitting = [item for item in of_kind(found, kind) if item["metadata"]["name"].endswith(suffix)]
    return min(fitting, key=lambda item: len(item["metadata"]["name"]))


def pod_specs(found: list[Body]) -> Iterator[tuple[str, Body]]:
    """Every pod template, by the name of what holds it."""
    for item in found:
        template = (item.get("spec") or {}).get("template")
        if isinstance(template, dict) and "spec" in template:
            yield f"{item['kind']}/{item['metadata']['name']}", template


def container(found: list[Body], name: str) -> Body:
    for _, template in pod_specs(found):
        for item in template["spec"]["containers"]:
            if item["name"] == name:
                made: Body = item
                return made
    raise AssertionError(f"no container {name}")


def apply_definitions(kube: ControlPlane, paths: list[Path]) -> None:
    """Custom resource definitions, and wait until the API server takes objects of them."""
    for path in paths:
        for command in (["apply"], ["wait", "--for=condition=Established", "--timeout=30s"]):
            done = subprocess.run(
                [kube.kubectl, "--kubeconfig", kube.kubeconfig, *command, f"--filename={path}"],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
