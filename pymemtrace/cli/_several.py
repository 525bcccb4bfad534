"""What `summary` says of several processes: a line for each, and the sums."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pymemtrace.cli import _captures, _format
from pymemtrace.cli._page import Column, Segment

COLUMNS = (
    Column("process", right=True, style="bold"),
    Column("parent", right=True),
    Column("ran", right=True),
    Column("peak", right=True, style="bold"),
    Column("at the end", right=True),
    Column("allocated", right=True),
    Column("RSS peak", right=True),
    Column("command", bends=True, style="cyan"),
)
INHERITED = Column("inherited", right=True, optional=True)


def process_table(
    merged: _captures.Merged,
) -> tuple[Sequence[Column], Iterable[Sequence[str]]]:
    """In the order of the captures, the sums last."""
    totals = merged.totals
    some_inherited = totals["inherited_bytes"] > 0
    columns = (*COLUMNS[:-1], INHERITED, COLUMNS[-1]) if some_inherited else COLUMNS
    rows = [
        cells(process, info, some_inherited)
        for process, info in zip(totals["processes"], merged.infos, strict=True)
    ]
    last = ("all", "", _format.duration(totals["duration_s"]), *sizes(totals, some_inherited), "")
    return columns, [*rows, last]


def cells(process: dict[str, Any], info: dict[str, Any], some_inherited: bool) -> tuple[str, ...]:
    ran = _format.duration(info["duration_s"])
    return (
        str(process["pid"]),
        str(process["parent_pid"] or ""),
        f"{ran} so far" if info["ended"] == "running" else ran,
        *sizes(process, some_inherited),
        _format.command(info["command"], 60),
    )


def sizes(totals: dict[str, Any], some_inherited: bool) -> Iterator[str]:
    for key in ("heap_bytes_peak", "heap_bytes_end", "allocated_bytes", "rss_bytes_peak"):
        yield _format.size(totals[key])
    if some_inherited:
        yield _format.size(totals["inherited_bytes"])


def answer(merged: _captures.Merged) -> Iterator[tuple[str, list[Segment]]]:
    """The lines about all processes together."""
    totals = merged.totals
    size, count, duration = _format.size, _format.count, _format.duration
    between = _format.size_between
    yield (
        "ran",
        [
            (duration(totals["duration_s"]), "bold"),
            (" from the first start to the last end", ""),
        ],
    )
    yield (
        "sum of the peaks",
        [
            (between(totals, "heap_bytes_peak"), "bold"),
            (f" in {count(totals['heap_blocks_peak'])} blocks, each process at its own peak", ""),
        ],
    )
    yield (
        "highest together",
        [
            (size(totals["heap_bytes_peak_simultaneous"]), "bold"),
            (
                f" at one time, {duration(totals['peak_simultaneous_t_s'])} after the first start,",
                "",
            ),
            (f" in {count(totals['peak_simultaneous_processes'])} processes", ""),
        ],
    )
    share = _format.part(totals["heap_bytes_end"], totals["heap_bytes_peak"])
    yield (
        "alive at the end",
        [
            (between(totals, "heap_bytes_end"), "bold"),
            (f" in {count(totals['heap_blocks_end'])} blocks, each process at its own end;", ""),
            (f" {share} of the peaks", ""),
        ],
    )
    yield allocated(merged, totals)
    yield (
        "processes (RSS)",
        [
            (size(totals["rss_bytes_peak"]), "bold"),
            (" is the sum of each one's highest; pages that they share count in each", ""),
        ],
    )


def allocated(opened: _captures.Report, totals: dict[str, Any]) -> tuple[str, list[Segment]]:
    """A line of both summaries: that of one process and that of several."""
    temporary = opened.reader.stats()["temporary_bytes"]
    churn = ""
    if temporary is not None:  # samples do not tell
        part = _format.part(temporary, totals["allocated_bytes"])
        churn = f"; churn: {_format.size(temporary)} of it was temporary ({part})"
    return (
        "allocated in total",
        [
            (_format.size_between(totals, "allocated_bytes"), "bold"),
            (f" in {_format.count(totals['allocations'])} allocations{churn}", ""),
        ],
    )
