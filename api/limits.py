"""How often one caller may ask: token buckets in memory, by person and by task.

Each replica counts for itself, so an installation lets through as much as its replicas do together. It keeps a caller
that went wild from everybody else; what a flood from many places needs stands in front of the API.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from api.errors import TOO_MANY, Refused

_KEYS_KEPT = 10_000


class RateLimit:
    """At most ``burst`` requests at once and ``per_second`` in the long run, for each key. 0 per second: no limit."""

    def __init__(self, per_second: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """By key: when its bucket is full again. Keys whose bucket is full need no entry; the oldest go first."""

    def take(self, key: str) -> None:
        """Raises Refused 429 with ``Retry-After``."""
        if self._per_second <= 0:
            return
        now, interval = self._clock(), 1 / self._per_second
        full_at = max(self._full_at.pop(key, now), now)
        wait = full_at - (self._burst - 1) * interval - now
        if wait > 1e-9:
            self._full_at[key] = full_at
            raise Refused(429, TOO_MANY, headers={"Retry-After": str(math.ceil(wait))})
        self._full_at[key] = full_at + interval
        if len(self._full_at) > _KEYS_KEPT:
            self._full_at.popitem(last=False)
