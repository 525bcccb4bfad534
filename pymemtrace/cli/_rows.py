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

# the same with how sure they are; without room, the bytes' limits stay longest
ESTIMATES = (
    Column("bytes", right=True, style="bold"),
    Column("95 %", right=True),
    Column("share", right=True),
    Column("blocks", right=True),
    Column("line", bends=True, style="cyan"),
    Column("function", bends=True),
    Column("samples", right=True, style="dim", optional=True),
    Column("allocated", right=True, style="dim", optional=True),
    Column("95 %", right=True, style="dim", optional=True),
    Column("allocations", right=True, style="dim", optional=True),
)
FEW_SAMPLES = 100

HOLDERS = Column("processes", style="dim", bends=True)  # of several captures


def show(
    page: Page, opened: _captures.Report, query: _options.Query, rows: Sequence[SiteRow]
) -> None:
    if not rows:
        page.heading(query.nothing())
        return
    title = f"Lines by bytes {_options.VIEW_TITLES[query.view]}"
    columns, cells = (
        (ESTIMATES, estimate_cells) if "bytes_low" in rows[0] else (COLUMNS, full_cells)
    )
    if len(opened.infos) > 1:
        page.heading(f"{title}, of all processes")
        page.table(
            (*columns, HOLDERS),
            ((*cells(row, opened.paths), holders(row, opened.infos)) for row in rows),
        )
        return
    page.heading(title)
    page.table(columns, (cells(row, opened.paths) for row in rows))


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


def estimate_cells(row: SiteRow, paths: _format.Paths) -> tuple[str, ...]:
    return (
        _format.size(row["bytes"]),
        _format.size_limits(row, "bytes"),
        _format.share(row["share"]),
        _format.count(row["blocks"]),
        paths.place(row["site"]),
        _format.clean(row["site"]["function"]),
        _format.count(row["samples"]),
        _format.size(row["allocated_bytes"]),
        _format.size_limits(row, "allocated_bytes"),
        _format.count(row["allocations"]),
    )


def sample_notes(aggregate: Aggregate) -> list[str]:
    """What a view of few samples rests on."""
    return few_samples(aggregate.totals.get("samples"))


def few_samples(samples: int | None) -> list[str]:
    if not samples or samples >= FEW_SAMPLES:
        return []
    return [f"This view rests on {samples} sample{'' if samples == 1 else 's'}."]


def full_cells(row: SiteRow, paths: _format.Paths) -> tuple[str, ...]:
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
        **{f"view_{name}": value for name, value in aggregate.totals.items()},
        **({"by_capture": aggregate.by_capture} if len(aggregate.by_capture) > 1 else {}),
    }
