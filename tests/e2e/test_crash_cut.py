"""A cut of the crash matrix, which ``make crash-matrix`` runs as a whole: failpoints that are easily got wrong."""

from __future__ import annotations

import pytest

from tests.crash.failpoints import Failpoint
from tests.crash.run import Run
from tests.e2e.installation import Installation

PAUSE_SECONDS = 5.0
"""Longer than the lease of these installations: somebody else leads when it goes on."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("launcher", "failpoint"),
    [
        ("local", "after_claim:kill@1"),
        ("local", "after_launch:kill@2"),
        ("local", "before_launch:pause@1"),
        ("local", "after_record_worker:lose_reply@1"),
        ("ecs", "after_launch:kill@1"),
        ("ecs", "after_launch:lose_reply@2"),
        ("local", "after_retry_mark:kill@1"),
    ],
)
def test_after_a_crash_everything_that_must_hold_holds(
    installation: Installation, launcher: str, failpoint: str
) -> None:
    result = Run(installation, Failpoint.from_text(failpoint), PAUSE_SECONDS, launcher, each=1)()
    assert result.is_reached
    assert result.violations == []
