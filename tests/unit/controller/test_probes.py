"""What the probes answer, without a server. With one: ``tests/integration/test_probes.py``."""

from __future__ import annotations

import pytest

from controller import probes as module
from controller.probes import Probes


async def never() -> None:
    raise AssertionError("nobody asks the store here")


@pytest.fixture
def probes() -> Probes:
    return Probes(never)


@pytest.mark.parametrize("path", ["/health", "/health?exclude=x"])
def test_health_asks_nobody(probes: Probes, path: str) -> None:
    probes.is_closed = True
    assert probes.answer(path) == (200, {"ok": True})


@pytest.mark.parametrize("path", ["/", "/livez/store", "/healthz", "//livez", "/livez%00"])
def test_any_other_path_is_not_found(probes: Probes, path: str) -> None:
    assert probes.answer(path) == (404, {"error": "not found"})


@pytest.mark.parametrize("path", ["/livez", "/v0/livez"])
def test_a_closed_store_is_named(probes: Probes, path: str) -> None:
    probes.is_closed = True
    assert probes.answer(path) == (503, {"ok": False, "failed": {"store": "closed"}})


@pytest.mark.parametrize("path", ["/livez", "/v0/livez"])
def test_the_store_can_be_left_out(probes: Probes, path: str) -> None:
    probes.is_closed = True
    assert probes.answer(f"{path}?exclude=store") == (200, {"ok": True})


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
def test_readiness(probes: Probes, path: str, is_trusted: bool, is_draining: bool, failed: list[str]) -> None:
    probes.is_trusted, probes.is_draining = is_trusted, is_draining
    status, body = probes.answer(f"{path}?exclude=store")
    assert status == (503 if failed else 200)
    assert list(body.get("failed", {})) == failed  # type: ignore[call-overload]


def test_being_alive_is_another_question_than_being_ready(probes: Probes) -> None:
    probes.is_draining = True
    assert probes.answer("/livez?exclude=store") == (200, {"ok": True})
    assert probes.answer("/readyz?exclude=store&exclude=trust&exclude=draining") == (200, {"ok": True})
    assert probes.answer("/readyz?exclude=store&exclude=trust")[0] == 503


def test_a_loop_that_does_not_turn_is_named(probes: Probes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOP_LAG_SECONDS", -1.0)
    for path in ("/livez", "/readyz"):
        status, body = probes.answer(f"{path}?exclude=store&exclude=trust")
        assert status == 503
        assert body["failed"] == {"loop": "the event loop has not turned for 0 s"}


def test_a_process_that_has_begun_says_so_whatever_is_away(probes: Probes) -> None:
    probes.is_closed = True
    probes.own("somebody else's")
    assert probes.answer("/startupz") == (200, {"ok": True})


def test_a_queue_of_somebody_else_makes_unready_and_not_dead(probes: Probes) -> None:
    probes.trust(True)
    probes.own("the queue x belongs to y")
    status, body = probes.answer("/readyz?exclude=store")
    assert (status, body["failed"]) == (503, {"installation": "the queue x belongs to y"})
    assert probes.answer("/livez?exclude=store") == (200, {"ok": True})
    probes.own(None)
    assert probes.answer("/readyz?exclude=store") == (200, {"ok": True})


def test_a_store_that_was_never_there_is_no_reason_for_a_restart(probes: Probes) -> None:
    """The liveness probe of the chart; for anybody else the store counts from the beginning on."""
    answers: list[str | None] = ["no answer", "no answer", None, "no answer", "no answer"]
    probes._asked = lambda: answers.pop(0)  # type: ignore[method-assign]

    def asked(path: str) -> int:
        probes._last_ping = (0.0, None)
        return probes.answer(path)[0]

    assert asked("/livez?latch=1") == 200
    assert asked("/livez") == 503
    assert asked("/livez?latch=1") == 200
    assert asked("/livez?latch=1") == 503, "it was there: now a restart may help"
    assert asked("/livez") == 503
    probes.is_closed = True
    assert probes.answer("/livez?latch=1")[0] == 503
