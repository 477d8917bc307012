"""A Redis that asks who is there: the password is read from a file, and a rotated one is used without a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from devstack.redis import RedisServer
from executions.adapters.redis_connection import connect, redis_errors
from executions.adapters.settings import settings_from_environment
from executions.errors import InvalidSettings, StoreUnavailable


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    admin = redis.Redis.from_url(redis_server.url, decode_responses=True)
    yield admin
    admin.acl_deluser("rotated")
    admin.close()


async def test_a_rotated_password_is_used_for_new_connections(
    redis_server: RedisServer, admin: redis.Redis, tmp_path: Path
) -> None:
    def rotate(password: str) -> None:
        admin.execute_command("ACL", "SETUSER", "rotated", "on", "resetpass", f">{password}", "~*", "+@all")
        for client in admin.client_list():
            if client["user"] == "rotated":
                admin.client_kill_filter(_id=client["id"])

    file = tmp_path / "url"

    def write(password: str) -> str:
        url = f"redis://rotated:{password}@localhost:{redis_server.port}"
        file.write_text(url + "\n")
        return url

    rotate("first%2Fhush")
    rotate("first/hush")
    client = connect(write("first%2Fhush"), url_file=str(file))
    assert await client.ping()
    rotate("second-hush")

    async def pinged_twice() -> None:
        for _ in range(2):  # the first may only find its connection closed
            with redis_errors():
                await client.ping()

    with pytest.raises(StoreUnavailable) as unavailable:
        await pinged_twice()
    assert "hush" not in str(unavailable.value)
    write("second-hush")
    assert await client.ping()
    await client.aclose()


def test_the_url_is_read_from_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://one:6379\n")
    for name in ("REDIS_URL", "TASK_TRACKING_REDIS_URL", "TASK_TRACKING_REDIS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SQS_QUEUE_URL", "http://localhost/q")
    monkeypatch.setenv("REDIS_URL_FILE", str(file))
    settings = settings_from_environment()
    assert (settings.redis_url, settings.task_tracking_redis_url) == ("redis://one:6379", "redis://one:6379")
    monkeypatch.setenv("REDIS_URL", "redis://two:6379")
    with pytest.raises(InvalidSettings, match="REDIS_URL and REDIS_URL_FILE are both set; keep one of them"):
        settings_from_environment()
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(InvalidSettings, match="REDIS_URL_FILE names a file that cannot be read: No such file"):
        settings_from_environment()
