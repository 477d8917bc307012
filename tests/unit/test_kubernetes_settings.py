"""The Kubernetes launcher's settings file: what is accepted, what is filled in, what is wrong and how that is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from executions.adapters.kubernetes_launcher import create
from executions.adapters.kubernetes_settings import EXAMPLE, KubernetesSettings, kubernetes_settings_from_file
from executions.adapters.launchers import LauncherContext
from executions.adapters.settings import Settings
from executions.errors import InvalidSettings
from tests.support.ecs_world import Payloads

ROOT = Path(__file__).parents[2]
WORKER = {"name": "worker", "image": "registry.example/worker:1"}


def read(folder: Path, document: object) -> KubernetesSettings:
    path = folder / "launcher.yaml"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return kubernetes_settings_from_file(path)


def with_worker(**fields: Any) -> dict[str, Any]:
    return with_spec(containers=[{**WORKER, **fields}])


def with_spec(**fields: Any) -> dict[str, Any]:
    return with_template({"spec": {"containers": [WORKER], **fields}})


def with_template(template: object, **fields: Any) -> dict[str, Any]:
    return {"taskTypes": {"default": {"template": template, **fields}}}


def with_variable(**fields: Any) -> dict[str, Any]:
    return with_worker(env=[fields])


def test_the_example_is_valid() -> None:
    settings = kubernetes_settings_from_file(ROOT / EXAMPLE)
    assert settings.for_task_type("implementation") is not None
    assert settings.for_task_type("anything") is settings.task_types["default"]


def test_what_is_left_out_is_filled_in(tmp_path: Path) -> None:
    task_type = read(tmp_path, with_spec()).for_task_type("digest")
    assert task_type is not None
    assert task_type.active_deadline_seconds == 86_400
    assert task_type.template["spec"] == {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {**WORKER, "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
        ],
    }


def test_what_is_said_stays(tmp_path: Path) -> None:
    said = {
        "automountServiceAccountToken": True,
        "serviceAccountName": "worker",
        "terminationGracePeriodSeconds": 90,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "Localhost"}},
        "initContainers": [{"name": "logs", "image": "logs:1", "restartPolicy": "Always"}],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
        "nodeSelector": {"pool": "workers"},
    }
    resources = {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": 0.5}}
    document = with_spec(**said, containers=[{**WORKER, "resources": resources}])
    template = read(tmp_path, document).task_types["default"].template
    assert {name: template["spec"][name] for name in said if name != "initContainers"} == {
        name: value for name, value in said.items() if name != "initContainers"
    }
    assert template["spec"]["initContainers"][0]["restartPolicy"] == "Always"
    assert template["spec"]["containers"][0]["resources"] == resources


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "the file: Input should be"),
        ({}, "taskTypes: Field required"),
        ({"taskTypes": {}}, "taskTypes: Dictionary should have at least 1 item"),
        ({"taskTypes": {"a b": {"template": {}}}}, "names a task type that no task can have"),
        ({**with_spec(), "namespace": "No"}, "namespace: String should match pattern"),
        (with_template({"spec": {"containers": [WORKER]}}, activeDeadlineSeconds=0), "greater than 0"),
        (with_template({"spec": {"containers": [WORKER]}}, retries=1), "retries: Extra inputs are not permitted"),
        (with_template([]), "template: Input should be an object"),
        (with_template({}), "spec.containers has 0 entries"),
        (with_spec(containers=[WORKER, {**WORKER, "name": "logs"}]), "has 2 entries; leave the worker alone there"),
        (with_spec(containers=[{"name": "worker"}]), "has no name or no image"),
        (with_spec(restartPolicy="OnFailure"), "spec.restartPolicy is not Never"),
        (with_spec(replicas=3), "template.spec.replicas is not a field of PodSpec"),
        (with_worker(imagePullPolcy="Always"), "containers[0].imagePullPolcy is not a field of Container"),
        (with_spec(containers={}), "template.spec.containers must be a list"),
        (with_spec(volumes=["x"]), "template.spec.volumes[0] must be a mapping"),
        (with_spec(nodeSelector=["x"]), "template.spec.nodeSelector must be a mapping"),
        (with_spec(nodeSelector={"pool": 1}), "template.spec.nodeSelector.pool must be a str"),
        (with_spec(terminationGracePeriodSeconds="9"), "terminationGracePeriodSeconds must be a int"),
        (with_spec(terminationGracePeriodSeconds=True), "terminationGracePeriodSeconds must be a int"),
        (with_spec(hostUsers="no"), "hostUsers must be a bool"),
        (
            with_template({"metadata": {"labels": {"alakai.dev/launch": "x"}}, "spec": {"containers": [WORKER]}}),
            "metadata.labels names alakai.dev/launch, which the launcher sets itself",
        ),
        (with_variable(name="ALAKAI_TASK_ID", value="x"), "the variable ALAKAI_TASK_ID begins with one of ALAKAI_"),
        (with_variable(name="A-B", value="x"), "the variable A-B is not a variable's name"),
        (with_variable(name="GITHUB_TOKEN", value="hush"), "the variable GITHUB_TOKEN looks like a secret"),
        (with_variable(name="DB", value="redis://:hush@db:6379"), "the variable DB holds a password"),
        (
            with_variable(name="ALAKAI_X", valueFrom={"secretKeyRef": {"name": "x", "key": "y"}}),
            "the variable ALAKAI_X begins with ALAKAI_",
        ),
        (with_spec(hostNetwork=True), "breaks the pod security standard: spec.hostNetwork is true"),
        ("taskTypes:\n  a: {}\n  a: {}\n", "names a twice"),
        ("taskTypes: [", "is not YAML in line"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, document: object, said: str) -> None:
    with pytest.raises(InvalidSettings) as invalid:
        read(tmp_path, document)
    text = str(invalid.value)
    assert said in text
    assert "\n" not in text
    assert "hush" not in text
    assert "the Kubernetes launcher's settings file launcher.yaml" in text
    assert EXAMPLE in text


def test_a_secret_by_reference_may_have_a_secrets_name(tmp_path: Path) -> None:
    reference = {"secretKeyRef": {"name": "github", "key": "token"}}
    settings = read(tmp_path, with_variable(name="GITHUB_TOKEN", valueFrom=reference))
    (worker,) = settings.task_types["default"].template["spec"]["containers"]
    assert worker["env"] == [{"name": "GITHUB_TOKEN", "valueFrom": reference}]


def test_a_file_that_is_not_named_or_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="KUBERNETES_LAUNCHER_FILE is not set; set it to"):
        create(LauncherContext(Settings(), Payloads()))
    with pytest.raises(InvalidSettings, match="cannot be read: No such file or directory; correct KUBERNETES_LAUNCHER"):
        kubernetes_settings_from_file(tmp_path / "nowhere.yaml")
