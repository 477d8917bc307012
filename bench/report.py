"""The table at the end: one row per figure, the median of its runs and the runs themselves. Pure; prints nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

_HEAD = ("FIGURE", "MEDIAN", "UNIT", "RUNS", "AIM")
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: a value per run in `unit`, shown with so many `digits` after the point."""

    name: str
    values: tuple[float, ...]
    unit: str
    digits: int = 0
    aim: str = ""
    """Where the project wants to be, in words; nothing is compared with it."""

    @property
    def median(self) -> float:
        return median(self.values)

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


def render(figures: Sequence[Figure], facts: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """Facts of the machine, the table, and what a reader must know of this run."""
    width = max((len(name) for name in facts), default=0)
    lines = [f"{name:<{width}}{_GAP}{value}" for name, value in facts.items()]
    lines += ["", *_table([_HEAD, *(_row(figure) for figure in figures)])]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    runs = " ".join(figure.text(value) for value in figure.values) if len(figure.values) > 1 else ""
    return figure.name, figure.text(figure.median), figure.unit, runs, figure.aim


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    right = _HEAD.index("MEDIAN")
    return [
        _GAP.join(
            cell.rjust(width) if column == right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
