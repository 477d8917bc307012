"""How commands show what they found: a table for people, JSON or YAML for programs. Colour only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum

import orjson
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 100_000
"""Columns of a "terminal" that is a file or a pipe: nothing is wrapped or cut there."""


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, width=None if stream.isatty() else _UNBOUNDED, highlight=False, soft_wrap=not stream.isatty()
    )


def show_document(document: object, output: Output) -> None:
    """JSON, or YAML."""
    if output is Output.YAML:
        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")
    else:
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """As kubectl does: no lines, a heading in capitals. Text of users is never read as markup."""
    console().print(table(columns, rows), markup=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="")
    for column in columns:
        made.add_column(column.upper(), no_wrap=True, overflow="ellipsis")
    for row in rows:
        made.add_row(*(_plain(cell) for cell in row))
    return made


def _plain(text: str) -> Text:
    return Text("".join(char if char.isprintable() else " " for char in text))


def progress() -> Progress:
    """On standard error, and only there where somebody looks at it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console(stderr=True)
    return Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal)


def age(milliseconds: int) -> str:
    """``42s``, ``7m``, ``3h``, ``12d``, as kubectl counts."""
    seconds = max(milliseconds, 0) // 1000
    for size, letter in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{letter}"
    return f"{seconds}s"
