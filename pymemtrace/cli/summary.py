"""`pymemtrace summary`: the answer in ten lines, then the sites that matter most."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pymemtrace._types import SiteRow
from pymemtrace.cli import _captures, _format, _options, _pressure, _rows, _several
from pymemtrace.cli._page import Page, Segment, make_page

HELP = "say in ten lines where the memory went, then name the top sites"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("summary", help=HELP, description=HELP)
    _options.add_captures(parser)
    _options.add_views(parser)
    _options.add_filters(parser)
    _options.add_limit(parser, 10, "sites")
    _options.add_merge(parser, "sums of all processes, without a line for each")
    _options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    query = _options.Query.of(args)

    def collect(opened: _captures.Report) -> dict[str, Any]:
        aggregate = query.aggregate(opened.reader, opened.info)
        stats = opened.reader.stats()
        return {
            **opened.totals,
            **attached_field(opened),
            "temporaries": stats["temporaries"],
            "temporary_bytes": stats["temporary_bytes"],
            **_rows.view_fields(query, aggregate),
            "sites": aggregate.sites(args.limit),
        }

    def show(page: Page, opened: _captures.Report) -> None:
        aggregate = query.aggregate(opened.reader, opened.info)
        sites = aggregate.sites(args.limit)
        stacks = aggregate.stacks(1)
        opened.paths.learn_rows([*sites, *stacks])
        page.title(opened.heading)
        if isinstance(opened, _captures.Merged):
            if not args.merge:
                page.table(*_several.process_table(opened))
            page.facts(_several.answer(opened))
        else:
            page.facts(answer(opened, query, sites, stacks))
        page.notes([*opened.notes(None), *_rows.sample_notes(aggregate), *query.describe()])
        _rows.show(page, opened, query, sites)

    if args.merge or len(_captures.find(args.captures)) == 1:
        return _captures.report(args, collect, show)
    return side_by_side(args, collect, show)


def attached_field(opened: _captures.Report) -> dict[str, Any]:
    """Of a capture that `attach` has begun."""
    if isinstance(opened, _captures.Merged):
        return {}
    there = _captures.attached(opened.reader.proc())
    return {} if there is None else {"attached": there}


def side_by_side(
    args: argparse.Namespace,
    collect: Callable[[_captures.Report], dict[str, Any]],
    show: Callable[[Page, _captures.Report], None],
) -> int:
    """A line for each process, and the top sites of all. In JSON, `reports` has what `summary` says
    of each alone."""

    def act(merged: _captures.Merged) -> None:
        if not args.json:
            show(make_page(), merged)
            return
        reports = [{"path": opened.info["path"], **collect(opened)} for opened in merged.opened]
        fields = {**_captures.common_fields(merged.infos), **collect(merged), "reports": reports}
        _captures.print_report(fields)

    return _captures.for_merged(args, act)


def answer(
    opened: _captures.Opened,
    query: _options.Query,
    sites: Sequence[SiteRow],
    stacks: Sequence[SiteRow],
) -> Iterator[tuple[str, list[Segment]]]:
    """The lines of the summary: a name and what there is to say."""
    info, totals = opened.info, opened.totals
    size, count, duration = _format.size, _format.count, _format.duration
    between = _format.size_between
    yield (
        "ran",
        [
            (duration(info["duration_s"]), "bold"),
            (f", {_captures.state_text(info)}", ""),
            (f"; CPython {info['python']}, process {info['pid']}", ""),
        ],
    )
    yield (
        "peak",
        [
            (between(totals, "heap_bytes_peak"), "bold"),
            (f" in {count(totals['heap_blocks_peak'])} blocks,", ""),
            (f" {duration(totals['peak_t_s'])} after the start", ""),
        ],
    )
    yield from inherited(opened)
    there = _captures.attached(opened.reader.proc())
    if there is not None:
        yield (
            "attached",
            [
                (f"{duration(there['age_s'])} after the start;", ""),
                (f" {size(there['rss_bytes'])}", "bold"),
                (
                    f" of resident memory, {count(there['blocks'])} blocks of Python's, were there",
                    "",
                ),
                (" already and are not in this capture", ""),
            ],
        )
    share = _format.part(totals["heap_bytes_end"], totals["heap_bytes_peak"])
    yield (
        "alive at the end",
        [
            (between(totals, "heap_bytes_end"), "bold"),
            (f" in {count(totals['heap_blocks_end'])} blocks,", ""),
            (f" {share} of the peak", ""),
        ],
    )
    yield _several.allocated(opened, totals)
    title = _options.VIEW_TITLES[query.view]
    if sites:
        yield "dominating line", dominating(sites[0], opened, title)
    if stacks:
        share = _format.share(stacks[0]["share"])
        yield "dominating stack", [(share, "bold"), (f" {title}: {_rows.chain(stacks[0])}", "")]
    # When the program held most: at the end, much of what is left may be the recorder's.
    measured = opened.reader.where_timeline()
    highest = max(measured, key=lambda moment: moment["requested_bytes"], default={"t_s": None})
    where = opened.reader.where(highest["t_s"])
    yield (
        "process (RSS)",
        [
            (size(totals["rss_bytes_peak"]), "bold"),
            (
                f" at the highest flush; {size(totals['recorder_bytes'])} of it belong"
                " to the recorder",
                "",
            ),
            (
                ""
                if where is None
                else f"; dominating part: {where['dominating']} at {where['at_s']:.1f} s",
                "",
            ),
        ],
    )
    yield from _pressure.lines(opened.reader.pressure())
    lost = _captures.losses(info)
    if lost:
        yield "not recorded", [(", ".join(lost), "yellow")]
    else:
        what = "sample" if _captures.is_sampled(info) else "event"
        text = f"no {what} dropped, no stack folded"
        if opened.reader.proc().get("native_layer") not in ("preload", "patch"):
            text += "; memory outside Python's allocators is not seen"
        yield "not recorded", [(text, "")]


def inherited(opened: _captures.Opened) -> Iterator[tuple[str, list[Segment]]]:
    """What a forked child has from its parent."""
    proc = opened.reader.proc()
    if "fork_epoch" not in proc:
        return
    for epoch in opened.reader.epochs():
        if epoch["epoch"] == proc["fork_epoch"]:
            yield (
                "inherited",
                [
                    (_format.size(epoch["allocated_bytes"]), "bold"),
                    (f" in {_format.count(epoch['allocations'])} blocks from", ""),
                    (f" process {proc['parent_pid']};", ""),
                    (f" {_format.size(epoch['live_bytes'])} of it alive at the end", ""),
                ],
            )


def dominating(row: SiteRow, opened: _captures.Opened, title: str) -> list[Segment]:
    return [
        (_format.share(row["share"]), "bold"),
        (f" {title}: {opened.paths.frame(row['site'])}", ""),
    ]
