"""What the API says when it starts, which routes there are then, and what it says to settings that cannot work."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import structlog
from structlog.testing import capture_logs

from api import __main__ as program
from api import main
from api.context import open_context
from executions.adapters.google_identity import GoogleIdentity
from executions.adapters.health import Probe
from executions.adapters.settings import Settings
from executions.errors import InvalidSettings
from tests.unit.api.harness import Api

ENABLED = "Dashboard retry route enabled"
DISABLED = "Dashboard retry route disabled (TASK_DASHBOARD_GOOGLE_CLIENT_IDS is not set)"
OPEN = "Callbacks are accepted without a token (CALLBACK_TOKEN_KEYS_FILE is not set)"
BYPASS = "Local auth bypass active on the retry route: 'x-dev-user' header accepted (ENV=local only)"


async def said_at_start(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(main, "_log", structlog.get_logger("test"))
    with capture_logs() as logs:
        async with api.app.router.lifespan_context(api.app):
            pass
    return [entry["event"] for entry in logs]


@pytest.mark.parametrize(
    ("env", "with_identity", "lines"),
    [
        ("production", True, [ENABLED, OPEN]),
        ("production", False, [DISABLED, OPEN]),
        ("local", False, [ENABLED, BYPASS, OPEN]),
        ("local", True, [ENABLED, BYPASS, OPEN]),
    ],
)
async def test_the_lines_that_explain_a_404(
    make_api: Callable[..., Api],
    monkeypatch: pytest.MonkeyPatch,
    env: str,
    with_identity: bool,
    lines: list[str],
) -> None:
    api = make_api(env=env, with_identity=with_identity)
    assert await said_at_start(api, monkeypatch) == lines


@pytest.mark.parametrize("control", ["retry", "cancel", "done", "assign"])
async def test_without_sign_in_there_are_no_dashboard_routes(make_api: Callable[..., Api], control: str) -> None:
    api = make_api(with_identity=False)
    await api.fail("task-1")
    response = await api.http.post(f"/dashboard/executions/task-1/{control}", json={"reason": "r", "assignee": "a"})
    assert (response.status_code, response.json()) == (404, {"error": "route not found"})
    assert not any(path.startswith("/dashboard") for path in api.app.openapi()["paths"])
    assert (await api.send("GET", "/health")).json() == {"ok": True}


def settings(**values: str) -> Settings:
    good = {"redis_url": "redis://127.0.0.1:1", "sqs_queue_url": "http://127.0.0.1:1/0/tasks"}
    # What a developer's shell has set is not what is tested here.
    neutral = {"env": "production", "task_dashboard_google_client_ids": "", "outcomes_sqs_queue_url": ""}
    return Settings.model_validate({**good, **neutral, **values})


async def test_a_context_is_wired_from_settings_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    context = open_context(settings(max_retries="3", launcher="kubernetes"))
    assert context.identity is None
    assert context.commands.policy.max_retries == 3
    assert context.commands.launcher == "kubernetes"
    assert isinstance(open_context(settings(task_dashboard_google_client_ids="a, b")).identity, GoogleIdentity)
    async with context.resources():
        assert await context.health.problems(Probe.LIVENESS, exclude=["store"]) == {}
    assert await context.health.problems(Probe.LIVENESS) == {"store": "closed"}


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"REDIS_URL": ""}, "REDIS_URL"),
        ({"SQS_QUEUE_URL": ""}, "SQS_QUEUE_URL"),
        ({"PORT": "canary"}, "PORT"),
        ({"API_PROBE_PORT": "canary"}, "API_PROBE_PORT"),
        ({"CALLBACK_TOKEN_REQUIRED": "true"}, "CALLBACK_TOKEN_KEYS_FILE"),
        ({"CALLBACK_TOKEN_KEYS_FILE": "/nowhere/keys.yaml"}, "CALLBACK_TOKEN_KEYS_FILE"),
        ({"SQS_QUEUE_URL": "http://127.0.0.1:1/0/tasks.fifo"}, "FIFO"),
    ],
)
def test_settings_that_cannot_work_end_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environment: dict[str, str], named: str
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    good = {
        "REDIS_URL": "redis://127.0.0.1:1",
        "SQS_QUEUE_URL": "http://127.0.0.1:1/0/tasks",
        "AWS_REGION": "us-east-1",
    }
    for name, value in {**good, **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(program, "configure_logging", lambda _: None)
    monkeypatch.setattr(program, "_listener", lambda _: pytest.fail("it went on"))
    assert program.main() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("api: ")
    assert printed.err.count("\n") == 1
    assert named in printed.err
    assert "canary" not in printed.err


def test_a_port_that_is_taken_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object, **__: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket, "create_server", taken)
    with pytest.raises(InvalidSettings, match=r"PORT 4321 .*Address already in use.* set PORT"):
        program._listener(settings(port="4321"))


@pytest.mark.parametrize(("env", "host"), [("local", "127.0.0.1"), ("production", "0.0.0.0")])  # noqa: S104
def test_the_bypass_is_not_offered_to_other_machines(monkeypatch: pytest.MonkeyPatch, env: str, host: str) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "create_server", lambda address, **_: asked.append(address))
    program._listener(settings(env=env, port="4321"))
    assert asked == [(host, 4321)]
