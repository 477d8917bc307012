"""The two calls: which answer ends them, which are repeated, for how long and how often. No socket is opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from alakai_worker import Outcome
from alakai_worker.client import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    RETRY_AFTER_LIMIT_SECONDS,
    Client,
    Completed,
    GaveUp,
    Rejected,
    seconds_from_retry_after,
    wait_seconds,
)
from alakai_worker.launch import Launch
from alakai_worker.log import Log
from alakai_worker.transport import NoReply, Reply

from api.schemas import ClaimAnswer, ClaimBody

LAUNCH = Launch("task-1", 2, 3, "http://localhost/task-claim", "http://localhost/task-complete", "trace-1")
NOW = 1_700_000_000.0


class Scene:
    """A clock that only sleeping and calling move, and a control plane that answers as scripted."""

    def __init__(self, *answers: Reply | NoReply, launch: Launch = LAUNCH, call_seconds: float = 0.0) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.waits: list[float] = []
        self.lines: list[dict[str, Any]] = []
        self.now = 0.0
        self.call_seconds = call_seconds
        log = Log(launch, write=lambda line: self.lines.append(json.loads(line)), wall_clock=lambda: NOW)
        self.client = Client(
            launch,
            log,
            send=self._send,
            clock=lambda: self.now,
            wall_clock=lambda: NOW,
            sleep=self._sleep,
            chance=lambda: 1.0,
        )

    def _send(self, url: str, body: bytes, *, timeout_seconds: float) -> Reply:
        self.sent.append((url, json.loads(body)))
        self.now += self.call_seconds
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, NoReply):
            raise answer
        return answer

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def reply(status: int, document: object = None, retry_after: str | None = None) -> Reply:
    return Reply(status, json.dumps(document).encode(), retry_after)


RECORDED = reply(200, {"recorded": True})
GRANTED = reply(200, {"task": {"taskId": "task-1", "payload": {"prompt": "x"}}, "traceId": "t", "retry": {"a": 1}})


def test_a_claim_says_who_asks_for_what() -> None:
    scene = Scene(GRANTED)
    claimed = scene.client.claim()
    assert claimed is not None
    assert (claimed.payload, claimed.trace_id, claimed.retry) == ({"prompt": "x"}, "t", {"a": 1})
    assert scene.sent == [
        (
            "http://localhost/task-claim",
            {"taskId": "task-1", "attempt": 2, "launchTry": 3, "claimId": scene.client.claim_id},
        )
    ]


def test_claim_and_answer_are_what_the_api_takes_and_gives() -> None:
    answer = ClaimAnswer(
        taskId="task-1",
        taskType="digest",
        attempt=2,
        launchTry=3,
        run=1,
        traceId="trace-upstream",
        task={"taskId": "task-1", "payload": {"prompt": "x"}},
        retry={"codexTransientFallbackMode": "safer_invocation"},
    )
    scene = Scene(Reply(200, answer.model_dump_json().encode()), launch=replace(LAUNCH, token="a-secret"))
    claimed = scene.client.claim()
    assert claimed is not None
    assert (claimed.task, claimed.trace_id, claimed.retry) == (answer.task, "trace-upstream", answer.retry)
    asked = ClaimBody.model_validate(scene.sent[0][1])
    assert (asked.claimId, asked.token) == (scene.client.claim_id, "a-secret")


def test_a_claim_carries_the_token_and_no_line_does() -> None:
    scene = Scene(reply(503), GRANTED, launch=replace(LAUNCH, token="a-secret"))
    scene.client.claim()
    assert [body["token"] for _, body in scene.sent] == ["a-secret", "a-secret"]
    assert "a-secret" not in json.dumps(scene.lines)


def test_a_repeated_claim_is_the_same_claim_and_every_process_has_its_own() -> None:
    scene = Scene(NoReply("cut"), GRANTED)
    scene.client.claim()
    assert scene.sent[0] == scene.sent[1]
    assert scene.client.claim_id != Scene(GRANTED).client.claim_id


def test_a_refused_claim_is_no_error() -> None:
    scene = Scene(reply(409, {"error": "claimed"}))
    assert scene.client.claim() is None
    assert scene.waits == []


def test_a_claim_without_hints_or_trace_id_uses_what_is_known() -> None:
    claimed = Scene(reply(200, {"task": {"payload": "odd"}, "traceId": 5, "retry": []})).client.claim()
    assert claimed is not None
    assert (claimed.trace_id, claimed.retry, claimed.payload) == ("trace-1", {}, {})


@pytest.mark.parametrize(
    ("answer", "completed"),
    [
        (RECORDED, Completed(True)),
        (reply(200, {"recorded": False, "reason": "superseded"}), Completed(False, "superseded")),
        (reply(202, {"recorded": False, "queued": True}), Completed(False, "queued")),
    ],
)
def test_a_delivered_outcome_is_done(answer: Reply, completed: Completed) -> None:
    scene = Scene(answer)
    assert scene.client.complete(Outcome.success()) == completed
    assert scene.waits == []


@pytest.mark.parametrize(
    ("call", "status"),
    [("complete", 409), *((call, status) for call in ("claim", "complete") for status in (400, 401, 403, 404, 413))],
)
def test_a_final_answer_is_not_repeated(call: str, status: int) -> None:
    scene = Scene(reply(status, {"error": "no"}))
    with pytest.raises(Rejected, match=f"HTTP {status}: no") as rejected:
        _call(scene, call)()
    assert rejected.value.status == status
    assert scene.waits == []


@pytest.mark.parametrize(
    "answer",
    [
        NoReply("timed out"),
        reply(500),
        reply(502),
        reply(503),
        reply(599),
        reply(408),
        reply(425),
        reply(429),
        reply(301),
        reply(204),
        Reply(200, b""),
        Reply(200, b"<html>welcome</html>"),
        Reply(200, b"[" * 100_000),
        Reply(200, b"\xff\xfe"),
        reply(200, ["recorded"]),
        reply(200, {"recorded": "yes"}),
        reply(200, {"queued": True}),
        reply(202, {"recorded": True}),
        reply(200, {"task": "no object"}),
    ],
)
@pytest.mark.parametrize("call", ["claim", "complete"])
def test_what_is_no_answer_is_tried_again(call: str, answer: Reply | NoReply) -> None:
    scene = Scene(answer, answer, GRANTED if call == "claim" else RECORDED)
    assert _call(scene, call)() is not None
    assert len(scene.sent) == 3
    assert [line["tries"] for line in scene.lines] == [1, 2]
    assert all(line["level"] == 40 and line["trace_id"] == "trace-1" for line in scene.lines)


def test_waits_grow_to_the_longest_and_the_last_try_is_at_the_deadline() -> None:
    scene = Scene(reply(503), launch=replace(LAUNCH, give_up_seconds=100))
    with pytest.raises(GaveUp, match="in 100 s and 10 tries: HTTP 503"):
        scene.client.complete(Outcome.success())
    assert scene.waits[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert scene.now == pytest.approx(100)
    assert len(scene.sent) == len(scene.waits) + 1


def test_an_outage_shorter_than_the_limit_loses_nothing() -> None:
    ten_minutes_away = [NoReply("refused")] * 30
    scene = Scene(*ten_minutes_away, RECORDED)
    assert scene.client.complete(Outcome.success()) == Completed(True)
    assert scene.now > 600


def test_slow_calls_count_against_the_limit() -> None:
    scene = Scene(NoReply("timed out"), launch=replace(LAUNCH, give_up_seconds=25), call_seconds=10)
    with pytest.raises(GaveUp, match="timed out"):
        scene.client.claim()
    assert len(scene.sent) == 3


def test_without_a_limit_there_is_one_try() -> None:
    scene = Scene(reply(503), launch=replace(LAUNCH, give_up_seconds=0))
    with pytest.raises(GaveUp):
        scene.client.claim()
    assert len(scene.sent) == 1


def test_retry_after_is_honoured() -> None:
    scene = Scene(reply(503, None, "7"), reply(429, None, formatdate(NOW + 20, usegmt=True)), RECORDED)
    scene.client.complete(Outcome.success())
    assert scene.waits == pytest.approx([7 * 1.2, 20 * 1.2])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("12", 12),
        ("-5", 0),
        ("soon", 0),
        ("²", 0),
        ("9" * 400, RETRY_AFTER_LIMIT_SECONDS),
        ("999999", RETRY_AFTER_LIMIT_SECONDS),
        (formatdate(NOW + 30, usegmt=True), 30),
        (formatdate(NOW - 30, usegmt=True), 0),
        ("Mon, 01 Jan 99999 00:00:00 GMT", 0),
    ],
)
def test_how_retry_after_is_read(text: str | None, seconds: float) -> None:
    assert seconds_from_retry_after(text, NOW) == seconds


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_jitter_stays_within_half_of_the_back_off_and_never_comes_early(chance: float) -> None:
    for tries in (1, 2, 5, 50, 5000):
        backoff = min(FIRST_WAIT_SECONDS * 2.0 ** min(tries - 1, 40), LONGEST_WAIT_SECONDS)
        assert backoff / 2 <= wait_seconds(tries, 0, chance) <= backoff
        assert wait_seconds(tries, 60, chance) >= 60


def _call(scene: Scene, call: str) -> Callable[[], object]:
    return scene.client.claim if call == "claim" else lambda: scene.client.complete(Outcome.success())
