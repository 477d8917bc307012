"""The numbers that decisions depend on, read once from the settings and handed to the pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field

from executions.admission import BreakerRule, Slots

AUTOMATIC_RETRIES_LIMIT = 4
"""However large the budget is: what is still transient after that needs a person."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Budgets and deadlines. All durations are whole milliseconds."""

    max_retries: int = 1
    """A failed attempt n may be retried while n <= max_retries."""
    lost_worker_grace_ms: int = 60_000
    start_timeout_ms: int = 900_000
    attempt_timeout_ms: int | None = None
    retry_delays_ms: tuple[int, ...] = (120_000, 600_000, 1_800_000, 7_200_000)
    """The wait before the first, second, … automatic retry."""
    retry_jitter: float = 0.25
    """The part of a delay by which it is made shorter or longer, at most."""
    auto_retry_codes: frozenset[str] = frozenset({"codex_transient_upstream", "claude_transient_upstream"})
    """Error codes of transient failures, beside the error family that says so itself."""
    max_launch_tries: int = 5
    launch_backoff_ms: int = 1_000
    """Wait before the second launch try; doubles with each further one, up to a minute."""
    retry_redeliver_ms: int = 60_000
    finished_ttl_ms: int = 86_400_000
    slots: Slots = field(default_factory=Slots)
    breaker: BreakerRule = field(default_factory=BreakerRule)

    def may_retry(self, attempt: int) -> bool:
        return attempt <= self.max_retries

    @property
    def automatic_retries(self) -> int:
        """How many of an execution's retries may begin by themselves."""
        return min(self.max_retries, len(self.retry_delays_ms), AUTOMATIC_RETRIES_LIMIT)

    def retry_delay_ms(self, made: int, drawn: float) -> int:
        """The wait before the next automatic retry after ``made`` of them; ``drawn`` is 0 to 1, 0.5 for no jitter."""
        return round(self.retry_delays_ms[made] * (1 + self.retry_jitter * (2 * drawn - 1)))

    def launch_wait_ms(self, tries: int) -> int:
        """Back-off after ``tries`` failed launches of one attempt."""
        return int(min(self.launch_backoff_ms * 2 ** max(tries - 1, 0), 60_000))
