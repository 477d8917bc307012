"""The command line tool on a real installation: what it shows, what it finds wrong, and that it mends it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from tests.e2e.installation import Installation, message

BUCKET = "command-line"


@pytest.fixture(scope="module")
def archived(
    redis_server: RedisServer, aws: AwsServer, kube: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """One with an archive, whose controller takes its time to compare by itself."""
    settings = {
        "TASK_TRACKING_S3_ARCHIVE_ENABLED": "true",
        "TASK_TRACKING_S3_BUCKET": BUCKET,
        "TASK_TRACKING_S3_BATCH_SECONDS": "0.3",
        "RESYNC_INTERVAL_SECONDS": "3600",
    }
    with Installation(redis_server, aws, kube, tmp_path_factory.mktemp("archived"), **settings) as found:
        found.env["TASK_TRACKING_S3_PREFIX"] = found.name
        bucket(found).create_bucket(Bucket=BUCKET)
        found.start_both()
        yield found


def bucket(installation: Installation) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=installation.env["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def objects(installation: Installation) -> list[str]:
    listed = bucket(installation).list_objects_v2(Bucket=BUCKET, Prefix=f"{installation.name}/")
    return [item["Key"] for item in listed.get("Contents", [])]


def fsck(installation: Installation, *options: str) -> tuple[int, dict[str, set[str]]]:
    """Exit code, and what was found by kind."""
    done = installation.run_alakai("fsck", "-o", "json", "--settle-seconds", "1", *options)
    assert done.returncode in (0, 1, 4), done.stderr
    found: dict[str, set[str]] = {}
    for item in json.loads(done.stdout):
        found.setdefault(item["kind"], set()).add(item["subject"])
    return done.returncode, found


def in_the_archive(installation: Installation, task_id: str) -> list[dict[str, Any]]:
    def looked() -> list[dict[str, Any]]:
        done = installation.run_alakai("archive", "read", task_id, "-o", "json")
        found: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
        return found if found and found[-1]["status"] in ("success", "error") else []

    return installation.wait_until(looked, 30, f"the archive has {task_id}")


def test_executions_are_shown_as_kubectl_shows_them(archived: Installation) -> None:
    archived.send(message("shown", "succeed"), message("not-shown", "fail"))
    archived.wait_for("shown", 1, "succeeded")
    archived.wait_for("not-shown", 1, "failed")
    archived.wait_until(lambda: archived.phase("shown") == (1, "Succeeded"), 10, "the resource shows it")
    archived.wait_until(lambda: archived.phase("not-shown") == (1, "Failed"), 10, "the resource shows it")
    heading, row = archived.alakai_says("get", "--phase", "succeeded", "--reason", "WorkerSucceeded").splitlines()[:2]
    assert heading.split() == ["NAME", "TYPE", "PHASE", "ATTEMPT", "REASON", "NEXT", "AGE"]
    assert row.split()[:5] == ["shown", "implementation", "Succeeded", "1", "WorkerSucceeded"]
    wide = archived.alakai_says("get", "shown", "-o", "wide")
    assert "my-org/my-repo" in wide
    document = json.loads(archived.alakai_says("get", "shown", "-o", "json"))
    assert document["kind"] == "WorkerExecution"
    assert "phase: Succeeded" in archived.alakai_says("get", "shown", "-o", "yaml")
    refused = archived.run_alakai("get", "nobody")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


def test_it_is_a_plugin_of_kubectl(archived: Installation) -> None:
    folder = Path(sys.executable).parent
    done = subprocess.run(
        [archived.kube.kubectl, "executions", "get"],
        env={**archived.env, "PATH": f"{folder}{os.pathsep}{archived.env['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("NAME")


def test_a_table_on_a_terminal_follows_what_happens(archived: Installation) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    environment = {**archived.env, "TERM": "xterm", "COLUMNS": "160"}
    shown = bytearray()
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "watch", "--phase", "Succeeded"],
        cwd=Path(__file__).parents[2],
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as watching:
        os.close(theirs)

        def has_shown(text: bytes) -> bool:
            while select.select([ours], [], [], 0)[0]:
                shown.extend(os.read(ours, 65_536))
            return text in shown

        try:
            archived.wait_until(lambda: has_shown(b"PHASE"), 20, "the heading is shown")
            archived.send(message("watched", "succeed"))
            archived.wait_until(lambda: has_shown(b"watched"), 20, "what happened since is shown")
            watching.send_signal(signal.SIGINT)
            assert watching.wait(10) == 130
        finally:
            watching.kill()
            os.close(ours)


def test_an_execution_is_explained_by_either_of_its_names(archived: Installation) -> None:
    archived.send(message("Odd_Name:1", "succeed"))
    archived.wait_for("Odd_Name:1", 1, "succeeded")
    name = archived.wait_until(
        lambda: next((name for name in archived.statuses() if name.startswith("odd-name-1-")), None), 20, "it is shown"
    )
    by_id, by_name = archived.alakai_says("explain", "Odd_Name:1"), archived.alakai_says("explain", name)
    assert by_id == by_name
    told = {item["what"]: item["text"] for item in json.loads(archived.alakai_says("explain", name, "-o", "json"))}
    assert told["next"] == "nothing: it is over"


def test_what_is_asked_for_is_done_by_the_api(archived: Installation) -> None:
    archived.send(message("asked", "hang:all"))
    archived.wait_for("asked", 1, "running")
    url = ["--core-url", f"http://localhost:{archived.port}", "--dev-user", "you@local"]
    assert archived.alakai_says("cancel", "asked", "--reason", "enough", *url).startswith("202 ")
    archived.wait_for("asked", 1, "cancelled")
    assert archived.alakai_says("done", "asked", *url).startswith("200 ")
    refused = archived.run_alakai("assign", "unknown-task", "jane", *url)
    assert (refused.returncode, refused.stdout[:3]) == (1, "404")


def test_a_task_that_failed_twice_is_traced_from_its_logs(archived: Installation, tmp_path: Path) -> None:
    archived.send(message("twice", "fail:all"))
    archived.wait_for("twice", 1, "failed")
    assert archived.retry("twice")[0] == 202
    archived.wait_for("twice", 2, "failed")
    assert archived.work_done("twice") == [(1, "failed"), (2, "failed")]
    shown = archived.alakai_says("trace", "trace-twice", str(archived.folder))
    lines = [line.split() for line in shown.splitlines() if " -> " in line]
    ways = [line[1] for line in lines]
    assert ways[0] == "orchestrator", "the controller takes it from the queue"
    assert ways.count("worker") == 2
    assert "core" in ways, "the API heard of the outcomes and the retry"
    assert [line[0] for line in lines] == sorted(line[0] for line in lines)
    assert "at last: failed" in shown
    from_standard_input = subprocess.run(
        [sys.executable, "-m", "cli.main", "trace", "twice"],
        input="\n".join(f"2026-01-01T00:00:00Z pod-1 {line}" for line in archived.logs().splitlines()),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert from_standard_input.stdout.count(" -> ") == len(lines)
    assert archived.run_alakai("trace", "nobodys-trace", str(archived.folder)).returncode == 1


def test_the_history_comes_back_from_the_archive(archived: Installation) -> None:
    archived.send(message("kept", "fail"))
    archived.wait_for("kept", 1, "failed")
    assert archived.retry("kept")[0] == 202
    archived.wait_for("kept", 2, "succeeded")
    archived.wait_until(lambda: in_the_archive(archived, "kept")[-1]["status"] == "success", 20, "its end is there")
    history = [(item["attempt"], item["phase"]) for item in in_the_archive(archived, "kept")]
    assert history == [
        (1, "Pending"), (1, "Running"), (1, "Failed"), (2, "Pending"), (2, "Running"), (2, "Succeeded"),
    ]  # fmt: skip
    assert "0 of them not as their receipts say" in archived.alakai_says("archive", "verify")
    # Redis forgot which objects hold it.
    key = f"{archived.name}-task-tracking:archived:kept"
    archived.redis.rename(key, f"{key}-elsewhere")
    assert len(in_the_archive(archived, "kept")) == 6
    archived.redis.rename(f"{key}-elsewhere", key)


def test_everything_is_there_by_the_doctors_word(archived: Installation) -> None:
    done = archived.run_alakai("doctor", "--core-url", f"http://localhost:{archived.port}", "-o", "json")
    found = {item["what"]: item for item in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {item["health"] for item in found.values()} <= {"good", "doubtful"}
    assert found["leader"]["health"] == "good"
    assert found["archive"]["found"] == f"s3://{BUCKET}/{archived.name}"
    assert found["rights"]["health"] == "good"
    broken = archived.run_alakai("doctor", "--core-url", "http://localhost:1", TASK_TRACKING_S3_BUCKET="missing")
    assert broken.returncode == 1
    assert "create it or correct TASK_TRACKING_S3_BUCKET" in broken.stdout
    assert "start it, or give --core-url" in broken.stdout


def test_a_healthy_installation_under_load_has_nothing_wrong(archived: Installation) -> None:
    archived.send(*(message(f"load-{number}", "succeed", seconds=0.2) for number in range(60)))
    code, found = fsck(archived)
    assert (code, found) == (0, {})
    archived.wait_until(lambda: archived.status("load-59") == (1, "succeeded"), 60, "the load is done")
    assert "everything fits together" in archived.alakai_says("fsck", "--settle-seconds", "1")


@pytest.mark.timeout(240)
def test_eight_things_that_do_not_fit_are_found_and_mended(archived: Installation) -> None:
    names = ["unlisted", "unseen", "misshown", "unrowed", "handmade", "doubled", "forgotten"]
    archived.send(*(message(f"odd-{name}", "hang:all" if name == "doubled" else "succeed") for name in names))
    for name in names:
        archived.wait_for(f"odd-{name}", 1, "running" if name == "doubled" else "succeeded", 60)
    for name in names:
        archived.wait_until(lambda name=name: archived.phase(f"odd-{name}"), 20, "it is shown")  # type: ignore[misc]
        if name != "doubled":
            in_the_archive(archived, f"odd-{name}")
    archived.wait_until(lambda: fsck(archived)[1] == {}, 60, "all is well before")
    prefix, tracking = archived.prefix, f"{archived.name}-task-tracking:"
    # Nobody who would mend it by itself is there while it is broken.
    for process in archived.running():
        if process.name == "controller":
            process.kill()
    doubles = archived.workers("odd-doubled")
    second = a_worker({**doubles[0].environ(), "ALAKAI_LAUNCH_TRY": "2"}, "f" * 64)
    orphan = a_worker({**doubles[0].environ(), "ALAKAI_TASK_ID": "odd-nobody"}, "e" * 64)
    archived.redis.zrem(f"{prefix}/index:finished", "odd-unlisted")
    remove_resource(archived, "odd-unseen")
    archived.kubectl(
        "patch", "execution", "odd-misshown", "--subresource=status", "--type=merge",
        "-p", '{"status":{"phase":"Running","attempts":[],"incarnation":"another"}}',
    )  # fmt: skip
    archived.redis.delete(f"{tracking}execution:odd-unrowed")
    edited = json.loads(str(archived.redis.hget(f"{prefix}:odd-handmade", "1")))
    archived.redis.hset(f"{prefix}:odd-handmade", "1", json.dumps({**edited, "note": "by hand"}))
    archived.redis.delete(f"{prefix}:odd-forgotten")
    archived.redis.delete(f"{prefix}/state:odd-forgotten")
    lost = next(name for name in objects(archived))
    bucket(archived).delete_object(Bucket=BUCKET, Key=lost)
    try:
        code, found = fsck(archived)
        assert code == 4
        assert {kind: subjects for kind, subjects in found.items() if kind not in ("lost-object", "not-archived")} == {
            "misindexed": {"odd-unlisted", "odd-forgotten"},
            "missing-resource": {"odd-unseen"},
            "stale-resource": {"odd-misshown"},
            "stale-row": {"odd-unrowed"},
            "foreign": {"odd-handmade"},
            "ghost-resource": {"odd-forgotten"},
            "double-worker": {"odd-doubled"},
            "orphan-worker": {"odd-nobody"},
        }
        assert found["lost-object"] == {lost.removeprefix(f"{archived.name}/")}
        archived.start_controller()
        code, found = fsck(archived, "--repair")
        assert code in (0, 1), found
        archived.wait_until(lambda: fsck(archived) == (0, {}), 60, "all is well again")
        assert second.poll() is not None
        assert orphan.poll() is not None
        assert len(archived.workers("odd-doubled")) == 1
        assert archived.phase("odd-unseen") == (1, "Succeeded")
        assert archived.resource("odd-forgotten") is None
        assert json.loads(str(archived.redis.hget(f"{prefix}:odd-handmade", "1")))["note"] == "by hand"
    finally:
        for started in (second, orphan):
            started.kill()
            started.wait()


def a_worker(environment: dict[str, str], token: str) -> subprocess.Popen[bytes]:
    """One that never asks whether it may work, which a worker of another kind might do."""
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)", "alakai_worker", "--launch-token", token]
    return subprocess.Popen(sleeping, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def remove_resource(installation: Installation, name: str) -> None:
    """As if it had never been made: nobody's wish."""
    patch = '{"metadata":{"finalizers":[]}}'
    installation.kubectl("patch", "execution", name, "--type=merge", "-p", patch)
    installation.kubectl("delete", "execution", name)


def test_pruned_records_are_those_of_the_archive(archived: Installation) -> None:
    archived.send(message("pruned", "succeed"))
    archived.wait_for("pruned", 1, "succeeded")
    in_the_archive(archived, "pruned")
    tomorrow = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86_400))
    dry = archived.alakai_says("prune", "--archived-before", tomorrow, "--dry-run")
    assert int(dry.split()[0]) >= 1
    assert archived.status("pruned") == (1, "succeeded")
    archived.alakai_says("prune", "--archived-before", tomorrow)
    assert archived.status("pruned") is None
    archived.wait_until(lambda: archived.resource("pruned") is None, 20, "its resource goes with it")
    assert in_the_archive(archived, "pruned")[-1]["phase"] == "Succeeded"
    assert archived.run_alakai("prune", "--archived-before", "never").returncode == 1
