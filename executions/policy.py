"""The numbers that decisions depend on, read once from the settings and handed to the pure functions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Budgets and deadlines. All durations are whole milliseconds."""

    max_retries: int = 1
    """A failed attempt n may be retried while n <= max_retries."""
    lost_worker_grace_ms: int = 60_000
    start_timeout_ms: int = 900_000
    attempt_timeout_ms: int | None = None
    max_launch_tries: int = 5
    launch_backoff_ms: int = 1_000
    """Wait before the second launch try; doubles with each further one, up to a minute."""
    retry_redeliver_ms: int = 60_000
    finished_ttl_ms: int = 86_400_000

    def may_retry(self, attempt: int) -> bool:
        return attempt <= self.max_retries

    def launch_wait_ms(self, tries: int) -> int:
        """Back-off after ``tries`` failed launches of one attempt."""
        return int(min(self.launch_backoff_ms * 2 ** max(tries - 1, 0), 60_000))
