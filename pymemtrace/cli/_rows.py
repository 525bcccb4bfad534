"""The rows of an aggregate, as `summary` and `table` show them."""

from collections.abc import Sequence
from typing import Any

from pymemtrace._core import Aggregate
from pymemtrace._types import Site, SiteRow
from pymemtrace.cli import _captures, _format, _options
from pymemtrace.cli._page import Column, Page

COLUMNS = (
    Column("bytes", right=True, style="bold"),
    Column("share", right=True),
    Column("blocks", right=True),
    Column("allocated", right=True, style="dim", optional=True),
    Column("allocations", right=True, style="dim", optional=True),
    Column("line", bends=True, style="cyan"),
    Column("function", bends=True),
)


def show(
    page: Page, opened: _captures.Opened, query: _options.Query, rows: Sequence[SiteRow]
) -> None:
    if not rows:
        page.heading(query.nothing())
        return
    page.heading(f"Lines by bytes {_options.VIEW_TITLES[query.view]}")
    page.table(COLUMNS, (cells(row, opened.paths) for row in rows))


def cells(row: SiteRow, paths: _format.Paths) -> tuple[str, ...]:
    return (
        _format.size(row["bytes"]),
        _format.share(row["share"]),
        _format.count(row["blocks"]),
        _format.size(row["allocated_bytes"]),
        _format.count(row["allocations"]),
        paths.place(row["site"]),
        _format.clean(row["site"]["function"]),
    )


def is_machinery(site: Site) -> bool:
    """Frames of the import system, which stand between a module and the one that imports it."""
    return site["file"].startswith("<frozen ")


def view_fields(query: _options.Query, aggregate: Aggregate) -> dict[str, Any]:
    """What JSON says about the view: its name, the time that it is of, its sums."""
    return {
        "view": query.view,
        "window": aggregate.window,
        "view_bytes": aggregate.bytes,
        "view_blocks": aggregate.blocks,
        "view_allocated_bytes": aggregate.allocated_bytes,
        "view_allocations": aggregate.allocations,
    }
