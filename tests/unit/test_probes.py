"""What the probes answer to a path, without a server. With one: ``tests/integration/test_probes.py``."""

from __future__ import annotations

import pytest

from executions.adapters import health as module
from executions.adapters.health import Health
from executions.adapters.probes import answer


async def never() -> None:
    raise AssertionError("nobody asks the store here")


@pytest.fixture
def health() -> Health:
    return Health(never)


@pytest.mark.parametrize("path", ["/health", "/health?exclude=x"])
def test_health_asks_nobody(health: Health, path: str) -> None:
    health.is_closed = True
    assert answer(health, path) == (200, {"ok": True})


@pytest.mark.parametrize("path", ["/", "/livez/store", "/healthz", "//livez", "/livez%00", "//[", "?", ""])
def test_any_other_path_is_not_found(health: Health, path: str) -> None:
    assert answer(health, path) == (404, {"error": "not found"})


@pytest.mark.parametrize("path", ["/livez", "/v0/livez"])
def test_a_closed_store_is_named(health: Health, path: str) -> None:
    health.is_closed = True
    assert answer(health, path) == (503, {"ok": False, "failed": {"store": "closed"}})
    assert answer(health, f"{path}?latch=1")[0] == 503


@pytest.mark.parametrize("path", ["/livez", "/v0/livez"])
def test_the_store_can_be_left_out(health: Health, path: str) -> None:
    health.is_closed = True
    assert answer(health, f"{path}?exclude=store") == (200, {"ok": True})


@pytest.mark.parametrize("path", ["/readyz", "/v0/healthz"])
@pytest.mark.parametrize(
    ("is_trusted", "is_draining", "failed"),
    [
        pytest.param(True, False, [], id="ready"),
        pytest.param(False, False, ["trust"], id="the store is not known to be ours"),
        pytest.param(True, True, ["draining"], id="shutting down"),
        pytest.param(False, True, ["trust", "draining"], id="both"),
    ],
)
def test_readiness(health: Health, path: str, is_trusted: bool, is_draining: bool, failed: list[str]) -> None:
    health.tell("trust", None if is_trusted else "not known yet")
    health.is_draining = is_draining
    status, body = answer(health, f"{path}?exclude=store")
    assert status == (503 if failed else 200)
    assert list(body.get("failed", {})) == failed


def test_being_alive_is_another_question_than_being_ready(health: Health) -> None:
    health.tell("trust", "not known yet")
    health.is_draining = True
    assert answer(health, "/livez?exclude=store") == (200, {"ok": True})
    assert answer(health, "/readyz?exclude=store&exclude=trust&exclude=draining") == (200, {"ok": True})
    assert answer(health, "/readyz?exclude=store&exclude=trust")[0] == 503


@pytest.mark.parametrize("path", ["/startupz", "/livez", "/readyz"])
def test_a_loop_that_does_not_turn_is_named(health: Health, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(module, "LOOP_LAG_SECONDS", -1.0)
    stuck = {"loop": "the event loop has not turned for 0 s"}
    assert answer(health, path) == (503, {"ok": False, "failed": stuck})
    assert answer(health, f"{path}?exclude=store&exclude=loop") == (200, {"ok": True})


def test_a_process_that_has_begun_says_so_whatever_is_away(health: Health) -> None:
    health.is_closed = True
    health.tell("installation", "somebody else's")
    assert answer(health, "/startupz") == (200, {"ok": True})


def test_a_queue_of_somebody_else_makes_unready_and_not_dead(health: Health) -> None:
    health.tell("installation", "the queue x belongs to y")
    status, body = answer(health, "/readyz?exclude=store")
    assert (status, body["failed"]) == (503, {"installation": "the queue x belongs to y"})
    assert answer(health, "/livez?exclude=store") == (200, {"ok": True})
    health.tell("installation", None)
    assert answer(health, "/readyz?exclude=store") == (200, {"ok": True})


def test_before_the_loop_runs_a_store_that_nobody_could_ask_is_no_reason_for_a_restart(health: Health) -> None:
    not_asked = {"store": "not asked: the event loop does not run"}
    assert answer(health, "/startupz") == (200, {"ok": True})
    assert answer(health, "/livez") == (503, {"ok": False, "failed": not_asked})
    assert answer(health, "/livez?latch=1") == (200, {"ok": True})
    assert answer(health, "/readyz?latch=1") == (503, {"ok": False, "failed": not_asked})
