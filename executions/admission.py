"""May a launch begin now? Slots, breaker and hold: one check, made by the commit that writes the launch's intent.

The holders of the slots are the live attempts themselves, so that no slot can leak. Who waits does so in the order of
age, and no type of task keeps another one waiting: an attempt comes first only where it could begin. ``hindrance`` says
the rule; ``adapters/commit.lua`` keeps it in Redis, and a test holds the two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Slots:
    """How many attempts may be live at once: in all, and by task type. A type that is not named has none of its own."""

    total: int | None = None
    per_type: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_limited(self) -> bool:
        return self.total is not None or bool(self.per_type)


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When launches of one class, a launcher and a task type, are held back because they fail."""

    failures: int = 10
    """The same launch failure so many times…"""
    window_ms: int = 300_000
    """…within this time opens the breaker."""
    pause_ms: int = 60_000
    """For so long nothing is let through, then one launch; after as long again the next, if that one told nothing."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What the commit of a launch's intent has to check."""

    launcher: str
    slots: Slots = field(default_factory=Slots)
    breaker: BreakerRule = field(default_factory=BreakerRule)


@dataclass(frozen=True, slots=True)
class Breaker:
    """An open breaker."""

    launcher: str
    task_type: str
    code: str
    """The launch failure that opened it."""
    opened_ms: int
    probe_at_ms: int
    """When the next launch is let through."""
    probe: str | None = None
    """The task whose launch was let through."""


@dataclass(frozen=True, slots=True)
class Hold:
    """One switch for the whole installation: no intake and no launches; callbacks, sweeps and cancels go on."""

    by: str
    reason: str
    since_ms: int


class Hindrance(StrEnum):
    """Why a launch may not begin now."""

    HELD = "held"
    """The installation is on hold: nothing is taken in and nothing is launched."""
    BREAKER_OPEN = "breaker_open"
    """Launches of this launcher and task type fail again and again; one at a time tries whether they work again."""
    NO_SLOT = "no_slot"
    NO_SLOT_OF_TYPE = "no_slot_of_type"
    NOT_ITS_TURN = "not_its_turn"
    """What is free is for attempts that have waited for longer."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who holds slots and who waits for one."""

    live: Mapping[str, int]
    """By task type: how many attempts are live."""
    waiting: Mapping[str, int]
    """By task type: how many attempts could be launched if there were slots."""
    heads: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    """By task type: the first ones of those, as (since when in ms, task id), oldest first."""


def hindrance(
    task_type: str,
    *,
    slots: Slots,
    is_held: bool,
    live: Mapping[str, int],
    older: Mapping[str, int],
    barred: Collection[str] = (),
) -> Hindrance | None:
    """What keeps an attempt from being launched; None when nothing does.

    ``live`` counts the live attempts by type, ``older`` those that wait and come before this one. ``barred`` are the
    types whose breaker lets nothing through now.
    """
    if is_held:
        return Hindrance.HELD
    if task_type in barred:
        return Hindrance.BREAKER_OPEN
    if _room(task_type, slots, live) <= 0:
        return Hindrance.NO_SLOT_OF_TYPE
    free = _free(slots, live)
    if free <= 0:
        return Hindrance.NO_SLOT
    if older.get(task_type, 0) >= _room(task_type, slots, live):
        return Hindrance.NOT_ITS_TURN
    ahead = sum(min(count, max(_room(other, slots, live), 0)) for other, count in older.items() if other not in barred)
    return Hindrance.NOT_ITS_TURN if ahead >= free else None


def next_in_line(standing: Standing, slots: Slots, barred: Collection[str] = ()) -> list[str]:
    """The tasks whose turn it is, oldest first: as many as there are free slots for, as far as the heads tell.

    Those of a type whose breaker lets nothing through must not take the place of others.
    """
    free = _free(slots, standing.live)
    able = [
        head
        for task_type, heads in standing.heads.items()
        for index, head in enumerate(heads)
        if task_type not in barred and index < _room(task_type, slots, standing.live)
    ]
    return [task_id for index, (_, task_id) in enumerate(sorted(able)) if index < free]


def who_holds(standing: Standing, slots: Slots, task_type: str) -> str:
    """In words: how many slots there are and which types hold them."""
    held = sum(standing.live.values())
    holders = ", ".join(f"{name} {count}" for name, count in sorted(standing.live.items()) if count)
    parts = []
    if task_type in slots.per_type:
        parts.append(f"{standing.live.get(task_type, 0)} of {slots.per_type[task_type]} slots for {task_type}")
    if slots.total is not None:
        parts.append(f"{held} of {slots.total} slots in all")
    return f"{' and '.join(parts)} are held ({holders or 'nobody'})"


def _room(task_type: str, slots: Slots, live: Mapping[str, int]) -> float:
    return slots.per_type.get(task_type, math.inf) - live.get(task_type, 0)


def _free(slots: Slots, live: Mapping[str, int]) -> float:
    return math.inf if slots.total is None else slots.total - sum(live.values())
