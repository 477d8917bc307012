"""``alakai get`` and ``alakai watch``: the executions of the cluster, once or as they change."""

from __future__ import annotations

import asyncio
import time

from rich.live import Live

from cli.output import Output, console, show_document, show_table, table
from cli.resources import COLUMNS, WIDE_COLUMNS, Filter, Resource, listed, named, row
from executions.cluster import ClusterError

_EVERY_SECONDS = 1.0
_ROWS_SHOWN = 200


def run(name: str | None, wanted: Filter, output: Output) -> None:
    """Print one, or all that are wanted. Raises InvalidSettings, ClusterError."""
    items = asyncio.run(_found(name, wanted))
    if output in (Output.JSON, Output.YAML):
        show_document(items[0] if name is not None else {"kind": "List", "apiVersion": "v1", "items": items}, output)
    else:
        wide = output is Output.WIDE
        show_table(WIDE_COLUMNS if wide else COLUMNS, _rows(items, wide=wide))


def watch(wanted: Filter, *, wide: bool) -> None:
    """Show a table that follows the cluster until it is interrupted. Raises InvalidSettings, ClusterError."""
    asyncio.run(_watch(wanted, wide=wide))


async def _watch(wanted: Filter, *, wide: bool) -> None:
    columns = WIDE_COLUMNS if wide else COLUMNS
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            try:
                items = [item async for item in listed(wanted)]
            except ClusterError as error:
                live.console.print(f"not reached, tried again: {error}", markup=False)
            else:
                items.sort(key=lambda item: str(item["metadata"]["creationTimestamp"]), reverse=True)
                live.update(table(columns, _rows(items[:_ROWS_SHOWN], wide=wide)), refresh=True)
            await asyncio.sleep(_EVERY_SECONDS)


async def _found(name: str | None, wanted: Filter) -> list[Resource]:
    return [item async for item in listed(wanted)] if name is None else [await named(name)]


def _rows(items: list[Resource], *, wide: bool) -> list[list[str]]:
    now_ms = time.time_ns() // 1_000_000
    return [row(item, now_ms=now_ms, wide=wide) for item in items]
