"""What the chart makes of values: every one that is known has its effect, every one that is not is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from redis.asyncio import Redis

from controller.epoch import config_map_name
from devstack.chart import CHART, SET_ELSEWHERE, values
from executions.adapters.kubernetes_settings import kubernetes_settings_from_file
from executions.adapters.notifications_file import open_channels
from executions.adapters.settings import Settings
from executions.adapters.visibility_file import visibility_from
from tests.chart.charts import (
    NAMESPACE,
    ROOT,
    VALUES,
    Body,
    container,
    helm,
    objects,
    of_kind,
    pod_specs,
    rendered,
    the,
)

BY_NAME = {path.stem: path for path in VALUES}
ECS, KUBERNETES, EVERYTHING, SECOND = (BY_NAME[name] for name in ("ecs", "kubernetes", "everything", "second"))
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def everything() -> list[Body]:
    return objects(rendered(EVERYTHING))


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_helm_finds_nothing_to_complain_of(path: Path) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--values", path)


def test_what_is_generated_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "-m", "devstack.chart", "--check"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (CHART / "files" / "workerexecutions.yaml").read_text() == (
        ROOT / "crds" / "workerexecutions.alakai.dev.yaml"
    ).read_text()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("config.maxRetires=1", "additional properties 'maxRetires' not allowed"),
        ("config.maxRetries=-1", "/config/maxRetries"),
        ("config.logLevel=LOUD", "/config/logLevel"),
        ("replicas=3", "additional properties 'replicas' not allowed"),
        ("replicaCount=0", "/replicaCount"),
        ("api.servce.port=1", "additional properties 'servce' not allowed"),
        ("crds.install=maybe", "/crds/install"),
        ("config.sqsQueueUrl=", "config.sqsQueueUrl is required"),
        ("redis.url.secretName=", "redis.url.secretName is required"),
        ("launcher.file=null", "launcher.file is required for the launcher ecs"),
        ("serviceAccount.create=false", "serviceAccount.name is required"),
        ("api.ingress.enabled=true", "api.ingress.hosts is required"),
    ],
)
def test_a_typo_or_an_omission_is_refused_with_what_to_do(setting: str, said: str) -> None:
    assert said in rendered(ECS, "--set", setting, fails=True)


def test_every_value_is_read_by_a_template() -> None:
    """A value that does nothing is a promise that is not kept."""
    templates = "\n".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    unused = [
        item.path for item in values() if not re.search(rf"\b{re.escape(item.path.rsplit('.', 1)[-1])}\b", templates)
    ]
    assert unused == []


def test_every_setting_can_be_set_or_is_set_by_the_chart(everything: list[Body]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = schema["properties"]["config"]["properties"]
    assert len(known) == len(Settings.model_fields) - len(SET_ELSEWHERE)
    environment = the(everything, "ConfigMap", "alakai")["data"]
    fields = {name.upper() for name in Settings.model_fields} | {
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_SHARED_CREDENTIALS_FILE",
    }
    assert set(environment) <= fields


def test_the_environment_is_one_that_the_processes_accept(
    everything: list[Body], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment = the(everything, "ConfigMap", "alakai")["data"]
    url = tmp_path / "url"
    url.write_text("rediss://alakai:hush@redis:6379/0")
    for name, value in environment.items():
        monkeypatch.setenv(name, str(url) if name.endswith("REDIS_URL_FILE") else value)
    settings = Settings()
    assert settings.redis_url.startswith("rediss://")
    assert (settings.task_tracking_s3_archive_enabled, settings.task_tracking_s3_bucket) == (True, "history")
    assert (settings.max_retries, settings.retry_delays_seconds) == (3, (60.0, 0.5))
    assert (settings.slots_total, settings.slots_per_type) == (25, {"implementation": 20, "digest": 5})
    assert settings.google_client_ids == ("one.apps.googleusercontent.com", "two.apps.googleusercontent.com")
    assert (settings.callback_token_required, settings.installation) == (True, f"{NAMESPACE}/alakai")
    assert (settings.attempt_timeout_seconds, settings.log_level) == (7200, "DEBUG")
    assert settings.executions_redis_key_prefix == "everything"
    assert settings.google_domains == {"example.com"}
    assert settings.allowed_users == {"jane@example.com", "110169484474386276334"}


def test_the_launchers_file_is_the_one_that_was_given(everything: list[Body], tmp_path: Path) -> None:
    path = tmp_path / "launcher.yaml"
    path.write_text(the(everything, "ConfigMap", "-files")["data"]["launcher.yaml"])
    assert kubernetes_settings_from_file(path).namespace == "workers"
    environment = the(everything, "ConfigMap", "alakai")["data"]
    assert environment["KUBERNETES_LAUNCHER_FILE"] == "/etc/alakai/config/launcher.yaml"
    assert environment["LAUNCHER"] == "kubernetes"


def test_the_responsible_users_are_those_that_were_given(everything: list[Body], tmp_path: Path) -> None:
    path = tmp_path / "visibility.yaml"
    path.write_text(the(everything, "ConfigMap", "-files")["data"]["visibility.yaml"])
    assert visibility_from(str(path)).responsible_users("my-org/my-repo") == ("jane@example.com",)
    environment = the(everything, "ConfigMap", "alakai")["data"]
    assert environment["TASK_VISIBILITY_FILE"] == "/etc/alakai/config/visibility.yaml"
    for name in ("controller", "api"):  # the API refuses to start without the file that it is told of
        paths = {mount["mountPath"] for mount in container(everything, name)["volumeMounts"]}
        assert paths & {"/etc/alakai/config", "/etc/alakai/config/visibility.yaml"}


def test_those_who_are_told_are_those_that_were_given_and_only_the_controller_has_their_secrets(
    everything: list[Body], tmp_path: Path
) -> None:
    text = the(everything, "ConfigMap", "-files")["data"]["notifications.yaml"]
    (tmp_path / "webhook").write_text("a-secret-of-the-webhook")
    path = tmp_path / "notifications.yaml"
    path.write_text(text.replace("/etc/alakai/secrets/notifications/", f"{tmp_path}/"))
    found = open_channels(Settings(notifications_file=str(path)), Redis())
    assert found is not None
    assert [channel.name for channel in found.channels] == ["webhook", "callback:ci.example.com:443"]
    environment = the(everything, "ConfigMap", "alakai")["data"]
    assert environment["NOTIFICATIONS_FILE"] == "/etc/alakai/config/notifications.yaml"
    mounts = {
        name: {mount["mountPath"] for mount in container(everything, name)["volumeMounts"]}
        for name in ("controller", "api")
    }
    holders = [name for name, paths in mounts.items() if "/etc/alakai/secrets/notifications" in paths]
    assert holders == ["controller"]


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_only_the_controller_has_the_token_of_the_api_server(path: Path) -> None:
    found = objects(rendered(path))
    for account in of_kind(found, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for _, template in pod_specs(found):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        tokens = [
            volume["name"]
            for volume in spec["volumes"]
            if any("serviceAccountToken" in source for source in volume.get("projected", {}).get("sources", []))
        ]
        assert len(tokens) == 1
        holders = {
            item["name"]
            for item in spec["containers"]
            if any(mount["name"] in tokens for mount in item.get("volumeMounts", []))
        }
        assert holders == {"controller"}
    mounts = {mount["mountPath"] for mount in container(found, "controller")["volumeMounts"]}
    assert TOKEN_PATH in mounts


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_every_container_is_as_confined_as_can_be(path: Path) -> None:
    found = objects(rendered(path))
    for _, template in pod_specs(found):
        pod = template["spec"]["securityContext"]
        assert (pod["runAsNonRoot"], pod["runAsUser"], pod["seccompProfile"]) == (
            True,
            65532,
            {"type": "RuntimeDefault"},
        )
        for item in template["spec"]["containers"]:
            if item["name"] in ("controller", "api"):
                context = item["securityContext"]
                assert context["readOnlyRootFilesystem"] is True
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert item["resources"]["limits"]["memory"]
                assert set(item["resources"]["requests"]) == {"cpu", "memory"}


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_no_secret_is_made_and_none_stands_in_the_open(path: Path) -> None:
    text = rendered(path)
    assert of_kind(objects(text), "Secret") == []
    for item in of_kind(objects(text), "ConfigMap"):
        assert not re.search(r"://[^/\s@]+:[^/\s@]+@", json.dumps(item.get("data") or {}))


def test_what_people_expect_to_set_is_set(everything: list[Body]) -> None:
    (_, template) = next(pod_specs(everything))
    spec = template["spec"]
    controller, api = container(everything, "controller"), container(everything, "api")
    assert controller["image"].startswith("registry.example.com/alakai/alakai-controller@sha256:")
    assert api["image"] == "registry.example.com/alakai/alakai-api:1.2.4"
    assert {"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"} in controller["env"]
    assert {"name": "EXTRA", "value": "controller"} in controller["env"]
    assert {"name": "extra", "mountPath": "/extra"} in api["volumeMounts"]
    assert controller["livenessProbe"]["httpGet"]["path"] == "/livez?exclude=store"
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["topologySpreadConstraints"][0]["maxSkew"] == 2
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["tolerations"][0]["key"] == "system"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert template["metadata"]["labels"]["cost-center"] == "42"
    assert template["metadata"]["annotations"]["note"] == "a note"
    for item in everything:
        labels = item["metadata"]["labels"]
        assert labels["team"] == "platform"
        assert labels["app.kubernetes.io/instance"] == "alakai"
    ingress = the(everything, "Ingress")["spec"]
    assert [rule["host"] for rule in ingress["rules"]] == ["alakai.example.com", "alakai.example.org"]
    paths = {item["path"] for rule in ingress["rules"] for item in rule["http"]["paths"]}
    assert paths == {"/dashboard", "/task-claim", "/task-complete"}
    assert the(everything, "PodDisruptionBudget")["spec"]["minAvailable"] == 2
    assert the(everything, "ServiceAccount")["metadata"]["name"] == "operator"


def test_the_config_of_a_pod_changes_with_its_values() -> None:
    def checksum(*arguments: str) -> str:
        (_, template) = next(pod_specs(objects(rendered(ECS, *arguments))))
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum()
    assert checksum() != checksum("--set", "config.maxRetries=2")
    assert checksum() != checksum("--set", "launcher.file.cluster=others")


def test_the_rights_are_for_the_config_map_that_the_controller_uses() -> None:
    for path, prefix in ((ECS, "alakai-executions"), (EVERYTHING, "everything")):
        role = the(objects(rendered(path)), "Role")
        names = [name for rule in role["rules"] for name in rule.get("resourceNames", [])]
        assert names == [config_map_name(prefix)]


def test_jobs_in_another_namespace_get_their_rights_there(everything: list[Body]) -> None:
    roles = {item["metadata"]["namespace"]: item["rules"] for item in of_kind(everything, "Role")}
    assert [rule["resources"] for rule in roles["workers"]] == [["jobs"], ["pods"], ["events"]]
    assert ["jobs"] not in [rule["resources"] for rule in roles[NAMESPACE]]
    assert "workers" not in {item["metadata"].get("namespace") for item in of_kind(objects(rendered(ECS)), "Role")}


def test_the_definition_is_kept_and_a_further_release_has_none() -> None:
    (definition,) = of_kind(objects(rendered(ECS)), "CustomResourceDefinition")
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert definition["spec"] == yaml.safe_load((CHART / "files" / "workerexecutions.yaml").read_text())["spec"]
    assert of_kind(objects(rendered(SECOND)), "CustomResourceDefinition") == []
    (let_go,) = of_kind(objects(rendered(ECS, "--set", "crds.keep=false")), "CustomResourceDefinition")
    assert "helm.sh/resource-policy" not in let_go["metadata"].get("annotations", {})


def test_nothing_comes_in_or_goes_out_but_what_is_listed(everything: list[Body]) -> None:
    policy = the(everything, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"]["matchLabels"] == the(everything, "Deployment")["spec"]["selector"]["matchLabels"]
    assert all(rule.get("ports") for rule in policy["ingress"] + policy["egress"])
    assert all(rule.get("from") for rule in policy["ingress"])
    assert all(rule.get("to") for rule in policy["egress"])
    redis = [rule for rule in policy["egress"] if {"port": 26379, "protocol": "TCP"} in rule["ports"]]
    assert redis[0]["to"] == [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    assert of_kind(objects(rendered(SECOND)), "NetworkPolicy") == []


def test_probes_are_patient_in_the_order_of_what_they_do() -> None:
    """Unready long before a restart, and the API later than the controller (docs: deploy/helm/values.yaml)."""
    found = objects(rendered(ECS))

    def seconds(name: str, probe: str) -> int:
        timings = container(found, name)[f"{probe}Probe"]
        return int(timings["periodSeconds"] * timings["failureThreshold"])

    for name in ("controller", "api"):
        assert seconds(name, "readiness") < 20
        assert seconds(name, "liveness") >= 120
        assert container(found, name)["startupProbe"]["httpGet"]["path"] == "/startupz"
    assert seconds("api", "liveness") > seconds("controller", "liveness")


def test_probes_go_to_the_ports_that_answer_them_whatever_the_loop_does(everything: list[Body]) -> None:
    environment = the(everything, "ConfigMap")["data"]
    names: list[str] = []
    asked: list[str] = []
    for name, variable in (("controller", "CONTROLLER_PORT"), ("api", "API_PROBE_PORT")):
        item = container(everything, name)
        ports = {port["name"]: str(port["containerPort"]) for port in item["ports"]}
        names += ports
        (port,) = {item[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "liveness", "readiness")}
        assert ports[port] == environment[variable]
        asked.append(port)
    assert len(set(names)) == len(names), "a name is one port of the pod"
    (rule,) = (item for item in the(everything, "NetworkPolicy")["spec"]["ingress"] if "ipBlock" in item["from"][0])
    assert rule["ports"] == [{"port": port, "protocol": "TCP"} for port in asked]


def test_each_alert_has_a_runbook_and_a_link_to_it(everything: list[Body]) -> None:
    rules = [rule for group in the(everything, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md")
        page = ROOT / "docs" / "runbooks" / f"{rule['alert']}.md"
        assert page.exists(), f"{page.relative_to(ROOT)} is missing"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_dashboard_is_json_and_asks_for_metrics_that_there_are(everything: list[Body]) -> None:
    from executions.adapters import metrics

    document = json.loads(the(everything, "ConfigMap", "-dashboard")["data"]["alakai.json"])
    queries = " ".join(target["expr"] for panel in document["panels"] for target in panel["targets"])
    rules = (CHART / "files" / "alerts.yaml").read_text()
    known = {item._name for item in vars(metrics).values() if hasattr(item, "_name")}
    for asked in set(re.findall(r"alakai_[a-z_]+", queries + rules)):
        assert re.sub(r"_(total|bucket)$", "", asked) in known, asked
