"""`pymemtrace stats`: allocations by size, domain, thread and lifetime."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pymemtrace.cli import _captures, _format, _options
from pymemtrace.cli._page import Column, Page, bar

HELP = "show allocations by size, domain, thread and lifetime"

BAR_WIDTH = 30
KEYS = {"peak": "peak", "leaks": "end", "total": "allocated", "temporary": "temporary"}
DOMAINS = {
    "obj": "Python objects",
    "mem": "the interpreter's buffers",
    "raw": "raw memory",
    "malloc": "malloc",
    "mmap": "mmap",
    "track": "announced by extensions",
}


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("stats", help=HELP, description=HELP)
    _options.add_captures(parser)
    _options.add_views(parser)
    _options.add_filters(parser)
    _options.add_limit(parser, None, "threads")
    _options.add_merge(parser, "sums of all processes, and their threads")
    _options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    query = _options.Query.of(args)

    def collect(opened: _captures.Report) -> dict[str, Any]:
        stats = query.stats(opened.reader, opened.info)
        threads = by_thread(stats, query, args.limit)
        fields = {
            **opened.totals,
            **stats,
            "view": query.view,
            "by_thread": threads,
        }
        if isinstance(opened, _captures.Opened):
            fields["event_log"] = opened.reader.event_log()
        return fields

    def show(page: Page, opened: _captures.Report) -> None:
        stats = query.stats(opened.reader, opened.info)
        page.title(opened.heading)
        page.notes([*opened.notes("peak"), *query.describe()])
        page.heading("Allocations by requested size")
        page.table(*histogram(page, stats["size_histogram"], "allocations", size_range))
        title = _options.VIEW_TITLES[query.view]
        page.heading(f"By domain, the largest first: {title}")
        domains = [
            {**sums, "name": f"{name} ({DOMAINS.get(name, name)})"}
            for name, sums in stats["by_domain"].items()
            if sums["allocations"]
        ]
        page.table(*sums_table("domain", sorted(domains, key=key_of(query), reverse=True)))
        page.heading(f"By thread, the largest first: {title}")
        threads = [{**row, "name": thread_name(row)} for row in by_thread(stats, query, args.limit)]
        page.table(*sums_table("thread", threads))
        page.heading("Freed blocks by how many epochs they lived (0: not one)")
        page.table(*histogram(page, stats["lifetimes"], "blocks", epoch_range))
        if isinstance(opened, _captures.Opened):
            page.heading("Counters of the recorder")
            page.facts(counters(opened))

    return _captures.report(args, collect, show)


def thread_name(row: dict[str, Any]) -> str:
    """With the process, where there are several."""
    name = _options.thread_text(row)
    return f"{name} of process {row['pid']}" if "pid" in row else name


def key_of(query: _options.Query) -> Callable[[Mapping[str, Any]], Any]:
    key = KEYS[query.view] + "_bytes"
    return lambda row: row[key] or 0  # temporaries of samples are not known


def by_thread(
    stats: dict[str, Any], query: _options.Query, limit: int | None
) -> list[dict[str, Any]]:
    return sorted(stats["by_thread"], key=key_of(query), reverse=True)[:limit]


def size_range(row: Mapping[str, Any]) -> str:
    if row["high"] >= 2**63:
        return f"over {_format.size(row['low'] - 1)}"
    low, high = _format.size(row["low"]), _format.size(row["high"])
    return low if row["low"] == row["high"] else f"{low} to {high}"


def epoch_range(row: Mapping[str, Any]) -> str:
    low, high = _format.count(row["low"]), _format.count(row["high"])
    return low if row["low"] == row["high"] else f"{low} to {high}"


def histogram(
    page: Page,
    rows: Sequence[Mapping[str, Any]],
    key: str,
    name: Callable[[Mapping[str, Any]], str],
) -> tuple[Sequence[Column], Iterable[Sequence[str]]]:
    most = max((row[key] for row in rows), default=0)
    columns = [
        Column("range", right=True),
        Column(key, right=True, style="bold"),
        Column("bytes", right=True),
        Column("", style="green"),
    ]
    cells = [
        [
            name(row),
            _format.count(row[key]),
            _format.size(row["bytes"]),
            bar(page, row[key], most, BAR_WIDTH),
        ]
        for row in rows
    ]
    if rows and "bytes_low" in rows[0]:
        columns[2:2] = [Column("95 %", right=True, optional=True)]
        columns[4:4] = [Column("95 %", right=True, optional=True)]
        for line, row in zip(cells, rows, strict=True):
            line[2:2] = [_format.count_limits(row, key)]
            line[4:4] = [_format.size_limits(row, "bytes")]
    return columns, cells


def sums_table(
    name: str, rows: Iterable[Mapping[str, Any]]
) -> tuple[Sequence[Column], Iterable[Sequence[str]]]:
    rows = list(rows)
    if rows and "peak_bytes_low" in rows[0]:
        return estimates_table(name, rows)
    columns = (
        Column(name, bends=True, style="cyan"),
        Column("peak", right=True, style="bold"),
        Column("at the end", right=True),
        Column("allocated", right=True),
        Column("allocations", right=True),
        Column("temporary", right=True, optional=True),
        Column("temporaries", right=True, optional=True),
    )
    cells = [
        (
            row["name"],
            _format.size(row["peak_bytes"]),
            _format.size(row["end_bytes"]),
            _format.size(row["allocated_bytes"]),
            _format.count(row["allocations"]),
            _format.size(row["temporary_bytes"]),
            _format.count(row["temporaries"]),
        )
        for row in rows
    ]
    return columns, cells


def estimates_table(
    name: str, rows: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[Column], Iterable[Sequence[str]]]:
    limits = Column("95 %", right=True, optional=True)
    columns = (
        Column(name, bends=True, style="cyan"),
        Column("peak", right=True, style="bold"),
        limits,
        Column("at the end", right=True),
        limits,
        Column("allocated", right=True),
        limits,
        Column("allocations", right=True, optional=True),
    )
    cells = [
        (
            row["name"],
            _format.size(row["peak_bytes"]),
            _format.size_limits(row, "peak_bytes"),
            _format.size(row["end_bytes"]),
            _format.size_limits(row, "end_bytes"),
            _format.size(row["allocated_bytes"]),
            _format.size_limits(row, "allocated_bytes"),
            _format.count(row["allocations"]),
        )
        for row in rows
    ]
    return columns, cells


def counters(opened: _captures.Opened) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    totals = opened.totals
    young, middle, old = totals["gc_collections"]
    yield "flushes", [(_format.count(opened.info["cuts"]), "")]
    yield "garbage collections", [(f"{young:,} young, {middle:,} middle, {old:,} old", "")]
    log = opened.reader.event_log()
    if log is not None:
        missing = log["events"] - log["logged"]
        what = f"{log['logged']:,} events"
        if missing:
            what += f"; {missing:,} are missing, the first is number {log['complete']:,}"
        yield "event log", [(what, "")]
    yield "recorder's memory", [(_format.size(totals["recorder_bytes"]), "")]
    for name, value in opened.info["counters"].items():
        yield name, [(_format.count(value), "")]
