"""A worker's life: claim, work, report, one summary event, an exit code that says the same.

      claim ──refused──► exit 0, nothing done
        │
      work ──raises, signal──► outcome "error"
        │
      report ──not delivered──► exit 75

What the work is comes from outside: ``scenarios`` for local trials, a user's own function otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum

from alakai_worker.client import CallFailed, Claimed, Client
from alakai_worker.launch import InvalidEnvironment, launch_from_environment
from alakai_worker.log import INFO, Log
from alakai_worker.outcome import Outcome
from alakai_worker.signals import Signals, Stopped
from alakai_worker.summary import Summary

Work = Callable[[Claimed], Outcome]
"""Does the work and says how it ended. Raising is a failure with the exception's text."""


class Exit(IntEnum):
    """Exit codes: a second witness for whoever watches the process. 128 + n after signal n."""

    OK = 0
    """The work succeeded and was reported, or was not ours to do."""
    FAILED = 1
    """The work failed, and that was reported."""
    USAGE = 64
    """Started wrongly: nothing was claimed."""
    UNREPORTED = 75
    """The claim or the outcome could not be delivered, whatever the outcome was."""


def run(work: Work, *, environ: Mapping[str, str] | None = None) -> int:
    """Run one launch as the environment names it and return the process's exit code. Call it in the main thread."""
    try:
        launch = launch_from_environment(os.environ if environ is None else environ)
    except InvalidEnvironment as error:
        sys.stderr.write(f"alakai-worker: {error}\n")
        return Exit.USAGE
    log = Log(launch)
    with Signals() as signals:
        return execute(work, Client(launch, log), Summary(launch, log), signals, log)


def execute(work: Work, client: Client, summary: Summary, signals: Signals, log: Log) -> int:
    """Claim, work, report. Every way out writes the summary event once."""
    try:
        signals.check()
        claimed = client.claim(waiting=signals.raised)
    except Stopped as stopped:
        summary.write("skipped", "stopped")
        return stopped.exit_code
    except CallFailed as failed:
        summary.steps["claim"] = "error"
        summary.write("error", "not_claimed", error_type=type(failed).__name__, error_message=str(failed))
        return Exit.UNREPORTED
    if claimed is None:
        summary.write("skipped", "claim_refused")
        return Exit.OK
    summary.claimed(claimed)
    outcome, error_type, exit_code = _done(work, claimed, signals)
    summary.steps["work"] = "ok" if outcome.succeeded else "error"
    try:
        completed = client.complete(outcome)
    except CallFailed as failed:
        summary.steps["report"] = "error"
        summary.write(
            "error", "unreported", error_type=type(failed).__name__, error_message=str(failed), outcome=outcome
        )
        return Exit.UNREPORTED
    summary.steps["report"] = "ok"
    if not completed.recorded:
        log.line(INFO, "the outcome was delivered and not recorded now", reason=completed.reason)
    if outcome.succeeded:
        summary.write("success", "completed", outcome=outcome)
    else:
        summary.write("error", "failed", error_type=error_type, error_message=outcome.error_message, outcome=outcome)
    return exit_code


def _done(work: Work, claimed: Claimed, signals: Signals) -> tuple[Outcome, str | None, int]:
    """Do the work: its outcome, the type of the error for the summary, and the exit code."""
    outcome: Outcome | None = None
    try:
        with signals.raised():
            outcome = _checked(work(claimed))
    except Stopped as stopped:
        if outcome is None:  # else the signal came after the work was done
            outcome = Outcome.failure(str(stopped), code="WORKER_STOPPED_EXTERNALLY")
            return outcome, type(stopped).__name__, stopped.exit_code
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {error}"
        return Outcome.failure(text, code="WORKER_FAILED"), type(error).__name__, Exit.FAILED
    return outcome, outcome.error_code, Exit.OK if outcome.succeeded else Exit.FAILED


def _checked(outcome: object) -> Outcome:
    if not isinstance(outcome, Outcome):
        raise TypeError(f"the work must return an Outcome, not {type(outcome).__name__}")
    return outcome
