"""Renderings on a real API server: taken under the pod security standard "restricted", and with the rights that the
controller gets, what it may and what it may not."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes import client, config

from devstack import prometheus_operator
from devstack.kubernetes import ControlPlane
from tests.chart.charts import NAMESPACE, VALUES, apply_definitions, objects, of_kind, pod_specs, rendered, the

BY_NAME = {path.stem: path for path in VALUES}
ENFORCED = {"pod-security.kubernetes.io/enforce": "restricted"}
CONTROLLER = f"system:serviceaccount:{NAMESPACE}:alakai"
EPOCH = "alakai-epoch-"


def kubectl(kube: ControlPlane, *arguments: str, document: object = None, fails: bool = False) -> str:
    """What it printed, or with ``fails`` what it complained of."""
    done = subprocess.run(
        [kube.kubectl, "--kubeconfig", kube.kubeconfig, *arguments],
        input=json.dumps(document) if document is not None else "",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def cluster(kube: ControlPlane) -> ControlPlane:
    """With the namespaces of the release, which enforce the standard, and the Prometheus operator's kinds."""
    for name in (NAMESPACE, "workers"):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": ENFORCED}}
        kubectl(kube, "apply", "--filename=-", document=body)
    apply_definitions(kube, prometheus_operator.definitions())
    return kube


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_a_rendering_is_taken(cluster: ControlPlane, path: Path) -> None:
    for item in objects(rendered(path)):
        kubectl(cluster, "apply", "--dry-run=server", "--validate=strict", "--filename=-", document=item)


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "complaint"),
    [
        ("ServiceMonitor", '"interval"', '"intervall"', 'unknown field "spec.endpoints[0].intervall"'),
        ("ServiceMonitor", '"15s"', '"15 seconds"', "spec.endpoints[0].interval"),
        ("PrometheusRule", '"expr"', '"expression"', 'unknown field "spec.groups[0].rules[0].expression"'),
        ("PrometheusRule", '"for": "', '"for": "about ', "spec.groups[0].rules[0].for"),
    ],
)
def test_what_the_prometheus_operator_would_not_understand_is_refused(
    cluster: ControlPlane, kind: str, right: str, wrong: str, complaint: str
) -> None:
    """Its definitions are the real ones: an alert that it drops would never fire, and nobody would know."""
    text = json.dumps(the(objects(rendered(BY_NAME["everything"])), kind))
    assert right in text
    command = ("create", "--dry-run=server", "--validate=strict", "--filename=-")
    document = json.loads(text.replace(right, wrong))
    assert complaint in kubectl(cluster, *command, document=document, fails=True)


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_a_pod_of_it_is_taken_where_restricted_is_enforced(cluster: ControlPlane, path: Path) -> None:
    """Of a Deployment the API server only warns; a pod it refuses."""
    for name, template in pod_specs(objects(rendered(path))):
        metadata = {**template["metadata"], "name": "bare", "namespace": NAMESPACE}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        assert "bare created" in kubectl(cluster, "create", "--dry-run=server", "--filename=-", document=pod), name


# What the controller may, and what it may not

MAY: dict[str, list[tuple[str, str, str, str]]] = {
    # verb, resource (group/resource), subresource, name
    "ecs": [
        *(
            (verb, "alakai.dev/workerexecutions", "", "")
            for verb in ("get", "list", "watch", "create", "patch", "delete")
        ),
        ("patch", "alakai.dev/workerexecutions", "status", ""),
        ("create", "/events", "", ""),
        ("create", "/configmaps", "", ""),
        ("get", "/configmaps", "", "EPOCH"),
        ("patch", "/configmaps", "", "EPOCH"),
        ("get", "apiextensions.k8s.io/customresourcedefinitions", "", "workerexecutions.alakai.dev"),
    ],
    "kubernetes": [
        *((verb, "batch/jobs", "", "") for verb in ("get", "list", "create", "patch", "delete")),
        *((verb, "/pods", "", "") for verb in ("list", "watch")),
        ("list", "/events", "", ""),
    ],
}
MAY_NOT = [
    *((verb, "/secrets", "", "") for verb in ("get", "list", "watch", "create", "update", "patch", "delete")),
    *((verb, "/configmaps", "", "") for verb in ("get", "list", "watch", "update", "patch", "delete")),
    *((verb, "/configmaps", "", "another") for verb in ("get", "patch")),
    *((verb, "/pods", "", "") for verb in ("get", "create", "update", "patch", "delete")),
    *(
        ("create", "/pods", part, "")
        for part in ("exec", "attach", "portforward", "eviction", "binding", "ephemeralcontainers")
    ),
    ("get", "/pods", "log", ""),
    *((verb, "/serviceaccounts", "", "") for verb in ("get", "list", "create", "impersonate")),
    ("create", "/serviceaccounts", "token", ""),
    *((verb, "/events", "", "") for verb in ("update", "patch", "delete")),
    *((verb, "/namespaces", "", "") for verb in ("list", "create", "delete")),
    *((verb, "/nodes", "", "") for verb in ("get", "list", "watch", "patch")),
    *((verb, "/services", "", "") for verb in ("get", "list", "create")),
    *((verb, "/persistentvolumeclaims", "", "") for verb in ("get", "create")),
    *((verb, "apps/deployments", "", "") for verb in ("get", "list", "create", "patch", "delete")),
    *((verb, "apps/daemonsets", "", "") for verb in ("create", "patch")),
    *((verb, "batch/cronjobs", "", "") for verb in ("get", "create")),
    ("update", "batch/jobs", "", ""),
    ("patch", "batch/jobs", "status", ""),
    ("deletecollection", "batch/jobs", "", ""),
    ("deletecollection", "alakai.dev/workerexecutions", "", ""),
    *((verb, "alakai.dev/workerexecutions", "status", "") for verb in ("update", "get")),
    ("update", "alakai.dev/workerexecutions", "", ""),
    ("update", "alakai.dev/workerexecutions", "finalizers", ""),
    *((verb, "coordination.k8s.io/leases", "", "") for verb in ("get", "create", "update")),
    *((verb, "rbac.authorization.k8s.io/roles", "", "") for verb in ("get", "create", "bind", "escalate")),
    *((verb, "rbac.authorization.k8s.io/clusterrolebindings", "", "") for verb in ("get", "create")),
    *(
        (verb, "apiextensions.k8s.io/customresourcedefinitions", "", "")
        for verb in ("list", "create", "patch", "delete")
    ),
    *((verb, "admissionregistration.k8s.io/validatingwebhookconfigurations", "", "") for verb in ("get", "create")),
    ("impersonate", "/users", "", "admin"),
    ("impersonate", "/groups", "", "system:masters"),
    ("get", "certificates.k8s.io/certificatesigningrequests", "", ""),
    ("create", "certificates.k8s.io/certificatesigningrequests", "", ""),
]
OF_JOBS = {("list", "/events", "", ""), *MAY["kubernetes"]}


def may(kube: ControlPlane, verb: str, resource: str, subresource: str, name: str, namespace: str = NAMESPACE) -> bool:
    group, _, plural = resource.partition("/")
    attributes: Any = {
        "verb": verb,
        "group": group,
        "resource": plural,
        "subresource": subresource,
        "name": name,
        "namespace": namespace,
    }
    with config.new_client_from_config(str(kube.kubeconfig)) as api:
        review = client.V1SubjectAccessReview(
            spec=client.V1SubjectAccessReviewSpec(
                user=CONTROLLER,
                groups=["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
                resource_attributes=client.V1ResourceAttributes(**attributes),
            )
        )
        return bool(client.AuthorizationV1Api(api).create_subject_access_review(review).status.allowed)


@pytest.fixture(params=["ecs", "kubernetes"])
def rights(request: pytest.FixtureRequest, cluster: ControlPlane) -> Iterator[str]:
    """The rights of a release, given; taken away again afterwards."""
    found = objects(rendered(BY_NAME[request.param]))
    kinds = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    given = [item for kind in kinds for item in of_kind(found, kind)]
    for item in given:
        kubectl(cluster, "apply", "--filename=-", document=item)
    yield str(request.param)
    for item in given:
        kubectl(cluster, "delete", "--filename=-", document=item)


def test_the_controller_may_what_it_needs_and_nothing_else(cluster: ControlPlane, rights: str) -> None:
    rules = [rule for item in of_kind(objects(rendered(BY_NAME[rights])), "Role") for rule in item["rules"]]
    (epoch,) = [name for rule in rules for name in rule.get("resourceNames", []) if name.startswith(EPOCH)]
    allowed = [(verb, what, part, epoch if name == "EPOCH" else name) for verb, what, part, name in MAY["ecs"]]
    if rights == "kubernetes":
        allowed += MAY["kubernetes"]
    refused = [item for item in allowed if not may(cluster, *item)]
    assert refused == []
    forbidden = [*MAY_NOT, *(OF_JOBS if rights == "ecs" else ())]
    assert [item for item in forbidden if may(cluster, *item)] == []
    elsewhere = [item for item in allowed if not item[1].startswith("apiextensions")]
    assert [item for item in elsewhere if may(cluster, *item, namespace="kube-system")] == []
    # Not a verb, a resource or a name more than this table has.
    granted = {
        (verb, f"{group}/{resource.partition('/')[0]}", resource.partition("/")[2], name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
    assert granted == {item for item in allowed if not item[1].startswith("apiextensions")}


# Whose statuses and finalizers are


def as_user(kube: ControlPlane, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [kube.kubectl, "--kubeconfig", path, "--namespace", NAMESPACE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("is_exempt", [False, True])
def test_statuses_and_the_finalizer_are_the_controllers(
    cluster: ControlPlane, tmp_path: Path, rights: str, is_exempt: bool
) -> None:
    groups = "system:masters" if is_exempt else "nobody"
    found = objects(rendered(BY_NAME[rights], "--set", f"admissionPolicy.exemptGroups={{{groups}}}"))
    kinds = ("ServiceAccount", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    given = [item for kind in kinds for item in of_kind(found, kind)]
    assert len(given) == 3
    for item in given:
        kubectl(cluster, "apply", "--filename=-", document=item)
    token = kubectl(cluster, "create", "token", "alakai", "--namespace", NAMESPACE).strip()
    controller = cluster.write_kubeconfig("controller", tmp_path / "controller", token=token)
    admin = cluster.kubeconfig
    name = f"guarded-{rights}-{is_exempt}".lower()
    execution = {
        "apiVersion": "alakai.dev/v1alpha1",
        "kind": "WorkerExecution",
        "metadata": {"name": name, "namespace": NAMESPACE, "finalizers": ["alakai.dev/execution"]},
        "spec": {"taskType": "implementation"},
    }
    kubectl(cluster, "create", "--filename=-", document=execution)
    status = ("patch", "execution", name, "--subresource=status", "--type=merge", "--patch")
    let_go = ("patch", "execution", name, "--type=json", "--patch", '[{"op":"remove","path":"/metadata/finalizers"}]')
    try:
        if is_exempt:
            assert as_user(cluster, admin, *status, '{"status":{"message":"by hand"}}').returncode == 0
        else:
            # A policy takes a moment to be known to the API server.
            deadline = time.monotonic() + 30
            while (done := as_user(cluster, admin, *status, '{"status":{"message":"by hand"}}')).returncode == 0:
                assert time.monotonic() < deadline, "the policy is not enforced"
                time.sleep(0.3)
            assert "only the controller writes the status" in done.stderr
            assert "only the controller adds or removes the finalizer" in as_user(cluster, admin, *let_go).stderr
        # What people steer by is theirs.
        for allowed in (
            ("annotate", "execution", name, "alakai.dev/retry=1"),
            ("patch", "execution", name, "--type=merge", "--patch", '{"spec":{"suspend":true}}'),
        ):
            done = as_user(cluster, admin, *allowed)
            assert done.returncode == 0, done.stderr
        # kubectl reads a status before it patches it, which the controller has no right to and no need of.
        answer = httpx.patch(
            f"{cluster.url}/apis/alakai.dev/v1alpha1/namespaces/{NAMESPACE}/workerexecutions/{name}/status",
            json={"status": {"message": "by the controller"}},
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"},
            verify=ssl.create_default_context(cadata=cluster.certificate_authority),
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        done = as_user(cluster, controller, *let_go)
        assert done.returncode == 0, done.stderr
        done = as_user(cluster, controller, "delete", "execution", name)
        assert done.returncode == 0, done.stderr
    finally:
        for item in given:
            kubectl(cluster, "delete", "--filename=-", document=item)
