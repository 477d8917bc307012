"""A worker's life from claim to exit code, and the summary event at its end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from alakai_worker import Claimed, Exit, Outcome, Work, run
from alakai_worker.client import Client
from alakai_worker.launch import Launch
from alakai_worker.log import Log
from alakai_worker.signals import Signals
from alakai_worker.summary import Summary
from alakai_worker.transport import Reply
from alakai_worker.worker import execute

import executions.summary
from executions.outcome import Agent
from executions.task import task_from_document
from tests.support.builders import task_document

LAUNCH = Launch("task-1", 1, 1, "http://localhost/task-claim", "http://localhost/task-complete", "trace-1", "digest")


class Life:
    """One run of ``execute`` against scripted answers."""

    def __init__(
        self,
        work: Work,
        *,
        claim: Reply | None = None,
        complete: Reply | None = None,
        before: Callable[[], None] = lambda: None,
        during_claim: Callable[[], None] = lambda: None,
        task: dict[str, Any] | None = None,
    ) -> None:
        granted = json.dumps({"task": task or task_document(), "traceId": "trace-upstream"}).encode()
        self._claim = claim or Reply(200, granted)
        self._complete = complete or Reply(200, b'{"recorded":true}')
        self._during_claim = during_claim
        self._clock = 0.0
        self.reported: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        log = Log(LAUNCH, write=lambda line: self.lines.append(json.loads(line)), wall_clock=lambda: 1_700_000_000.5)
        client = Client(LAUNCH, log, send=self._send, sleep=self._sleep, clock=self._now)
        with Signals() as signals:
            before()
            self.exit_code = execute(work, client, Summary(LAUNCH, log, clock=self._now), signals, log)

    @property
    def event(self) -> dict[str, Any]:
        (event,) = [line for line in self.lines if line["msg"].startswith("[event]")]
        return event

    def _send(self, url: str, body: bytes, *, timeout_seconds: float) -> Reply:
        if url == LAUNCH.claim_url:
            self._during_claim()
            return self._claim
        self.reported.append(json.loads(body))
        return self._complete

    def _now(self) -> float:
        self._clock += 0.25
        return self._clock

    def _sleep(self, seconds: float) -> None:
        self._clock += seconds


def succeed(claimed: Claimed) -> Outcome:
    return Outcome.success(pull_request_url="https://github.com/a/b/pull/17", agent={"provider": "codex", "model": "m"})


def test_exit_codes_are_what_the_documentation_says() -> None:
    assert {code.name: int(code) for code in Exit} == {"OK": 0, "FAILED": 1, "USAGE": 64, "UNREPORTED": 75}


def test_a_success_is_reported_and_told() -> None:
    life = Life(succeed)
    assert life.exit_code == Exit.OK
    assert life.reported[0]["result"]["status"] == "success"
    assert (life.event["outcome"], life.event["final_status"]) == ("success", "completed")
    assert life.event["steps"] == {"claim": "ok", "work": "ok", "report": "ok"}
    assert life.event["pull_request"] == {"url": "https://github.com/a/b/pull/17", "number": 17}
    assert life.event["error"] is None
    assert life.lines == [life.event]


def test_the_event_has_the_shape_of_the_other_components() -> None:
    task = task_document(metadata={"trace_id": "trace-upstream", "actor": {"provider": "slack", "id": "U1"}})
    task["payload"]["baseRef"] = "main"
    theirs = executions.summary.Slice.of_task("core", task_from_document(task), 0).event(
        "error",
        "failed",
        now_ms=1_700_000_000_500,
        error_type="E",
        error_message="m",
        agent=Agent(provider="codex", model="m"),
        pull_request_url="https://github.com/a/b/pull/17",
    )
    url = "https://github.com/a/b/pull/17"
    failure = Outcome(False, "m", "E", pull_request_url=url, agent={"provider": "codex", "model": "m"})
    ours = Life(lambda claimed: failure, task=task).event
    own = {"service": "alakai-worker-implementation", "component": "worker", "steps": ours["steps"]}
    context = {"trace_id": "trace-upstream", "component": "worker"}
    assert ours == {**theirs, **own, "context": context, "duration_ms": ours["duration_ms"]}
    assert list(ours) == list(theirs)
    assert isinstance(ours["duration_ms"], int)
    assert ours["duration_ms"] > 0


def test_a_failure_is_reported_and_the_exit_code_says_so() -> None:
    life = Life(lambda claimed: Outcome.failure("tests are red", code="RED"))
    assert life.exit_code == Exit.FAILED
    assert life.event["error"] == {"type": "RED", "message": "tests are red"}
    assert life.event["final_status"] == "failed"


def test_work_that_raises_is_a_failure_with_its_text() -> None:
    def work(claimed: Claimed) -> Outcome:
        raise RuntimeError("no space left")

    life = Life(work)
    assert life.exit_code == Exit.FAILED
    assert life.reported[0]["result"]["errorMessage"] == "RuntimeError: no space left"
    assert life.reported[0]["result"]["errorCode"] == "WORKER_FAILED"
    assert life.event["error"] == {"type": "RuntimeError", "message": "RuntimeError: no space left"}


@pytest.mark.parametrize("code", [0, 3, "text"])
def test_work_that_exits_is_a_failure(code: object) -> None:
    def work(claimed: Claimed) -> Outcome:
        sys.exit(code)  # type: ignore[arg-type]

    life = Life(work)
    assert life.exit_code == Exit.FAILED
    assert life.reported[0]["result"]["errorMessage"] == f"SystemExit: {code}"


def test_work_that_returns_nothing_is_a_failure() -> None:
    def work(claimed: Claimed) -> Outcome:
        return None  # type: ignore[return-value]

    life = Life(work)
    assert life.exit_code == Exit.FAILED
    assert "must return an Outcome, not NoneType" in life.reported[0]["result"]["errorMessage"]


def test_a_refused_claim_does_nothing_reports_nothing_and_is_one_line() -> None:
    life = Life(_forbidden, claim=Reply(409))
    assert life.exit_code == Exit.OK
    assert life.reported == []
    assert (life.event["outcome"], life.event["final_status"]) == ("skipped", "claim_refused")
    assert life.event["service"] == "alakai-worker-digest"
    assert life.lines == [life.event]


@pytest.mark.parametrize("answer", [Reply(404), Reply(503)])
def test_a_claim_that_cannot_be_had_ends_without_work(answer: Reply) -> None:
    life = Life(_forbidden, claim=answer)
    assert life.exit_code == Exit.UNREPORTED
    assert life.reported == []
    assert life.event["final_status"] == "not_claimed"
    assert life.event["steps"] == {"claim": "error", "work": "-", "report": "-"}


@pytest.mark.parametrize("answer", [Reply(404), Reply(503)])
def test_an_outcome_that_cannot_be_delivered_shows_in_the_exit_code(answer: Reply) -> None:
    life = Life(succeed, complete=answer)
    assert life.exit_code == Exit.UNREPORTED
    assert (life.event["outcome"], life.event["final_status"]) == ("error", "unreported")
    assert life.event["steps"] == {"claim": "ok", "work": "ok", "report": "error"}


def test_an_outcome_that_was_not_recorded_is_delivered_all_the_same() -> None:
    life = Life(succeed, complete=Reply(200, b'{"recorded":false,"reason":"superseded"}'))
    assert life.exit_code == Exit.OK
    assert life.lines[0]["reason"] == "superseded"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts_the_work_and_is_reported(number: signal.Signals) -> None:
    began = time.monotonic()

    def work(claimed: Claimed) -> Outcome:
        os.kill(os.getpid(), number)
        time.sleep(60)
        return Outcome.success()

    life = Life(work)
    assert time.monotonic() - began < 30
    assert life.exit_code == 128 + number
    assert life.reported[0]["result"]["errorMessage"] == f"stopped by signal {number.name}"
    assert life.reported[0]["result"]["errorCode"] == "WORKER_STOPPED_EXTERNALLY"


def test_a_careless_handler_in_the_work_does_not_swallow_a_signal() -> None:
    def work(claimed: Claimed) -> Outcome:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception:
            return Outcome.success()
        return Outcome.success()

    assert Life(work).exit_code == 143


def test_a_second_signal_does_not_disturb_the_report() -> None:
    def work(claimed: Claimed) -> Outcome:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
        return Outcome.success()

    life = Life(work)
    assert life.exit_code == 143
    assert len(life.reported) == 1


def test_a_signal_before_the_claim_ends_the_worker_without_a_word() -> None:
    life = Life(_forbidden, before=_terminated)
    assert life.exit_code == 143
    assert life.reported == []
    assert life.event["final_status"] == "stopped"


def test_a_signal_during_the_claim_waits_for_its_answer_and_is_reported_when_that_is_the_grant() -> None:
    life = Life(_forbidden, during_claim=_terminated)
    assert life.exit_code == 143
    assert life.reported[0]["result"]["errorMessage"] == "stopped by signal SIGTERM"


def test_a_signal_during_a_claim_that_is_not_answered_ends_the_worker() -> None:
    life = Life(_forbidden, claim=Reply(503), during_claim=_terminated)
    assert life.exit_code == 143
    assert life.reported == []
    assert life.event["final_status"] == "stopped"


def test_the_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    Life(succeed)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_started_by_hand_is_told_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(succeed, environ={}) == Exit.USAGE
    assert capsys.readouterr().err.startswith("alakai-worker: ALAKAI_TASK_ID is not set")


def _terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _forbidden(claimed: Claimed) -> Outcome:
    raise AssertionError("the work must not begin")
