"""The options that several commands have, and what they mean for a capture."""

import argparse
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast, get_args

from pymemtrace._core import Aggregate, Combined, Reader
from pymemtrace._types import View
from pymemtrace.cli import _format
from pymemtrace.cli._failure import EXIT_USAGE, Failure

VIEW_TITLES: dict[View, str] = {
    "peak": "at the peak",
    "leaks": "alive at the end",
    "total": "allocated in total",
    "temporary": "temporary",
}
VIEW_HELP: dict[View, str] = {
    "peak": "what was alive at the highest point (default)",
    "leaks": "what was alive at the end",
    "total": "everything that was allocated",
    "temporary": "what was freed at once",
}

SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

Moment = float | datetime


def parse_moment(text: str) -> Moment:
    """'90', '90s', '1.5m', '2h': seconds since the start; an ISO 8601 instant: itself."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", text.strip(), re.ASCII)
    if match is not None and match[2] in SECONDS:
        return float(match[1]) * SECONDS[match[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no moment: write seconds since the start (90, 90s, 2m, 1h)"
            " or an instant (2026-01-31T12:00:00)"
        ) from None
    return moment.astimezone()  # without a zone it is local time


def parse_limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def parse_share(text: str) -> float:
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 100.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage from 0 to 100")
    return value / 100


def add_captures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "captures", metavar="CAPTURE", nargs="+",
        help="file that `pymemtrace run` wrote, or a quoted pattern such as '*.pmt'",
    )  # fmt: skip


def add_merge(parser: argparse.ArgumentParser, what: str) -> None:
    """what: the merged report, in the words of the command."""
    group = parser.add_argument_group("several captures")
    add = group.add_argument
    add("--merge", action="store_true", help=f"one report of all captures together: {what}")
    add(
        "--with-inherited", action="store_true",
        help="in what is merged, count the blocks that a process has from its parent by fork in"
             " each of them, not only where they were allocated",
    )  # fmt: skip


def add_views(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("views")
    views = group.add_mutually_exclusive_group()
    for view in get_args(View):
        views.add_argument(
            f"--{view}", dest="view", action="store_const", const=view, help=VIEW_HELP[view]
        )
    parser.set_defaults(view="peak")


def add_filters(parser: argparse.ArgumentParser, to: tuple[str, ...] = ("--to",)) -> None:
    """to: the names of --until besides it; `export` has another use for --to."""
    group = parser.add_argument_group("filters")
    add = group.add_argument
    add(
        "--from", dest="start", metavar="TIME", type=parse_moment,
        help="start of a time window: seconds since the start (90s, 2m, 1h) or an ISO instant",
    )  # fmt: skip
    add(
        *to, "--until", dest="end", metavar="TIME", type=parse_moment,
        help="end of a time window",
    )  # fmt: skip
    add("--thread", metavar="NAME", help="only this thread, by its name or native id")
    add(
        "--include", metavar="PATTERN", action="append", default=[],
        help="only stacks with a frame whose file, module or package matches (repeatable)",
    )  # fmt: skip
    add(
        "--exclude", metavar="PATTERN", action="append", default=[],
        help="no stacks whose innermost frame matches (repeatable)",
    )  # fmt: skip


def add_inverted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inverted", action="store_true", help="callers below the lines that allocate"
    )


def add_hide_interpreter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hide-interpreter", action="store_true",
        help="leave out native frames of the interpreter itself, such as _PyEval_Vector",
    )  # fmt: skip


def add_native(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--native", action="store_true",
        help="a row for each function of C or C++ that allocated, not for the line of Python that"
             " called it",
    )  # fmt: skip


def add_limit(parser: argparse.ArgumentParser, default: int | None, what: str) -> None:
    text = "all" if default is None else str(default)
    parser.add_argument(
        "--limit", metavar="N", type=parse_limit, default=default,
        help=f"show at most N {what} (default: {text})",
    )  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


@dataclass(frozen=True)
class Query:
    """What the views and filters on the command line ask for."""

    view: View
    start: Moment | None
    end: Moment | None
    thread: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    # about the time, of what was read last
    remarks: list[str] = field(default_factory=list)
    hide_interpreter: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Query":
        return cls(
            cast(View, getattr(args, "view", "peak")),
            args.start,
            args.end,
            args.thread,
            tuple(args.include),
            tuple(args.exclude),
            hide_interpreter=getattr(args, "hide_interpreter", False),
        )

    def filters(self, info: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments of Reader.aggregate() and Reader.stats()."""
        start_s = seconds_since(info["started"], self.start)
        self.remarks.clear()
        if start_s is not None and start_s < 0:
            self.remarks.append(
                f"--from lies before the start of the recording, {info['started']}."
            )
        return {
            "start_s": start_s,
            "end_s": seconds_since(info["started"], self.end),
            "thread": self.thread,
            "include": self.include,
            "exclude": self.exclude,
        }

    def aggregate(
        self, reader: Reader | Combined, info: dict[str, Any], *, by_process: bool = False
    ) -> Aggregate:
        """by_process: see Combined.aggregate(), which alone takes it."""
        filters = self.filters(info)
        if by_process:
            filters["by_process"] = True
        try:
            aggregate = reader.aggregate(self.view, **filters)
        except ValueError as error:
            raise self.failure(reader, info, str(error)) from None
        self.remark_window(reader, aggregate.window)
        return aggregate

    def stats(self, reader: Reader | Combined, info: dict[str, Any]) -> dict[str, Any]:
        try:
            stats = reader.stats(**self.filters(info))
        except ValueError as error:
            raise self.failure(reader, info, str(error)) from None
        self.remark_window(reader, stats["window"])
        return stats

    def remark_window(self, reader: Reader | Combined, window: dict[str, float]) -> None:
        if self.start is None and self.end is None:
            return
        several = isinstance(reader, Combined) and len(reader.readers) > 1
        flushes = "the whole flushes of each process" if several else "the whole flushes"
        self.remarks.insert(
            0,
            f"Only the time from {window['start_s']:.3f} s to {window['end_s']:.3f} s:"
            f" {flushes} nearest to what was asked for.",
        )

    def failure(self, reader: Reader | Combined, info: dict[str, Any], what: str) -> Failure:
        """The filters ask for what the captures do not have."""
        readers = reader.readers if isinstance(reader, Combined) else (reader,)
        if "thread" in what:
            threads = (thread_text(thread) for one in readers for thread in one.threads())
            names = ", ".join(dict.fromkeys(threads))
            remedy = f"its threads are {names}"
        else:
            remedy = f"its recording lasted {_format.duration(info['duration_s'])}"
        return Failure(EXIT_USAGE, what, info["path"], remedy)

    def nothing(self) -> str:
        """What to say where a view is empty; a hint, if the patterns may be why."""
        text = f"Nothing {VIEW_TITLES[self.view]}"
        if not (self.include or self.exclude):
            return f"{text}."
        return (
            f"{text} that the patterns let through. They are compared with file names (app.py,"
            " '*/app/*'), modules and packages (app.cache, app); __main__ is the program itself."
        )

    def describe(self, aggregate: Aggregate | None = None) -> list[str]:
        """Sentences that say what the filters take away from what was read last, and whether
        nothing is left of this aggregate."""
        sentences = [*self.remarks]
        if self.thread is not None:
            sentences.append(f"Only the thread {_format.clean(self.thread)}.")
        if self.include:
            patterns = ", ".join(map(_format.clean, self.include))
            sentences.append(f"Only stacks with a frame that matches {patterns}.")
        if self.exclude:
            patterns = ", ".join(map(_format.clean, self.exclude))
            sentences.append(f"Without stacks whose innermost frame matches {patterns}.")
        if self.hide_interpreter:
            sentences.append("Without native frames of the interpreter.")
        if aggregate is not None and not (aggregate.bytes or aggregate.blocks):
            sentences.append(self.nothing())
        return sentences


def seconds_since(started: str | None, moment: Moment | None) -> float | None:
    if isinstance(moment, datetime):
        if started is None:
            return None
        return (moment - datetime.fromisoformat(started)).total_seconds()
    return moment


def thread_text(thread: dict[str, Any]) -> str:
    name = _format.clean(thread["name"]) or "without a name"
    return f"{name} ({thread['native_id']})"
