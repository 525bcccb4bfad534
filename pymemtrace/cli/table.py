"""`pymemtrace table`: every line that allocated, the heaviest first."""

import argparse
from typing import Any

from pymemtrace.cli import _captures, _options, _rows
from pymemtrace.cli._page import Page

HELP = "list every line that allocated, the heaviest first"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("table", help=HELP, description=HELP)
    _options.add_captures(parser)
    _options.add_views(parser)
    _options.add_filters(parser)
    _options.add_native(parser)
    _options.add_limit(parser, None, "lines")
    _options.add_merge(parser, "the lines of all processes, and who holds them")
    _options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    query = _options.Query.of(args)

    def collect(opened: _captures.Report) -> dict[str, Any]:
        aggregate = query.aggregate(opened.reader, opened.info)
        rows = aggregate.sites(args.limit, native=args.native)
        return {**_rows.view_fields(query, aggregate), "rows": rows}

    def show(page: Page, opened: _captures.Report) -> None:
        aggregate = query.aggregate(opened.reader, opened.info)
        rows = aggregate.sites(args.limit, native=args.native)
        opened.paths.learn_rows(rows)
        page.title(opened.heading)
        page.notes([*opened.notes(query.view), *_rows.sample_notes(aggregate), *query.describe()])
        _rows.show(page, opened, query, rows)

    return _captures.report(args, collect, show)
