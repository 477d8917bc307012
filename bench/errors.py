"""What can go wrong in a benchmark, told in one line."""

from __future__ import annotations


class BenchError(Exception):
    """Something did not happen that had to, so that there is no figure; shown without a traceback."""
