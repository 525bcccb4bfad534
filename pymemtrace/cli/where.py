"""`pymemtrace where`: how the resident memory of a process is made up."""

import argparse
import errno
from collections.abc import Iterator
from typing import Any

from pymemtrace import _core
from pymemtrace.cli import _captures, _format, _options
from pymemtrace.cli._failure import EXIT_IMPOSSIBLE, EXIT_INPUT, EXIT_USAGE, Failure
from pymemtrace.cli._page import Column, Page, bar, make_page
from pymemtrace.cli._process import capture_of, command_of, is_pid

HELP = "say what the resident memory (RSS) of a process is made up of"

BAR_WIDTH = 20
REMEDY_PROCESS = "give the id of a running process, or a capture"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("where", help=HELP, description=HELP)
    parser.add_argument(
        "captures", metavar="PID|CAPTURE", nargs="+",
        help="id of a running process, or file that `pymemtrace run` wrote",
    )  # fmt: skip
    parser.add_argument(
        "--at", metavar="TIME", type=_options.parse_moment,
        help="the last measurement not after this moment: seconds since the start"
        " (90s, 2m, 1h) or an ISO instant (default: the last one)",
    )  # fmt: skip
    parser.add_argument("--timeline", action="store_true", help="one line per measurement instead")
    _options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    if len(args.captures) == 1 and is_pid(args.captures[0]):
        pid = int(args.captures[0])
        path = capture_of(pid)
        if path is None:
            return from_outside(args, pid)
        args.captures = [path]

    def collect(opened: _captures.Opened) -> dict[str, Any]:
        where = where_of(opened, args.at)
        return {**where, "timeline": opened.reader.where_timeline()} if args.timeline else where

    def show(page: Page, opened: _captures.Opened) -> None:
        where = where_of(opened, args.at)
        page.title(opened.heading)
        if args.timeline:
            page.notes(_captures.notes(opened.info))
            show_timeline(page, opened.reader.where_timeline())
        else:
            show_where(page, where, list(_captures.notes(opened.info)))

    return _captures.report_each(args, collect, show)


def where_of(opened: _captures.Opened, at: _options.Moment | None) -> dict[str, Any]:
    where = opened.reader.where(_options.seconds_since(opened.info["started"], at))
    if where is None:
        raise Failure(
            EXIT_INPUT, "the capture does not say what the resident memory was made up of",
            opened.name, "it is of an older version, or the program ended within a moment",
        )  # fmt: skip
    return where


def from_outside(args: argparse.Namespace, pid: int) -> int:
    if args.at is not None or args.timeline:
        raise Failure(
            EXIT_USAGE, "the process is not being recorded", pid,
            "there is only its state now: leave --at and --timeline out",
        )  # fmt: skip
    try:
        where = _core.where_process(pid)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Failure(
                EXIT_IMPOSSIBLE, "no right to look at the process", pid,
                "it is another user's: ask as that user, or as root",
            ) from None  # fmt: skip
        raise Failure(
            EXIT_INPUT, f"cannot look at the process ({error.strerror})", pid, REMEDY_PROCESS
        ) from None
    note = (
        "The process is not being recorded: this is what the system alone can tell."
        " `pymemtrace run` divides the anonymous memory."
    )
    if args.json:
        _captures.print_json({**_captures.common_fields([]), "pid": pid, "note": note, **where})
        return 0
    page = make_page()
    page.title(f"process {pid}: {_format.command(command_of(pid))}")
    show_where(page, where, [note])
    return 0


def show_where(page: Page, where: dict[str, Any], notes: list[str]) -> None:
    page.facts(answer(where))
    page.notes(notes)
    page.heading("Parts of the resident memory")
    most = max((part["bytes"] for part in where["parts"]), default=0)
    columns = (
        Column("bytes", right=True, style="bold"),
        Column("share", right=True),
        Column("part", style="cyan"),
        Column("", style="green", optional=True),
        Column("what it is", bends=True),
    )
    rss = where["rss_bytes"]
    rows = [
        (
            _format.size(part["bytes"]),
            _format.part(part["bytes"], rss),
            part["name"],
            bar(page, part["bytes"], most, BAR_WIDTH),
            part["detail"],
        )
        for part in where["parts"]
    ]
    rest = where["unattributed_bytes"]
    rows.append((_format.size(rest), _format.part(rest, rss), "unattributed", "", ""))
    page.table(columns, rows)


def answer(where: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    when = "" if where["from_outside"] else f", {_format.duration(where['at_s'])} after the start"
    yield "resident (RSS)", [(_format.size(where["rss_bytes"]), "bold"), (when, "")]
    if not where["from_outside"]:
        yield (
            "requested",
            [(_format.size(where["requested_bytes"]), "bold"), (" in live blocks", "")],
        )
    if where["swap_bytes"]:
        yield "swapped out", [(_format.size(where["swap_bytes"]), "bold")]
    yield "dominating part", [(where["dominating"], "")]
    for text in where["advice"]:
        yield "what could help", [(text, "")]


def show_timeline(page: Page, moments: list[dict[str, Any]]) -> None:
    page.heading("Resident memory over time, with its three largest parts")
    columns = (
        Column("at", right=True),
        Column("resident", right=True, style="bold"),
        Column("requested", right=True),
        Column("unattributed", right=True, optional=True),
        Column("parts", bends=True, style="cyan"),
    )
    rows = []
    for moment in moments:
        parts = sorted(moment["parts"].items(), key=lambda part: -part[1])[:3]
        rows.append(
            (
                _format.duration(moment["t_s"]),
                _format.size(moment["rss_bytes"]),
                _format.size(moment["requested_bytes"]),
                _format.part(moment["unattributed_bytes"], moment["rss_bytes"]),
                ", ".join(f"{name} {_format.size(size)}" for name, size in parts),
            )
        )
    page.table(columns, rows)
