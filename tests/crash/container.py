"""``python -m tests.crash.container``: what runs in a task of the ECS shim, as the payload's scenario says."""

from __future__ import annotations

import sys

from alakai_worker.client import Claimed
from alakai_worker.outcome import Outcome
from alakai_worker.scenarios import SCENARIOS
from alakai_worker.worker import run

from executions.adapters.local_launcher import scenario_for


def work(claimed: Claimed) -> Outcome:
    return SCENARIOS[scenario_for(claimed.payload, claimed.launch.attempt, "succeed")](claimed)


if __name__ == "__main__":
    sys.exit(run(work))
