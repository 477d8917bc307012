"""When a notification that was not delivered is tried again, and when it is given up. No clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from executions.errors import NotDelivered

LONGEST_ASKED_MS = 3_600_000
"""A receiver may ask for so long a pause (``Retry-After``); a larger one would be a way to never be told."""


@dataclass(frozen=True, slots=True)
class Tries:
    """What became of a notification so far."""

    failed: int = 0
    refused: int = 0
    """Of those: how often the receiver answered that it will not take it."""
    age_ms: int = 0
    """Since it came to the head of its task's line."""


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """All durations are whole milliseconds."""

    timeout_ms: int = 10_000
    first_wait_ms: int = 1_000
    """Doubles with each further try."""
    longest_wait_ms: int = 60_000
    give_up_ms: int = 86_400_000
    """So old a notification is tried no more."""
    refused_tries: int = 8
    """So often a receiver may say that it will not take it: it may be half started, but others must not wait long."""
    jitter: float = 0.25
    lease_margin_ms: int = 5_000
    at_once: int = 16
    """Deliveries that are under way on one channel."""

    @property
    def lease_ms(self) -> int:
        """For how long one that is under way is nobody else's: longer than it can take."""
        return self.timeout_ms + self.lease_margin_ms

    def wait_ms(self, failure: NotDelivered, tries: Tries, drawn: float) -> int | None:
        """How long to wait before the next try; None: no more. ``drawn`` is 0 to 1, 0.5 for no jitter.

        ``tries`` are those before this failure.
        """
        left_ms = self.give_up_ms - tries.age_ms
        if left_ms <= 0 or (failure.is_refusal and tries.refused + 1 >= self.refused_tries):
            return None
        backoff_ms: int = min(self.first_wait_ms << min(tries.failed, 30), self.longest_wait_ms)
        jittered_ms = round(backoff_ms * (1 + self.jitter * (2 * drawn - 1)))
        asked_ms = min(failure.retry_after_ms or 0, LONGEST_ASKED_MS)
        return min(max(jittered_ms, asked_ms), left_ms)
