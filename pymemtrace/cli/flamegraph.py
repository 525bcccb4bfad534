"""`pymemtrace flamegraph`: one HTML file that shows a capture in a browser, without network."""

import argparse
import base64
import html
import os
import sys
import zlib
from pathlib import Path

import pymemtrace
from pymemtrace.cli import _captures, _format, _options, _output, _rows
from pymemtrace.cli._failure import EXIT_IMPOSSIBLE, Failure
from pymemtrace.cli._progress import Progress

HELP = "write a flame graph: one HTML file that needs nothing else"

TITLE = "PYMEMTRACE-TITLE"
DATA = "<!--PYMEMTRACE-DATA-->"
CHUNK = 1 << 20


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("flamegraph", help=HELP, description=HELP)
    _options.add_captures(parser)
    add = parser.add_argument
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="the page (default: the capture's name with .html; -: standard output)",
    )
    add("-f", "--force", action="store_true", help="overwrite FILE")
    add("--open", action="store_true", help="open the page in a browser")
    _options.add_views(parser)
    _options.add_filters(parser)
    _options.add_inverted(parser)
    _options.add_hide_interpreter(parser)
    _options.add_merge(parser, "one page, with a frame for each process below the root")


def run(args: argparse.Namespace) -> int:
    query = _options.Query.of(args)
    _captures.write_apart(args, "page")
    template = load_template()

    def act(opened: _captures.Report) -> None:
        path = args.output or _output.default_path(opened.infos[0]["path"], ".html", args.merge)
        if path != "-":
            _output.check_target(path, args.force)
        aggregate = query.aggregate(opened.reader, opened.info, by_process=args.merge)
        few = _rows.sample_notes(aggregate)
        for note in [*opened.notes("peak"), *few, *query.describe(aggregate)]:
            _captures.print_note(note)
        title, heading = titles_of(opened)
        page = fill(template, title, aggregate.flame(inverted=args.inverted, title=heading))
        if path == "-":
            sys.stdout.buffer.write(page)
            return
        _output.write_file(path, page, args.force)
        print(f"wrote {_format.clean(path)} ({_format.size(len(page))})")
        if args.open:
            import webbrowser

            if not webbrowser.open(Path(path).absolute().as_uri()):
                _captures.print_note("no browser could be started: open the file yourself")

    return _captures.for_reports(args, act)


def titles_of(opened: _captures.Report) -> tuple[str, str]:
    """That of the browser's tab, and that of the page, which shows the command beside it."""
    if isinstance(opened, _captures.Merged):
        return opened.heading, opened.heading
    name = os.path.basename(opened.name)
    return f"{name}: {_format.command(opened.info['command'], 80)}", name


def load_template() -> str:
    path = Path(pymemtrace.__file__).with_name("web") / "flamegraph.html"
    try:
        template = path.read_text(encoding="utf-8")
    except OSError as error:
        template, reason = "", error.strerror or str(error)
    else:
        reason = "it has no place for the data"
    if template.count(TITLE) != 1 or template.count(DATA) != 1:
        raise Failure(
            EXIT_IMPOSSIBLE, f"the page's template cannot be used ({reason})", path,
            "install pymemtrace-profiler again",
        )  # fmt: skip
    return template


def fill(template: str, title: str, container: bytes) -> bytes:
    """The page of docs/flame-data.md. The title goes first: it cannot pass for the data's place."""
    encoded = base64.b64encode(compress(container)).decode("ascii")
    tag = '<script type="application/octet-stream;base64" id="pymemtrace-data">'
    script = f"{tag}{encoded}</script>"
    page = template.replace(TITLE, html.escape(title)).replace(DATA, script)
    return page.encode("utf-8", "replace")


def compress(data: bytes) -> bytes:
    """One gzip member, the same for the same data: without a time."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    parts = []
    with Progress("compressing") as progress:
        for start in range(0, len(data), CHUNK):
            parts.append(packer.compress(data[start : start + CHUNK]))
            progress(start, len(data))
    return b"".join([*parts, packer.flush()])
