"""The Redis user of `deploy/redis/users.acl` is enough for both processes, and may do nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from devstack.aws import AwsServer
from devstack.kubernetes import ControlPlane
from devstack.redis import RedisServer
from tests.e2e.installation import DEV_USER, Installation, message, told_to_nobody

FILE = Path(__file__).parents[2] / "deploy" / "redis" / "users.acl"
PASSWORD = "hush-of-the-user"
NOT_TRIED = frozenset({"quit", "reset", "shutdown", "monitor", "subscribe", "psubscribe", "sync", "psync", "replconf"})
"""Everybody may say good-bye; the others change what a connection is."""
OF_A_CONNECTION = frozenset({"hello", "auth", "multi", "exec", "client|setname"})
RARE = frozenset(
    {
        *("eval", "persist", "pexpire", "script|load", "wait", "zrank", "zremrangebyscore"),
        *("xtrim", "xclaim", "xgroup|delconsumer", "xgroup|destroy", "xinfo|consumers"),
    }
)
"""Of a rebuild, a breaker, a long feed; that they are used at all is seen in the code."""


def rules(prefix: str) -> list[str]:
    line = next(item for item in FILE.read_text().splitlines() if item.startswith("user "))
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    line = line.replace("task-events:v1", f"events-of-{prefix}").replace("task-tracking:", f"{prefix}-task-tracking:")
    return line.replace("PASSWORD_SHA256", digest).replace("alakai-executions", prefix).split()[1:]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer.start(tmp_path / "guarded")
    yield server
    server.stop()


@pytest.fixture
def admin(guarded: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(guarded.url, decode_responses=True) as admin:
        yield admin


def url_of_user(guarded: RedisServer) -> str:
    return f"redis://alakai:{PASSWORD}@localhost:{guarded.port}"


def granted() -> set[str]:
    return {rule[1:] for rule in rules("x") if rule.startswith("+")}


@pytest.mark.timeout(180)
def test_the_user_is_enough_for_all_that_is_done(
    guarded: RedisServer, admin: redis.Redis, aws: AwsServer, kube: ControlPlane, tmp_path: Path
) -> None:
    with Installation(guarded, aws, kube, tmp_path) as installation:
        admin.execute_command("ACL", "SETUSER", *rules(installation.prefix))
        admin.execute_command("CONFIG", "RESETSTAT")
        installation.env["REDIS_URL"] = url_of_user(guarded)
        controller, _ = installation.start_both(
            NOTIFICATIONS_FILE=str(told_to_nobody(tmp_path)),
            SLOTS_TOTAL="5",
            MAX_RETRIES="2",
            RETRY_DELAYS_SECONDS="0.5",
            LOCAL_WORKER="succeed",
        )
        installation.send(
            message("works"),
            message("fails", "fail"),
            message("dies", "die"),
            message("again", "transient"),
            message("hangs", "hang:all"),
        )
        installation.wait_for("works", 1, "succeeded")
        installation.wait_for("fails", 1, "failed")
        assert installation.retry("fails")[0] == 202
        installation.wait_for("fails", 2, "succeeded")
        installation.wait_for("dies", 1, "failed")
        installation.wait_for("again", 2, "succeeded")
        installation.wait_for("hangs", 1, "running")
        installation.kubectl("annotate", "execution", "hangs", "alakai.dev/cancel=enough")
        installation.wait_for("hangs", 1, "cancelled")
        installation.alakai_says("hold", "--reason", "a test")
        installation.alakai_says("resume")
        assert "Succeeded" in installation.alakai_says("explain", "works")
        installation.wait_until(
            lambda: "cannot be reached" in installation.alakai_says("notifications", "dead"), 30, "one is given up"
        )
        (dead, *_) = json.loads(installation.alakai_says("notifications", "dead", "--output", "json"))
        assert (dead["channel"], dead["tries"] > 1) == ("webhook", True)
        assert "put into the outbox again" in installation.alakai_says("notifications", "redrive")
        installation.wait_until(lambda: len(installation.read("/dashboard/tasks")["tasks"]) == 5, 10, "all are listed")
        assert installation.read("/dashboard/tasks/works")["status"] == "success"
        assert installation.read("/dashboard/executions/works")["phase"] == "Succeeded"
        with installation.http.stream(
            "GET", f"http://localhost:{installation.port}/dashboard/stream", headers={"x-dev-user": DEV_USER}
        ) as stream:
            assert "event: reset" in next(text for text in stream.iter_text() if "event:" in text)
        # By hand in Redis, by hand in Kubernetes, a new leader, and a Redis that lost everything.
        admin.delete(f"{installation.prefix}:works")
        installation.wait_until(lambda: installation.resource("works") is None, 30, "its resource goes")
        assert controller.stop() == 0
        installation.start_controller(SLOTS_TOTAL="5")
        installation.send(message("later"))
        installation.wait_for("later", 1, "succeeded")
        refused = [item for item in _log(admin) if item["object"] != "client"]
        assert refused == []
        used = {name.removeprefix("cmdstat_") for name in admin.info("commandstats")}
    assert granted() - OF_A_CONNECTION - RARE - {item.partition("|")[0] for item in granted() if "|" in item} <= {
        *used,
        *(
            f"{name}|{part}"
            for name in used
            for part in ("create", "exists", "groups", "load", "setid", "setname", "stream")
        ),
    }


def _log(admin: redis.Redis) -> list[dict[str, Any]]:
    """What was refused: redis-py asks to be named by its version, and does without."""
    found: Any = admin.execute_command("ACL", "LOG")
    entries = [dict(zip(item[::2], item[1::2], strict=True)) if isinstance(item, list) else item for item in found]
    return [{str(key): value for key, value in item.items()} for item in entries]


def test_the_user_may_do_nothing_else(guarded: RedisServer, admin: redis.Redis) -> None:
    admin.execute_command("ACL", "SETUSER", *rules("mine"))
    allowed = {item.partition("|")[0] for item in granted()}
    commands: Any = admin.execute_command("COMMAND")
    arities = {str(name): abs(int(item["arity"])) for name, item in commands.items()}
    assert len(arities) > 150
    with redis.Redis.from_url(url_of_user(guarded), decode_responses=True) as user:
        for name, arity in arities.items():
            if name in allowed or name in NOT_TRIED:
                continue
            with pytest.raises(redis.ResponseError, match=r"(?i)no permissions|NOPERM"):
                user.execute_command(name.upper(), *["x"] * (arity - 1))
        for key in ("yours", "mine", "mine-too:1", "mine2/x"):
            with pytest.raises(redis.ResponseError, match=r"(?i)no permissions|NOPERM|permissions to access"):
                user.get(key)
        for script in ("return redis.call('GET', 'yours')", "return redis.call('FLUSHALL')"):
            with pytest.raises(redis.ResponseError):
                user.eval(script, 0)
        for part in ("KILL", "LIST", "PAUSE"):
            with pytest.raises(redis.ResponseError):
                user.execute_command("CLIENT", part, "x")
        user.set("mine:1", "x")
        assert user.get("mine:1") == "x"
    assert admin.get("mine:1") == "x", "nothing was flushed"
    assert not re.search(r"\+@", " ".join(rules("x")))


def test_what_is_granted_for_rare_occasions_is_used_in_the_code() -> None:
    adapters = FILE.parents[2] / "executions" / "adapters"
    text = "".join(path.read_text() for path in adapters.iterdir() if path.suffix in (".py", ".lua")).lower()
    for name in RARE - {"script|load"}:  # redis-py loads a script that Redis does not know
        method = name.replace("|", "_")
        assert f"'{name}'" in text or f'"{name}"' in text or f".{method}(" in text, name
