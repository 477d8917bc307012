"""`.local/env`: what it holds, that every shell reads it back as it was, and whose component is whose."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from devstack import environment
from devstack.environment import build_environment, current, read, render, shown, users_own, write
from devstack.errors import DevstackError

OURS = {
    "KUBECONFIG": "/clone/.local/kubernetes/kubeconfig",
    "REDIS_URL": "redis://localhost:6379",
    "AWS_ENDPOINT_URL": "http://localhost:4566",
}
NASTY = 'it\'s "quoted" $HOME `id` \\n #no comment; rm -rf ~ & é\ttab\nsecond line'


def built(ours: dict[str, str] | None = None, **environ: str) -> dict[str, str]:
    return build_environment(OURS if ours is None else ours, "default", environ)


def sourced(path: Path, **environ: str) -> dict[str, str]:
    """What a POSIX shell exports after reading the file."""
    shell = subprocess.run(
        ["/bin/sh", "-c", f"set -a; . '{path}'; set +a; exec env -0"],
        env={"PATH": os.defpath, **environ},
        capture_output=True,
        check=True,
    )
    pairs = (entry.decode().partition("=") for entry in shell.stdout.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def test_the_guides_values_are_the_defaults() -> None:
    values = built()
    expected = {
        **OURS,
        "TASK_TRACKING_REDIS_URL": "redis://localhost:6379",
        "SQS_QUEUE_URL": "http://localhost:4566/000000000000/alakai-queue",
        "IMPLEMENTATION_SQS_QUEUE_URL": "http://localhost:4566/000000000000/alakai-queue",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "TASK_TRACKING_REDIS_STREAM_KEY": "task-tracking:events:v1",
        "TASK_TRACKING_REDIS_KEY_PREFIX": "alakai-local:",
        "PORT": "3000",
        "API_PROBE_PORT": "0",
        "METRICS_PORT": "0",
        "CALLBACK_URL": "http://localhost:3000/task-complete",
        "EXECUTIONS_NAMESPACE": "default",
    }
    assert expected.items() <= values.items()


def test_the_callback_follows_the_port() -> None:
    assert built(PORT="3100")["CALLBACK_URL"] == "http://localhost:3100/task-complete"


@pytest.mark.parametrize("path", ["/usr/bin", "/with space/it's:/b"])
def test_a_shell_reads_every_value_back_as_it_was(path: str, tmp_path: Path) -> None:
    values = built() | {"NASTY": NASTY, "EMPTY": ""}
    folders = (Path("/a clone/it's $x/.venv/bin"), Path("/b/.local/bin"))
    file = tmp_path / "env file"
    write(file, render(values, folders))
    exported = sourced(file, PATH=path + ":" + os.defpath)
    assert values.items() <= exported.items()
    assert exported["PATH"] == f"/a clone/it's $x/.venv/bin:/b/.local/bin:{path}:{os.defpath}"


def test_python_reads_what_the_shell_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    file = tmp_path / "env"
    write(file, render(built() | {"NASTY": NASTY}, (Path("/a b"),)))
    exported = sourced(file)
    assert read(file).items() <= exported.items()
    assert read(file)["NASTY"] == NASTY


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    write(tmp_path / "env", "A=1\n")
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["env"]


def test_a_name_that_a_shell_would_run_is_refused() -> None:
    with pytest.raises(ValueError, match="not a variable name"):
        render({"A=1; rm": "x"}, ())


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DevstackError, match="run `make up` first"):
        read(tmp_path / "env")


def test_a_variable_of_the_users_is_theirs() -> None:
    assert users_own("REDIS_URL", {"REDIS_URL": "redis://mine"}) == "redis://mine"
    assert users_own("REDIS_URL", {}) is None
    assert users_own("REDIS_URL", {"REDIS_URL": ""}) is None


def test_a_shell_that_has_read_our_file_is_no_user_of_its_own() -> None:
    environ = built()
    assert [users_own(name, environ) for name in environment.COMPONENT_VARIABLES] == [None, None, None]
    assert users_own("REDIS_URL", environ | {"REDIS_URL": "redis://mine"}) == "redis://mine"


def test_a_component_of_the_users_stays_theirs_after_reading_the_file() -> None:
    ours = {name: value for name, value in OURS.items() if name != "REDIS_URL"}
    environ = built(ours, REDIS_URL="redis://mine")
    assert users_own("REDIS_URL", environ) == "redis://mine"
    assert environ["TASK_TRACKING_REDIS_URL"] == "redis://mine"


def test_left_over_urls_of_an_earlier_start_do_not_survive() -> None:
    stale = built()
    moved = build_environment(OURS | {"AWS_ENDPOINT_URL": "http://localhost:4600"}, "default", stale)
    assert moved["SQS_QUEUE_URL"] == "http://localhost:4600/000000000000/alakai-queue"


def test_the_users_aws_keys_are_neither_used_against_ours_nor_written_down() -> None:
    assert built(AWS_ACCESS_KEY_ID="AKIAREAL", AWS_SECRET_ACCESS_KEY="real")["AWS_SECRET_ACCESS_KEY"] == "test"
    ours = {name: value for name, value in OURS.items() if name != "AWS_ENDPOINT_URL"}
    theirs = built(ours, AWS_ENDPOINT_URL="https://sqs", AWS_ACCESS_KEY_ID="AKIAREAL", AWS_SECRET_ACCESS_KEY="real")
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & theirs.keys()


def test_a_proxy_never_stands_before_loopback() -> None:
    assert built(NO_PROXY="corp.example")["NO_PROXY"] == "corp.example,localhost,127.0.0.1"
    assert built(NO_PROXY="localhost,127.0.0.1")["NO_PROXY"] == "localhost,127.0.0.1"


def test_a_changed_mind_is_told_before_anything_is_touched(tmp_path: Path) -> None:
    file = tmp_path / "env"
    write(file, render(built(), ()))
    assert current(file, {})["REDIS_URL"] == "redis://localhost:6379"
    with pytest.raises(DevstackError, match=r"REDIS_URL is redis://prod, but .* run `make up`") as caught:
        current(file, {"REDIS_URL": "redis://me:hunter2@prod"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://u:secret@host:1/2", "redis://host:1/2"),
        ("redis://host:1", "redis://host:1"),
        ("/home/me/.kube/config", "/home/me/.kube/config"),
    ],
)
def test_shown_urls_hold_no_password(url: str, safe: str) -> None:
    assert shown(url) == safe
