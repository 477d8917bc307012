"""The local stack on real components: each survives being killed with its data, and nothing is left running."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import yaml

from devstack import environment, infra, reset, stack
from devstack.aws import AwsServer
from devstack.errors import DevstackError, PortTaken
from devstack.kubernetes import ControlPlane
from devstack.ports import free_port, require_free
from devstack.processes import Daemon
from devstack.redis import RedisServer

EXECUTION = {
    "apiVersion": "alakai.dev/v1alpha1",
    "kind": "WorkerExecution",
    "metadata": {"name": "held", "finalizers": ["alakai.dev/execution"]},
    "spec": {"taskId": "held", "taskType": "implementation"},
}


def kubectl(
    plane: ControlPlane, *arguments: str, kubeconfig: Path | None = None, stdin: str = "", fails: bool = False
) -> str:
    """Run kubectl; its output, or with `fails` its complaint."""
    command: list[str | Path] = [plane.kubectl, "--kubeconfig", kubeconfig or plane.kubeconfig, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout


def pid_of(daemon: Daemon) -> int:
    process = daemon.process()
    assert process is not None
    return process.pid


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own: its tests take the API server away."""
    plane = ControlPlane.start(tmp_path_factory.mktemp("plane"))
    yield plane
    pids = [pid_of(daemon) for daemon in (plane.etcd, plane.apiserver)]
    assert plane.stop() is True
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_the_api_server_comes_back_with_its_data(plane: ControlPlane) -> None:
    kubectl(plane, "create", "configmap", "kept", "--from-literal=a=1")
    port, certificate = plane.port, plane.certificate_authority
    plane.kill_apiserver()
    assert not plane.is_ready()
    assert plane.etcd.is_running
    plane.start_apiserver()
    assert (plane.port, plane.certificate_authority) == (port, certificate)
    assert kubectl(plane, "get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "1"


@pytest.mark.parametrize("killed", ["apiserver", "etcd", "both"])
def test_starting_again_brings_back_what_was_killed(killed: str, plane: ControlPlane) -> None:
    kubectl(plane, "create", "configmap", f"before-{killed}")
    port = plane.port
    if killed != "etcd":
        plane.apiserver.kill()
    if killed != "apiserver":
        plane.etcd.kill()
    again = ControlPlane.start(plane.data_dir)
    assert again.port == port
    assert f"before-{killed}" in kubectl(plane, "get", "configmaps", "-o", "name")


def test_a_certificate_is_renewed_before_it_expires(plane: ControlPlane) -> None:
    plane.kill_apiserver()
    old = plane.certificate_authority
    os.utime(plane.data_dir / "certificates" / "apiserver.crt", (0, 0))
    ControlPlane.start(plane.data_dir)
    assert plane.certificate_authority != old
    kubectl(plane, "get", "namespaces")


def test_starting_what_runs_changes_nothing(plane: ControlPlane) -> None:
    before = pid_of(plane.etcd), pid_of(plane.apiserver)
    again = ControlPlane.start(plane.data_dir, plane.port)
    assert (pid_of(again.etcd), pid_of(again.apiserver)) == before


def test_clients_verify_the_api_server(plane: ControlPlane) -> None:
    cluster = yaml.safe_load(plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    assert set(cluster) == {"server", "certificate-authority-data"}
    assert plane.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_access_rules_are_real(plane: ControlPlane) -> None:
    viewer = plane.write_kubeconfig("viewer")
    assert "forbidden" in kubectl(plane, "get", "configmaps", kubeconfig=viewer, fails=True)
    kubectl(plane, "create", "role", "look", "--verb=get,list", "--resource=configmaps")
    kubectl(plane, "create", "rolebinding", "look", "--role=look", "--user=viewer")
    kubectl(plane, "get", "configmaps", kubeconfig=viewer)
    assert "forbidden" in kubectl(plane, "create", "configmap", "no", kubeconfig=viewer, fails=True)


def test_a_service_account_gets_a_token(plane: ControlPlane, tmp_path: Path) -> None:
    kubectl(plane, "create", "serviceaccount", "robot")
    token = kubectl(plane, "create", "token", "robot").strip()
    config = plane.write_kubeconfig("robot", tmp_path / "robot", token)
    told = kubectl(plane, "auth", "whoami", "-o", "json", kubeconfig=config)
    assert json.loads(told)["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"


def test_clients_see_the_version_that_was_built(plane: ControlPlane) -> None:
    version = json.loads(kubectl(plane, "version", "-o", "json"))["serverVersion"]
    assert (version["major"], version["minor"]) == ("1", "36")


def test_redis_comes_back_with_its_data(tmp_path: Path) -> None:
    server = RedisServer.start(tmp_path)
    try:
        port = server.port
        with redis.Redis.from_url(server.url) as store:
            store.set("kept", "1")
        server.kill()
        assert not server.is_ready()
        server = RedisServer.start(tmp_path)
        assert server.port == port
        cli = subprocess.run([server.cli, "-u", server.url, "get", "kept"], capture_output=True, text=True, timeout=30)
        assert cli.stdout == "1\n"
    finally:
        server.stop()
    assert not server.is_running


def test_without_the_append_only_file_redis_forgets(tmp_path: Path) -> None:
    server = RedisServer.start(tmp_path, append_only=False)
    try:
        with redis.Redis.from_url(server.url) as store:
            store.set("lost", "1")
        server.kill()
        server = RedisServer.start(tmp_path, append_only=False)
        with redis.Redis.from_url(server.url) as store:
            assert store.exists("lost") == 0
    finally:
        server.stop()


def test_a_taken_port_is_told_before_a_server_fails_on_it(tmp_path: Path) -> None:
    server = RedisServer.start(tmp_path / "first")
    try:
        assert server.port is not None
        with pytest.raises(PortTaken, match=f"port {server.port} is taken"):
            RedisServer.start(tmp_path / "second", server.port)
    finally:
        server.stop()
    require_free(server.port or free_port())


@pytest.fixture(scope="module")
def user() -> Iterator[pytest.MonkeyPatch]:
    """A user with nothing of their own, and ports that nobody uses."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*environment.COMPONENT_VARIABLES, "SQS_QUEUE_URL", "EXECUTIONS_REDIS_KEY_PREFIX"]:
            patch.delenv(name, raising=False)
        for name in ("DEV_KUBERNETES_PORT", "DEV_REDIS_PORT", "DEV_AWS_PORT"):
            patch.setenv(name, str(free_port()))
        yield patch


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, user: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state folder of one clone, its stack up and furnished; afterwards nothing of it runs."""
    folder = tmp_path_factory.mktemp("a clone") / ".local"
    try:
        assert len(stack.up(folder).started) == 3
        infra.infra(environment.read(folder / "env"))
        pids = [pid_of(daemon) for part in stack.components(folder) for daemon in part.daemons]
        yield folder
    finally:
        stack.down(folder)
    assert len(pids) == 4
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.fixture
def values(local: Path) -> dict[str, str]:
    return environment.read(local / "env")


def test_up_again_leaves_alone_what_runs_and_brings_back_what_died(local: Path, values: dict[str, str]) -> None:
    with redis.Redis.from_url(values["REDIS_URL"]) as store:
        store.set("survives", "1")
    parts = {part.variable: part for part in stack.components(local)}
    kept = pid_of(parts["AWS_ENDPOINT_URL"].listener)
    parts["REDIS_URL"].listener.kill()
    parts["KUBECONFIG"].listener.kill()
    assert set(stack.up(local).started) == {"REDIS_URL", "KUBECONFIG"}
    assert environment.read(local / "env") == values
    assert pid_of(parts["AWS_ENDPOINT_URL"].listener) == kept
    with redis.Redis.from_url(values["REDIS_URL"]) as store:
        assert store.get("survives") == b"1"
    assert stack.up(local).started == ()


def test_a_shell_that_has_read_the_file_has_the_tools_and_the_stack(local: Path) -> None:
    script = f"set -a; . '{local}/env'; set +a; kubectl get executions -o name && redis-cli -u $REDIS_URL ping"
    shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert (shell.returncode, shell.stdout) == (0, "PONG\n"), shell.stderr


def test_infra_may_be_repeated_and_makes_what_the_guide_names(values: dict[str, str]) -> None:
    infra.infra(values)
    sqs = infra.sqs_client(values)
    url = sqs.get_queue_url(QueueName="alakai-queue")["QueueUrl"]
    assert url == values["SQS_QUEUE_URL"] == f"{values['AWS_ENDPOINT_URL']}/000000000000/alakai-queue"
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "30"
    redrive = json.loads(attributes["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"].endswith(":alakai-queue-dlq")
    assert int(redrive["maxReceiveCount"]) == 5
    assert infra.s3_client(values).head_bucket(Bucket="alakai-task-history")


def test_infra_corrects_a_queue_that_differs(values: dict[str, str]) -> None:
    sqs = infra.sqs_client(values)
    url = values["SQS_QUEUE_URL"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1"})
    infra.ensure_queue(sqs, "alakai-queue")
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert attributes == {"VisibilityTimeout": "30"}


def test_reset_empties_what_is_ours_and_nothing_else(local: Path, values: dict[str, str]) -> None:
    plane = ControlPlane(local / "kubernetes")
    sqs, s3 = infra.sqs_client(values), infra.s3_client(values)
    others = sqs.create_queue(QueueName="alakai-queue-of-somebody-else")["QueueUrl"]
    outcomes = sqs.create_queue(QueueName="alakai-queue-outcomes")["QueueUrl"]
    for url in (values["SQS_QUEUE_URL"], outcomes, others):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    s3.put_object(Bucket="alakai-task-history", Key="a/b.jsonl", Body=b"x")
    kubectl(plane, "apply", "-f", "-", stdin=json.dumps(EXECUTION))
    kubectl(plane, "create", "configmap", "epoch")
    kubectl(plane, "label", "configmap", "epoch", "app.kubernetes.io/managed-by=alakai-operator")
    kubectl(plane, "create", "configmap", "somebody-elses")
    ours = ["alakai-executions:a", "alakai-executions/epoch", "alakai-local:task-tracking:x", "task-tracking:events:v1"]
    with redis.Redis.from_url(values["REDIS_URL"]) as store:
        store.flushdb()
        for key in [*ours, "alakai-executions2:a", "somebody:else"]:
            store.set(key, "1")

    reset.reset(values)

    def waiting(url: str) -> str:
        name: Any = "ApproximateNumberOfMessages"
        return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name]

    assert [waiting(url) for url in (values["SQS_QUEUE_URL"], outcomes, others)] == ["0", "0", "1"]
    assert s3.list_objects_v2(Bucket="alakai-task-history")["KeyCount"] == 0
    assert kubectl(plane, "get", "executions,configmaps", "-o", "name") == "configmap/somebody-elses\n"
    with redis.Redis.from_url(values["REDIS_URL"]) as store:
        assert sorted(store.keys("*")) == [b"alakai-executions2:a", b"somebody:else"]
    reset.reset(values)  # of what is empty


def test_reset_leaves_finalizers_of_others_to_them(
    local: Path, values: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = ControlPlane(local / "kubernetes")
    metadata = {"name": "held", "finalizers": ["alakai.dev/execution", "example.com/theirs"]}
    kubectl(plane, "apply", "-f", "-", stdin=json.dumps(EXECUTION | {"metadata": metadata}))
    monkeypatch.setattr(reset, "DELETE_TIMEOUT_SECONDS", 1.0)
    with pytest.raises(DevstackError, match=r"1 executions keep finalizers that are not ours.*example\.com/theirs"):
        reset.reset(values)
    assert (
        kubectl(plane, "get", "execution", "held", "-o", "jsonpath={.metadata.finalizers}") == '["example.com/theirs"]'
    )
    kubectl(plane, "patch", "execution", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_a_second_clone_is_told_which_port_and_which_variable(local: Path, tmp_path: Path) -> None:
    port = os.environ["DEV_REDIS_PORT"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEV_KUBERNETES_PORT", str(free_port()))
        with pytest.raises(DevstackError, match=f"port {port}, wanted for Redis, is taken: set DEV_REDIS_PORT"):
            stack.up(tmp_path)
    assert not any(part.is_running for part in stack.components(tmp_path))


def test_what_the_user_brings_is_used_and_not_started(local: Path, values: dict[str, str], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in environment.COMPONENT_VARIABLES:
            patch.setenv(name, values[name])
        brought = stack.up(tmp_path)
        assert brought.started == ()
        assert {name: brought.values[name] for name in environment.COMPONENT_VARIABLES} == {
            name: values[name] for name in environment.COMPONENT_VARIABLES
        }
        stack.down(tmp_path)
    assert all(part.is_running for part in stack.components(local))


def test_moto_gives_the_guides_account(aws: AwsServer) -> None:
    server = {"AWS_ENDPOINT_URL": aws.url, "AWS_REGION": "us-east-1"}
    sqs = infra.sqs_client(server | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"})
    url = sqs.create_queue(QueueName="of-this-test")["QueueUrl"]
    assert url == f"{aws.url}/000000000000/of-this-test"
