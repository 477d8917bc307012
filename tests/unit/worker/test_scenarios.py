"""What each scenario plays; those that end the process are in the integration tests."""

from __future__ import annotations

import time
from typing import Any

import pytest
from alakai_worker import Claimed, Outcome
from alakai_worker.launch import Launch
from alakai_worker.scenarios import SCENARIOS

LAUNCH = Launch("task-1", 1, 1, "http://localhost/task-claim", "http://localhost/task-complete", "trace-1")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def play(name: str, payload: dict[str, Any]) -> Outcome:
    return SCENARIOS[name](Claimed(LAUNCH, {"payload": payload}, "trace-1"))


def test_succeed_links_a_pull_request_of_the_repository(slept: list[float]) -> None:
    outcome = play("succeed", {"repo": "my-org/my-repo"})
    assert outcome.succeeded
    assert outcome.pull_request_url is not None
    assert outcome.pull_request_url.startswith("https://github.com/my-org/my-repo/pull/")
    assert slept == [0.2]


@pytest.mark.parametrize("repository", [None, "no-owner", 5, "a/b/c", "a/b?c"])
def test_without_a_repository_there_is_no_pull_request(slept: list[float], repository: object) -> None:
    assert play("succeed", {"repo": repository}) == Outcome.success()


@pytest.mark.parametrize(("payload", "seconds"), [({}, 4), ({"seconds": 0.5}, 0.5), ({"seconds": 0}, 0)])
def test_slow_takes_its_time(slept: list[float], payload: dict[str, Any], seconds: float) -> None:
    assert play("slow", payload).succeeded
    assert slept == [seconds]


@pytest.mark.parametrize("seconds", ["5", -1, True, None, float("nan"), 10**9])
def test_slow_refuses_what_is_no_time(slept: list[float], seconds: object) -> None:
    outcome = play("slow", {"seconds": seconds})
    assert not outcome.succeeded
    assert "payload.seconds" in str(outcome.error_message)
    assert slept == []


def test_fail_is_a_failure_that_waits_for_a_person() -> None:
    outcome = play("fail", {"agent": {"provider": "claude", "model": "m", "x": 1}})
    assert (outcome.succeeded, outcome.error_family) == (False, None)
    assert outcome.agent == {"provider": "claude", "model": "m"}


@pytest.mark.parametrize(
    ("payload", "provider"),
    [({}, "codex"), ({"agent": {"provider": "claude"}}, "claude"), ({"agent": {"model": "m"}}, "codex")],
)
def test_transient_is_a_failure_of_the_provider(payload: dict[str, Any], provider: str) -> None:
    outcome = play("transient", payload)
    assert (outcome.error_code, outcome.error_family) == (f"{provider}_transient_upstream", "transient_upstream")
