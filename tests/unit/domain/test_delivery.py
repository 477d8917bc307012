"""When a notification is tried again, and when it is given up."""

from __future__ import annotations

import pytest

from executions.delivery import LONGEST_ASKED_MS, DeliveryRules, Tries
from executions.errors import NotDelivered

RULES = DeliveryRules(first_wait_ms=1_000, longest_wait_ms=60_000, give_up_ms=600_000, refused_tries=3, jitter=0.25)
UNCLEAR, REFUSAL = NotDelivered("500"), NotDelivered("404", is_refusal=True)


@pytest.mark.parametrize(
    ("failure", "tries", "drawn", "wait_ms"),
    [
        pytest.param(UNCLEAR, Tries(), 0.5, 1_000, id="the first wait"),
        pytest.param(UNCLEAR, Tries(failed=3), 0.5, 8_000, id="it doubles"),
        pytest.param(UNCLEAR, Tries(failed=3), 0.0, 6_000, id="made shorter at random"),
        pytest.param(UNCLEAR, Tries(failed=3), 1.0, 10_000, id="or longer"),
        pytest.param(UNCLEAR, Tries(failed=5000), 0.5, 60_000, id="up to the longest"),
        pytest.param(NotDelivered("429", retry_after_ms=30_000), Tries(), 0.5, 30_000, id="the receiver asks for more"),
        pytest.param(NotDelivered("429", retry_after_ms=10), Tries(), 0.5, 1_000, id="or for less"),
        pytest.param(UNCLEAR, Tries(age_ms=599_500), 0.5, 500, id="a last try in the end"),
        pytest.param(UNCLEAR, Tries(age_ms=600_000), 0.5, None, id="given up by age"),
        pytest.param(REFUSAL, Tries(failed=9, refused=1), 0.5, 60_000, id="a refusal is tried again"),
        pytest.param(REFUSAL, Tries(failed=2, refused=2), 0.5, None, id="a few times"),
        pytest.param(UNCLEAR, Tries(failed=99, refused=2), 0.5, 60_000, id="which others do not count for"),
    ],
)
def test_the_wait(failure: NotDelivered, tries: Tries, drawn: float, wait_ms: int | None) -> None:
    assert RULES.wait_ms(failure, tries, drawn) == wait_ms


def test_nobody_can_ask_for_ever() -> None:
    patient = DeliveryRules(give_up_ms=10**12)
    assert patient.wait_ms(NotDelivered("429", retry_after_ms=10**11), Tries(), 0.5) == LONGEST_ASKED_MS


def test_a_lease_outlasts_its_delivery() -> None:
    assert RULES.lease_ms > RULES.timeout_ms
