"""`pymemtrace export`: the stacks of a capture in the formats of other programs."""

import argparse
import sys
from typing import cast, get_args

from pymemtrace._types import ExportKind
from pymemtrace.cli import _captures, _format, _options, _output, _rows
from pymemtrace.cli._page import is_terminal
from pymemtrace.cli.flamegraph import compress

HELP = "write the stacks for pprof, speedscope, collapsed-stack tools or as CSV"

ENDINGS: dict[ExportKind, str] = {
    "pprof": ".pb.gz",
    "speedscope": ".speedscope.json",
    "collapsed": ".collapsed.txt",
    "csv": ".csv",
}


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("export", help=HELP, description=HELP)
    _options.add_captures(parser)
    add = parser.add_argument
    add("--to", dest="kind", choices=get_args(ExportKind), required=True, help="the format")
    add("-o", "--output", metavar="FILE",
        help="the file; - is standard output (default: standard output if that is no terminal, else"
             " the capture's name with the format's ending)")  # fmt: skip
    add("--full-paths", action="store_true",
        help="in collapsed stacks, files with their paths instead of modules")  # fmt: skip
    add("-f", "--force", action="store_true", help="overwrite FILE")
    _options.add_views(parser)
    _options.add_filters(parser, to=())
    _options.add_inverted(parser)
    _options.add_hide_interpreter(parser)
    _options.add_merge(parser, "one file with the stacks of all processes")


def run(args: argparse.Namespace) -> int:
    query = _options.Query.of(args)
    kind = cast(ExportKind, args.kind)
    several = _captures.write_apart(args, "file")

    def act(opened: _captures.Report) -> None:
        path = args.output
        if path is None and (several or is_terminal(sys.stdout)):
            path = _output.default_path(opened.infos[0]["path"], ENDINGS[kind], args.merge)
        to_stdout = path is None or path == "-"
        if not to_stdout:
            _output.check_target(path, args.force)
        aggregate = query.aggregate(opened.reader, opened.info)
        few = _rows.sample_notes(aggregate)
        for note in [*opened.notes(query.view), *few, *query.describe(aggregate)]:
            _captures.print_note(note)
        content = aggregate.export(kind, inverted=args.inverted, full_paths=args.full_paths)
        if kind == "pprof":
            content = compress(content)
        if to_stdout:
            _output.write_stdout(content)
            return
        _output.write_file(path, content, args.force)
        print(f"wrote {_format.clean(path)} ({_format.size(len(content))})")

    return _captures.for_reports(args, act)
