"""One attempt's life from its launch intent to its end. Submitting is in ``submission``, retrying in ``retry``.

      claim            intent + launch           outcome | cancelled | lost
    ────────► pending ───────────────► running ───────────────────────────► succeeded | failed | cancelled
                 ▲                        │
                 └────────────────────────┘  never started, or taken away: launched again within the attempt

Every function takes the execution that was read and returns the one to commit; a stale caller's wish (another
attempt, another launch try) changes nothing. Who commits is ``operations``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alakai_worker.redaction import sanitised

from executions.answer import Decision, Reply, changed, unchanged
from executions.automatic_retry import settle_schedule
from executions.callback_token import LIFE_MS, LaunchProof
from executions.evidence import STOPPED_EXTERNALLY
from executions.outcome import MESSAGE_LIMIT, Outcome
from executions.policy import Policy
from executions.record import (
    Attempt,
    Evidence,
    Execution,
    Judgement,
    LateResult,
    Launch,
    ReportedAgent,
    Result,
    Rung,
    ScheduleOutcome,
    Status,
    StopOrder,
    StopReport,
    Suspicion,
    Waiting,
)

EVIDENCE_KEPT = 16
_LATE_RESULTS_KEPT = 5
_STOPPED_BY_US = {"ATTEMPT_TIMEOUT": "the attempt ran too long", "START_TIMEOUT": "the worker started too late"}


def intend_launch(
    execution: Execution,
    attempt: int,
    *,
    token: str,
    request: dict[str, Any],
    now_ms: int,
    policy: Policy,
    callback_key: str | None = None,
) -> Execution:
    """Write down a launch before it is tried. The start deadline runs from here, so that a crash cannot stop it.

    ``callback_key`` names the key of the worker's callback token, so that every replay hands out the same one.
    """
    latest = execution.latest
    if latest.number != attempt or latest.status is not Status.PENDING or latest.launch is not None:
        return execution
    launch = Launch(
        launch_try=latest.launch_tries + 1,
        token=token,
        request=request,
        intent_at=now_ms,
        start_by=now_ms + policy.start_timeout_ms,
        callback_key=callback_key,
        callback_expires_at=None if callback_key is None else now_ms + LIFE_MS,
    )
    return execution.with_latest(launch=launch, launch_tries=launch.launch_try, launch_not_before=None, waiting=None)


def hindered(execution: Execution, attempt: int, waiting: Waiting) -> Execution:
    """Note what keeps the waiting attempt from being launched; the same once more changes nothing."""
    latest = execution.latest
    if latest.number != attempt or latest.status is not Status.PENDING or latest.launch is not None:
        return execution
    if latest.waiting is not None and latest.waiting.reason == waiting.reason:
        return execution
    return execution.with_latest(waiting=waiting)


def launched(
    execution: Execution,
    attempt: int,
    launch_try: int,
    *,
    worker_id: str,
    now_ms: int,
    rung: Rung = Rung.SENT,
    evidence: Sequence[Evidence] = (),
) -> Execution:
    """The launch has a worker. Also after the attempt ended (a fast worker): then only the id is noted."""
    target = execution.attempt(attempt)
    if target is None or target.launch is None or target.launch.launch_try != launch_try or target.worker_id:
        return execution
    update: dict[str, Any] = {
        "worker_id": worker_id,
        "launch": target.launch.model_copy(update={"rung": rung}),
        "evidence": [*target.evidence, *evidence][-EVIDENCE_KEPT:],
    }
    if target.status is Status.PENDING:
        update |= {"status": Status.RUNNING, "started_at": now_ms}
    return execution.with_attempt(target.model_copy(update=update))


def is_orphan(execution: Execution | None, token: str, worker_id: str) -> bool:
    """Whether the launch with that token was answered too late for its worker to be of use: it must be stopped.

    A worker that reported the outcome of the latest attempt before its launch was answered ends by itself.
    """
    latest = execution.latest if execution is not None else None
    if latest is None or latest.launch is None or latest.launch.token != token:
        return True
    if latest.worker_id not in (None, worker_id):
        return True
    has_reported = latest.result is not None and latest.result.received_at is not None
    return latest.status.is_finished and not has_reported


def launch_failed(
    execution: Execution,
    attempt: int,
    launch_try: int,
    *,
    code: str,
    message: str,
    permanent: bool,
    now_ms: int,
    policy: Policy,
    evidence: Sequence[Evidence] = (),
    verdict: Judgement | None = None,
) -> Execution:
    """A launch that provably has no worker (any more): the next try after a back-off, or the attempt's end.

    Spends no retry budget while launch tries are left, because the task itself was never at fault.
    """
    latest = execution.latest
    if latest.number != attempt or not latest.is_live:
        return execution
    if latest.launch is not None and latest.launch.launch_try != launch_try:
        return execution
    cancellation = execution.state.cancellation
    if cancellation is not None and cancellation.attempt == attempt:
        # Neither launched again nor failed, which would make it retryable.
        return ended(
            execution, attempt, Status.CANCELLED, now_ms=now_ms, message=cancellation.reason, evidence=evidence
        )
    # Without a launch the record was written by hand: there is nothing that we could launch again.
    if permanent or latest.launch is None or latest.launch_tries >= policy.max_launch_tries:
        return ended(
            execution,
            attempt,
            Status.FAILED,
            now_ms=now_ms,
            code=code,
            message=message,
            evidence=evidence,
            verdict=verdict,
        )
    return execution.with_latest(
        status=Status.PENDING,
        launch=None,
        worker_id=None,
        started_at=None,
        suspicion=None,
        stop=None,
        launch_not_before=now_ms + policy.launch_wait_ms(latest.launch_tries),
        evidence=[*latest.evidence, *evidence][-EVIDENCE_KEPT:],
        verdict=verdict or latest.verdict,
    )


def claim_launch(
    execution: Execution | None,
    task_id: str,
    *,
    attempt: int,
    launch_try: int,
    claim_id: str,
    now_ms: int,
    proof: LaunchProof | None = None,
) -> Decision:
    """``POST /task-claim``: the first worker instance of a launch may work, every other one must not."""
    if execution is None:
        return unchanged(None, Reply.NOT_FOUND, task_id)
    latest = execution.latest
    launch = latest.launch
    if (
        latest.number != attempt
        or not latest.is_live
        or launch is None
        or launch.launch_try != launch_try
        or (proof is not None and not proof.is_of(launch))
        or execution.state.cancellation is not None
        or latest.stop is not None  # Told to stop before it began: it must not, for it may be launched again.
        or (launch.claim_id is not None and launch.claim_id != claim_id)
    ):
        return unchanged(execution, Reply.REFUSED, task_id)
    if launch.claim_id == claim_id:
        return unchanged(execution, Reply.GRANTED, task_id)
    claimed = launch.model_copy(update={"claim_id": claim_id, "claimed_at": now_ms})
    return changed(execution.with_latest(launch=claimed), Reply.GRANTED)


def record_outcome(
    execution: Execution | None,
    outcome: Outcome,
    *,
    received_ms: int,
    now_ms: int,
    was_kept: bool = False,
    proof: LaunchProof | None = None,
) -> Decision:
    """``POST /task-complete``: the first outcome of the live attempt decides it, every other one changes nothing.

    ``was_kept`` marks an outcome that waited on the outcomes queue: without an attempt number it resolves only an
    attempt that began before it was received, because a later attempt cannot have sent it. ``proof`` is the launch
    that the worker's token was for: the outcome is that launch's, whatever it says itself.
    """
    if execution is None:
        return unchanged(None, Reply.NOT_FOUND, outcome.task_id)
    if proof is not None:
        outcome = outcome.model_copy(update={"attempt": proof.attempt, "launch_try": proof.launch_try})
        sender = execution.attempt(proof.attempt)
        if sender is None or not proof.is_of(sender.launch):
            return _from_earlier_launch(execution, outcome, received_ms)
    latest = execution.latest
    if outcome.attempt is not None and outcome.attempt != latest.number:
        return _late(execution, outcome.attempt, outcome, received_ms, now_ms, Reply.SUPERSEDED)
    began_ms = latest.claimed_at if latest.claimed_at is not None else latest.started_at
    if was_kept and outcome.attempt is None and began_ms is not None and began_ms > received_ms:
        return unchanged(execution, Reply.SUPERSEDED, execution.task_id)
    if latest.status.is_finished:
        return _late(execution, latest.number, outcome, received_ms, now_ms, Reply.ALREADY_FINISHED)
    launch = latest.launch
    is_of_another = launch is not None and outcome.launch_try not in (None, launch.launch_try)
    if not latest.is_live or is_of_another:
        return _from_earlier_launch(execution, outcome, received_ms)
    if _leaves_the_cause_open(execution, outcome):
        if latest.is_stopping:
            return unchanged(execution, Reply.RECORDED, execution.task_id)
        return changed(_held(execution, outcome, received_ms, now_ms), Reply.RECORDED)
    return changed(_decided(execution, outcome, received_ms, now_ms), Reply.RECORDED)


def suspect(execution: Execution, attempt: int, *, suspicion: Suspicion | None) -> Execution:
    """Remember that a worker looked gone, or that it was seen alive after all (None)."""
    latest = execution.latest
    if latest.number != attempt or not latest.is_live or latest.suspicion == suspicion:
        return execution
    return execution.with_latest(suspicion=suspicion)


def stop_ordered(execution: Execution, attempt: int, order: StopOrder) -> Execution:
    """Write down that the worker is asked to stop, and why, before it is: so its last word is not taken for the cause.

    A worker that is there is not suspected any more.
    """
    latest = execution.latest
    if latest.number != attempt or not latest.is_live:
        return execution
    if latest.stop is not None and latest.suspicion is None:
        return execution
    return execution.with_latest(stop=latest.stop or order, suspicion=None)


def report_counts(execution: Execution, attempt: int, *, now_ms: int) -> Execution:
    """The worker's word that it was told to stop ends the attempt: no look says anything more of the cause."""
    latest, cancellation = execution.latest, execution.state.cancellation
    report = latest.suspicion.report if latest.suspicion is not None else None
    if latest.number != attempt or not latest.is_live or latest.suspicion is None or report is None:
        return execution
    is_cancelled = cancellation is not None and cancellation.attempt == attempt
    following = ended(
        execution,
        attempt,
        Status.CANCELLED if is_cancelled else Status.FAILED,
        now_ms=now_ms,
        code=None if is_cancelled else STOPPED_EXTERNALLY,
        message=cancellation.reason if is_cancelled and cancellation else report.message,
        evidence=latest.suspicion.evidence,
    )
    return following.with_latest(result=report.result)


def ended(
    execution: Execution,
    attempt: int,
    status: Status,
    *,
    now_ms: int,
    code: str | None = None,
    message: str | None = None,
    evidence: Sequence[Evidence] = (),
    verdict: Judgement | None = None,
) -> Execution:
    """End the live or waiting attempt for a reason of ours. A finished attempt, or another one, stays as it is."""
    latest = execution.latest
    if latest.number != attempt or latest.status.is_finished:
        return execution
    return execution.with_latest(
        status=status,
        finished_at=now_ms,
        error_code=code,
        error_message=message[:MESSAGE_LIMIT] if message else None,
        suspicion=None,
        evidence=[*latest.evidence, *evidence][-EVIDENCE_KEPT:],
        verdict=verdict or latest.verdict,
    )


def _leaves_the_cause_open(execution: Execution, outcome: Outcome) -> bool:
    """Whether a worker that felt a signal may have been taken away by the platform, which costs no retry.

    It cannot know. Where we did not ask it to stop ourselves, the next look at it tells.
    """
    latest, cancellation = execution.latest, execution.state.cancellation
    was_asked = latest.stop is not None or (cancellation is not None and cancellation.attempt == latest.number)
    can_be_looked_at = latest.launch is not None and latest.worker_id is not None
    return outcome.error_code == STOPPED_EXTERNALLY and not was_asked and can_be_looked_at


def _held(execution: Execution, outcome: Outcome, received_ms: int, now_ms: int) -> Execution:
    past = execution.latest.suspicion or Suspicion(since=now_ms, looks=0)
    message = outcome.error_message or "the worker was told to stop"
    word = Evidence(source="worker:callback", observed_at=now_ms, detail=sanitised(message))
    report = StopReport(at=now_ms, message=message, result=_result(outcome, received_ms))
    return execution.with_latest(
        suspicion=past.model_copy(update={"report": report, "evidence": [*past.evidence, word]})
    )


def _decided(execution: Execution, outcome: Outcome, received_ms: int, now_ms: int) -> Execution:
    latest = execution.latest
    cancellation = execution.state.cancellation
    cancelled = cancellation is not None and cancellation.attempt == latest.number and not outcome.succeeded
    status = Status.SUCCEEDED if outcome.succeeded else Status.CANCELLED if cancelled else Status.FAILED
    code, message = outcome.error_code, outcome.error_message
    if cancelled and cancellation:
        code, message = None, cancellation.reason
    elif latest.stop is not None and not outcome.succeeded:
        # Whatever it says, it failed because we stopped it: only a success counts against that.
        code = latest.stop.code
        message = f"{_STOPPED_BY_US.get(code, code)} and was told to stop; its worker said: {message}"[:MESSAGE_LIMIT]
    return execution.with_latest(
        status=status,
        finished_at=now_ms,
        started_at=latest.started_at if latest.started_at is not None else now_ms,
        error_message=message,
        error_code=code,
        suspicion=None,
        result=_result(outcome, received_ms),
    )


def _result(outcome: Outcome, received_ms: int) -> Result:
    agent = outcome.agent
    return Result(
        pull_request_url=outcome.pull_request_url,
        error_family=outcome.error_family,
        retry_not_before=outcome.retry_not_before,
        agent=ReportedAgent(provider=agent.provider, model=agent.model) if agent is not None else None,
        received_at=received_ms,
    )


def _late(
    execution: Execution, attempt: int, outcome: Outcome, received_ms: int, now_ms: int, reply: Reply
) -> Decision:
    following, target = execution, execution.attempt(attempt)
    if outcome.succeeded and attempt == execution.latest.number:
        # The work is done after all: nobody needs another attempt that has not begun.
        following = settle_schedule(execution, ScheduleOutcome.DROPPED, now_ms=now_ms, reason="late_success")
    if target is not None and _adds_evidence(target, outcome):
        kept = [*target.late_results, _late_result(outcome, received_ms)][:_LATE_RESULTS_KEPT]
        following = following.with_attempt(target.model_copy(update={"late_results": kept}))
    if following is execution:
        return unchanged(execution, reply, execution.task_id)
    return changed(following, reply)


def _from_earlier_launch(execution: Execution, outcome: Outcome, received_ms: int) -> Decision:
    """A launch that was judged to have no worker and was followed by another one has reported after all.

    It changes nothing; that the verdict was wrong is kept, once.
    """
    latest, task_id = execution.latest, execution.task_id
    verdict = latest.verdict
    is_refuted = (
        verdict is not None
        and (verdict.launch_try, latest.number) == (outcome.launch_try, outcome.attempt or latest.number)
        and (latest.launch is None or latest.launch.launch_try != outcome.launch_try)
    )
    if not is_refuted or latest.status.is_finished or latest.late_results:
        return unchanged(execution, Reply.SUPERSEDED, task_id)
    return changed(execution.with_latest(late_results=[_late_result(outcome, received_ms)]), Reply.SUPERSEDED)


def _late_result(outcome: Outcome, received_ms: int) -> LateResult:
    return LateResult(
        succeeded=outcome.succeeded,
        received_at=received_ms,
        message=outcome.error_message,
        pull_request_url=outcome.pull_request_url,
    )


def _adds_evidence(attempt: Attempt, outcome: Outcome) -> bool:
    """Only a worker that we judged ourselves (lost, timed out) says something new when it reports after all."""
    judged_by_us = attempt.status.is_finished and (attempt.result is None or attempt.result.received_at is None)
    repeated = any(
        item.succeeded == outcome.succeeded and item.message == outcome.error_message for item in attempt.late_results
    )
    return judged_by_us and not repeated and len(attempt.late_results) < _LATE_RESULTS_KEPT
