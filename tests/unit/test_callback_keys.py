"""The file of keys: what is wrong with it is said in one line, and a change of it is noticed while we run."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from executions.adapters.callback_keys import CallbackKeys, open_callback_keys
from executions.adapters.settings import Settings
from executions.errors import InvalidSettings

ONE, TWO = (base64.b64encode(letter * 32).decode() for letter in (b"1", b"2"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def written(path: Path, **document: Any) -> Path:
    """The file, put in place as a mounted Secret is: whole, by a rename."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document))
    partial.rename(path)
    return path


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def opened(path: Path, **settings: Any) -> CallbackKeys | None:
    return open_callback_keys(Settings(env="production", callback_token_keys_file=str(path), **settings))


def test_yaml_with_two_keys(path: Path) -> None:
    path.write_text(f'current: "b"\nkeys:\n  "a": {ONE}\n  "b": {TWO}\n')
    keys = opened(path, executions_redis_key_prefix="mine")
    assert keys is not None
    assert (keys.ring.current, dict(keys.ring.keys), keys.ring.audience) == (
        "b",
        {"a": b"1" * 32, "b": b"2" * 32},
        "mine",
    )


def test_without_a_file_there_are_no_tokens() -> None:
    assert open_callback_keys(Settings(env="production")) is None


def test_tokens_cannot_be_required_without_keys() -> None:
    with pytest.raises(InvalidSettings, match="CALLBACK_TOKEN_REQUIRED is set and CALLBACK_TOKEN_KEYS_FILE is not"):
        open_callback_keys(Settings(env="production", callback_token_required=True))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "cannot be read", id="missing"),
        pytest.param("a: [", "neither YAML nor JSON", id="broken"),
        pytest.param("- hush", "is invalid", id="a list"),
        pytest.param(f"keys: {{a: {ONE}}}", "'current' is invalid", id="no current one"),
        pytest.param(f"current: b\nkeys: {{a: {ONE}}}", "'current' is none of the keys", id="an unknown current one"),
        pytest.param("current: a\nkeys: {a: aHVzaA==}", "key 'a' is not the base64 of 32", id="too short"),
        pytest.param("current: a\nkeys: {a: 'hush hush'}", "key 'a' is not the base64 of 32", id="no base64"),
        pytest.param(f"current: a.b\nkeys: {{a.b: {ONE}}}", "a key's id is not", id="an id with a dot"),
        pytest.param(f"current: a\nkeys: {{a: {ONE}}}\nhush: 1", "'hush' is invalid", id="an unknown field"),
        pytest.param("current: a\nkeys: {a: 5}", "'keys' is invalid", id="a number"),
    ],
)
def test_a_file_that_cannot_be_used(path: Path, content: str | None, problem: str) -> None:
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidSettings) as caught:
        opened(path)
    text = str(caught.value)
    assert problem in text
    assert text.startswith("CALLBACK_TOKEN_KEYS_FILE names")
    assert "openssl rand -base64 32" in text
    assert "\n" not in text
    assert "hush hush" not in text


def test_a_change_is_noticed_within_a_second(path: Path) -> None:
    clock = Clock()
    keys = CallbackKeys(written(path, current="a", keys={"a": ONE}), "mine", clock=clock)
    written(path, current="b", keys={"a": ONE, "b": TWO})
    clock.seconds = 0.9
    assert keys.ring.current == "a"
    clock.seconds = 1.0
    with capture_logs() as logs:
        assert keys.ring.current == "b"
        assert set(keys.ring.keys) == {"a", "b"}
    assert [(line["event"], line["current"]) for line in logs] == [("The callback keys were reloaded", "b")]


def test_a_broken_change_leaves_the_known_keys_and_is_told_once(path: Path) -> None:
    clock = Clock()
    keys = CallbackKeys(written(path, current="a", keys={"a": ONE}), "mine", clock=clock)
    written(path, current="gone", keys={"a": ONE})
    with capture_logs() as logs:
        for _ in range(3):
            clock.seconds += 1
            assert keys.ring.current == "a"
        os.unlink(path)
        clock.seconds += 1
        assert keys.ring.current == "a"
        written(path, current="b", keys={"b": TWO})
        clock.seconds += 1
        assert keys.ring.current == "b"
    assert [line["log_level"] for line in logs] == ["error", "error", "info"]
    assert ONE not in str(logs)
