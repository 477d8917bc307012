"""``python -m tests.crash.container``: what runs in a task of the ECS shim, as the payload's scenario says."""

from __future__ import annotations

import signal
import sys
import time

from alakai_worker.client import Claimed
from alakai_worker.outcome import Outcome
from alakai_worker.scenarios import SCENARIOS
from alakai_worker.worker import run

from executions.adapters.local_launcher import scenario_for


def work(claimed: Claimed) -> Outcome:
    scenario = scenario_for(claimed.payload, claimed.launch.attempt, "succeed")
    return wait(claimed) if scenario == "manual" else SCENARIOS[scenario](claimed)


def wait(_: Claimed) -> Outcome:
    """As a manual worker does: it has nothing to say, not even when it is stopped."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    sys.exit(run(work))
