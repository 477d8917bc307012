"""The subset of CloudWatch Logs Insights' query language that the tracing guide uses, on JSON log lines.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html: fields, filter (=, !=, <, <=, >, >=,
like, and, or, not, parentheses), sort, limit, stats with count() and pct() by fields. A field that a line does not have
matches no comparison. ``@timestamp`` is the line's ``time``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Row = dict[str, Any]
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'[^']*')|(?P<regex>/(?:[^/\\]|\\.)*/)|(?P<number>\d+(?:\.\d+)?)"""
    r"""|(?P<operator><=|>=|!=|=|<|>|\(|\)|,)|(?P<name>[@A-Za-z_][@A-Za-z0-9_.]*))"""
)


def query(text: str, lines: Iterable[str]) -> list[Row]:
    """The rows of a query's answer, each with the fields that it asks for (missing ones left out)."""
    rows = [document for line in lines if (document := _document(line)) is not None]
    shown: list[str] = []
    for command in _commands(text):
        word, rest = (*command.split(maxsplit=1), "")[:2]
        match word:
            case "fields":
                shown = [name.strip() for name in rest.replace("\n", " ").split(",")]
            case "filter":
                condition = _Parser(rest).condition()
                rows = [row for row in rows if condition(row)]
            case "sort":
                name, _, direction = rest.strip().partition(" ")
                with_it = [row for row in rows if value(row, name) is not None]
                rows = sorted(with_it, key=lambda row: value(row, name), reverse=direction.strip() == "desc")
            case "limit":
                rows = rows[: int(rest)]
            case "stats":
                rows, shown = _stats(rest, rows)
            case other:
                raise ValueError(f"unknown command {other!r}")
    return [{name: found for name in shown if (found := value(row, name)) is not None} for row in rows]


def _commands(text: str) -> list[str]:
    """Split at the bars that stand in no text and no expression."""
    parts, quote = [""], ""
    for char in text:
        if char in "\"'/" and quote in ("", char):
            quote = "" if quote else char
        if char == "|" and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def value(row: Row, name: str) -> Any:
    """What stands at a dotted path; None where nothing does."""
    if name in row:
        return row[name]
    if name == "@timestamp":
        return row.get("time")
    found: Any = row
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _document(line: str) -> Row | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _stats(text: str, rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Of ``pct(x, 90) as a, count() as b by c, d``."""
    what, _, by = re.sub(r"\s+", " ", text).partition(" by ")
    names = [name.strip() for name in by.split(",") if name.strip()]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(value(row, name) for name in names), []).append(row)
    found = re.findall(r"(pct|count)\(([^)]*)\)(?: as (\w+))?", what)
    made = []
    for key, members in groups.items():
        row: Row = {name: item for name, item in zip(names, key, strict=True) if item is not None}
        for function, arguments, alias in found:
            row[alias or f"{function}({arguments})"] = _aggregate(function, arguments, members)
        made.append(row)
    return made, [*names, *(alias or f"{function}({arguments})" for function, arguments, alias in found)]


def _aggregate(function: str, arguments: str, rows: list[Row]) -> float:
    if function == "count":
        return len(rows)
    name, percent = (part.strip() for part in arguments.split(","))
    found = sorted(number for row in rows if isinstance(number := value(row, name), int | float))
    return found[max(math.ceil(len(found) * float(percent) / 100) - 1, 0)]


class _Parser:
    """Conditions, by recursive descent: or, and, not, comparison."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def condition(self) -> Callable[[Row], bool]:
        found = self._any()
        if self._at != len(self._tokens):
            raise ValueError(f"not understood: {self._tokens[self._at :]}")
        return found

    def _any(self) -> Callable[[Row], bool]:
        parts = [self._all()]
        while self._taken("name", "or"):
            parts.append(self._all())
        return lambda row: any(part(row) for part in parts)

    def _all(self) -> Callable[[Row], bool]:
        parts = [self._one()]
        while self._taken("name", "and"):
            parts.append(self._one())
        return lambda row: all(part(row) for part in parts)

    def _one(self) -> Callable[[Row], bool]:
        if self._taken("name", "not"):
            inner = self._one()
            return lambda row: not inner(row)
        if self._taken("operator", "("):
            inner = self._any()
            if not self._taken("operator", ")"):
                raise ValueError("a parenthesis is not closed")
            return inner
        return self._comparison()

    def _comparison(self) -> Callable[[Row], bool]:
        kind, name = self._next()
        if kind != "name":
            raise ValueError(f"a field was expected, not {name!r}")
        _, operator = self._next()
        kind, text = self._next()
        if operator == "like":
            pattern = re.compile(text[1:-1].replace(r"\/", "/") if kind == "regex" else re.escape(text[1:-1]))
            return lambda row: isinstance(found := value(row, name), str) and bool(pattern.search(found))
        wanted: Any = float(text) if kind == "number" else text[1:-1]
        compare = _COMPARISONS[operator]

        def holds(row: Row) -> bool:
            found = value(row, name)
            kinds = int | float if isinstance(wanted, float) else str
            return isinstance(found, kinds) and compare(found, wanted)

        return holds

    def _taken(self, kind: str, text: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == (kind, text):
            self._at += 1
            return True
        return False

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise ValueError("the condition ends too early")
        self._at += 1
        return self._tokens[self._at - 1]


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"not understood: {text[at:]!r}")
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()
