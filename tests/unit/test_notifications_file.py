"""The file that says who is told: what it makes, what it refuses, and secrets that change while we run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from redis.asyncio import Redis
from structlog.testing import capture_logs

from executions.adapters.notifications_file import EXAMPLE, NotificationsFile, open_channels
from executions.adapters.secret_file import SecretFile
from executions.adapters.settings import Settings
from executions.delivery import DeliveryRules
from executions.errors import InvalidSettings

SECRET = "s" * 32
WEBHOOK = "webhook: {url: 'https://h.example/x', secretFile: secret}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "short").write_text("short\n")
    return tmp_path


def names(folder: Path, text: str, *, env: str = "production") -> list[str]:
    path = folder / "notifications.yaml"
    path.write_text(text)
    found = open_channels(Settings(env=env, notifications_file=str(path)), Redis())
    assert found is not None
    return [channel.name for channel in found.channels]


def test_without_a_file_nobody_is_told() -> None:
    assert open_channels(Settings(), Redis()) is None


def test_each_section_switches_its_channel_on(folder: Path) -> None:
    assert names(folder, WEBHOOK) == ["webhook"]
    text = WEBHOOK + "allowedHosts: [h.example, 'i.example:8443', H.example]\nslack: {tokenFile: secret}\n"
    assert names(folder, text + "github: {tokenFile: secret}") == [
        *("webhook", "callback:h.example:443", "callback:i.example:8443", "slack", "github"),
    ]


def test_the_example_is_one(repository: Path) -> None:
    document = yaml.safe_load((repository / EXAMPLE).read_text())
    found = NotificationsFile.model_validate_json(json.dumps(document))
    assert found.delivery.rules == DeliveryRules(), "it shows the values that count without it"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{}", "tells nobody", id="empty"),
        pytest.param("webhok: {}", "webhok: Extra inputs", id="a typo"),
        pytest.param("webhook: {url: 'https://h.example'}", "webhook.secretFile: Field required", id="no secret"),
        pytest.param("webhook: {secretFile: secret}", "neither an url nor allowedHosts", id="nowhere to send to"),
        pytest.param("webhook: {url: 'http://h.example', secretFile: secret}", "must begin with https", id="http"),
        pytest.param("webhook: {url: 'https://u:p@h.example', secretFile: secret}", "user or password", id="password"),
        pytest.param("webhook: {url: 'https://h.example', secretFile: none}", "cannot be read", id="no such file"),
        pytest.param("webhook: {url: 'https://h.example', secretFile: short}", "at least 16", id="a short secret"),
        pytest.param("allowedHosts: [h.example]", "no webhook.secretFile", id="hosts alone"),
        pytest.param(WEBHOOK + "allowedHosts: ['https://h.example']", "allowedHosts.0", id="a URL for a host"),
        pytest.param(WEBHOOK + "allowedHosts: ['*.example']", "allowedHosts.0", id="no patterns"),
        pytest.param("slack: {tokenFile: secret, channel: 'a b'}", "slack.channel", id="no channel"),
        pytest.param(
            "github: {tokenFile: secret, apiUrl: 'http://x'}", "github.apiUrl must begin", id="http to GitHub"
        ),
        pytest.param(WEBHOOK + "delivery: {timeoutSeconds: 0}", "delivery.timeoutSeconds", id="no time"),
        pytest.param("- a", "the file", id="a list"),
    ],
)
def test_what_is_refused(folder: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        names(folder, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_http_is_for_a_developers_machine(folder: Path) -> None:
    text = "webhook: {url: 'http://localhost:1', secretFile: secret}\nallowedHosts: ['localhost:1']"
    assert names(folder, text, env="local") == ["webhook", "callback:localhost:1"]


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_secret_that_changes_is_used_within_a_second_and_a_broken_one_is_not(folder: Path) -> None:
    clock = Clock()
    path = folder / "secret"
    secret = SecretFile(path, at_least=16, clock=clock)
    assert secret.text == SECRET
    path.write_text("n" * 40)
    assert secret.text == SECRET
    clock.seconds += 1
    assert secret.text == "n" * 40
    with capture_logs() as logs:
        for broken in ("two\nlines-of-a-secret", "short", "ümläuteümläuteümläute"):
            path.write_text(broken)
            clock.seconds += 1
            assert secret.text == "n" * 40
        os.unlink(path)
        clock.seconds += 1
        assert secret.text == "n" * 40
    assert [line["log_level"] for line in logs] == ["error"] * 4
    assert "lines-of" not in str(logs)
