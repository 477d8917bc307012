"""Breadth-first search: the shortest way to a world in which an invariant does not hold, or none within the bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tests.model.invariants import violation
from tests.model.steps import steps
from tests.model.world import Safeguards, World


@dataclass(frozen=True)
class Found:
    """``problem`` is None when there was none in ``explored`` worlds. ``path`` are the steps that lead to it."""

    problem: str | None
    path: tuple[str, ...]
    explored: int
    is_complete: bool
    """Everything that can be reached was seen, and not only as much as ``worlds`` allowed."""

    def __str__(self) -> str:
        told = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.path, 1))
        return f"{self.problem}, after:\n{told}" if self.problem else f"no violation in {self.explored:,} worlds"


def check(
    world: World,
    safeguards: Safeguards,
    kinds: Collection[str],
    *,
    worlds: int = 30_000,
    violated: Callable[[World], str | None] = violation,
) -> Found:
    """Look at every world that steps of these kinds lead to, nearest first."""
    seen = {world.key}
    ahead: deque[tuple[World, tuple[str, ...]]] = deque([(world, ())])
    while ahead:
        here, path = ahead.popleft()
        for name, there in steps(here, safeguards, kinds):
            key = there.key
            if key in seen:
                continue
            problem = violated(there)
            if problem is not None:
                return Found(problem, (*path, name), len(seen), is_complete=False)
            if len(seen) >= worlds:
                return Found(None, (), len(seen), is_complete=False)
            seen.add(key)
            ahead.append((there, (*path, name)))
    return Found(None, (), len(seen), is_complete=True)
