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

HOLDERS = Column("processes", style="dim", bends=True)  # of several captures


def show(
    page: Page, opened: _captures.Report, query: _options.Query, rows: Sequence[SiteRow]
) -> None:
    if not rows:
        page.heading(query.nothing())
        return
    title = f"Lines by bytes {_options.VIEW_TITLES[query.view]}"
    if len(opened.infos) > 1:
        page.heading(f"{title}, of all processes")
        page.table(
            (*COLUMNS, HOLDERS),
            ((*cells(row, opened.paths), holders(row, opened.infos)) for row in rows),
        )
        return
    page.heading(title)
    page.table(COLUMNS, (cells(row, opened.paths) for row in rows))


def holders(row: SiteRow, infos: Sequence[dict[str, Any]]) -> str:
    """Who has it: "1234" alone; of several, how many they are and who has most."""
    by_capture = row["by_capture"]
    having = [index for index, size in enumerate(by_capture) if size]
    if not having:
        return ""
    most = max(having, key=by_capture.__getitem__)
    pid = str(infos[most]["pid"])
    if len(having) == 1:
        return pid
    share = _format.part(by_capture[most], sum(by_capture))
    return f"{len(having)}; {share} in {pid}"


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
        **({"by_capture": aggregate.by_capture} if len(aggregate.by_capture) > 1 else {}),
    }
