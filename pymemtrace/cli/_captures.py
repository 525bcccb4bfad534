"""Opening the captures that a command line names, and saying what is wrong with them."""

import argparse
import glob
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO, TypeVar

import pymemtrace
from pymemtrace._core import CaptureError, Combined, Reader
from pymemtrace._symbols import Resolved, resolve
from pymemtrace._types import View
from pymemtrace.cli import _format
from pymemtrace.cli._failure import EXIT_INPUT, EXIT_USAGE, Failure, drop_stdout
from pymemtrace.cli._page import Page, make_page
from pymemtrace.cli._progress import Progress

FORMAT = 1  # of the JSON output
NATIVE_NOTES = 2  # about what libraries could not be read
NAMES = 4  # of captures or processes that a line or a few name one by one

REMEDY_NO_CAPTURE = "give a file that `pymemtrace run` wrote"
REMEDY_DAMAGED = "take another copy of the file, or record the program again"


@dataclass(frozen=True)
class Opened:
    """What a command reports on: a capture."""

    reader: Reader
    info: dict[str, Any]
    paths: _format.Paths
    resolved: Resolved  # its native functions

    @property
    def name(self) -> str:
        return _format.clean(self.reader.path)

    @property
    def heading(self) -> str:
        return f"{self.name}: {_format.command(self.info['command'])}"

    @property
    def infos(self) -> list[dict[str, Any]]:
        return [self.info]

    @property
    def totals(self) -> dict[str, Any]:
        return self.reader.totals()

    def notes(self, view: View | None) -> Iterator[str]:
        """view: what is shown; None: the report itself says what a peak is, and what came before"""
        yield from notes(self.info)
        if view == "temporary" and is_sampled(self.info):
            yield "A sampled recording does not know which allocations were temporary."
        yield from native_notes(self.resolved)
        there = attached(self.reader.proc())
        if there is not None and view is not None:
            yield (
                f"Attached {_format.duration(there['age_s'])} after the start of the process:"
                f" {_format.size(there['rss_bytes'])} of resident memory were there already"
                " and are not in this capture."
            )


@dataclass(frozen=True)
class Merged:
    """What a command reports on: several captures as one."""

    reader: Combined
    info: dict[str, Any]  # what a capture's has, as far as it makes sense for all together
    opened: Sequence[Opened]
    totals: dict[str, Any]
    paths: _format.Paths

    @property
    def infos(self) -> list[dict[str, Any]]:
        return [opened.info for opened in self.opened]

    @property
    def heading(self) -> str:
        count = len(self.opened)
        processes = "1 process" if count == 1 else f"{_format.count(count)} processes"
        return f"{processes}: {self.info['path']}"

    def notes(self, view: View | None) -> Iterator[str]:
        """view: what is shown; None: the report says itself what a peak is."""
        for opened in self.opened:
            for note in opened.notes(view):
                yield f"{opened.name}: {note}"
        if len(self.infos) > 1 and view == "peak":
            yield (
                "The peak is the sum of each process' own peak; these are not simultaneous."
                " At one time, the heaps held at most"
                f" {_format.size(self.totals['heap_bytes_peak_simultaneous'])} together."
            )
        yield from inherited_notes(self.infos, self.totals)


Report = Opened | Merged
R = TypeVar("R", Opened, Merged)


def inherited_notes(infos: list[dict[str, Any]], totals: dict[str, Any]) -> Iterator[str]:
    """What was left out because it counts in another process, or would if that were here."""
    pids = {info["pid"] for info in infos}
    heirs = [process for process in totals["processes"] if process["inherited_bytes"]]
    orphans = [process for process in heirs if process["parent_pid"] not in pids]
    if len(heirs) > NAMES:
        size = _format.size(totals["inherited_bytes"])
        what = f"{_format.count(len(heirs))} processes have {size} from their parents by fork"
        if orphans:
            what += f"; the parents' captures of {_format.count(len(orphans))} of them are not here"
        yield f"{what}: blocks count where they were allocated (--with-inherited: in each)."
        return
    for process in heirs:
        size = _format.size(process["inherited_bytes"])
        what = f"Process {process['pid']} has {size} from process {process['parent_pid']} by fork"
        if process in orphans:
            yield f"{what}, whose capture is not here: they are not counted (--with-inherited)."
        else:
            yield f"{what}; they count there only (--with-inherited: in both)."


def find(words: Sequence[str]) -> list[str]:
    """The files that the words name; a word that is no file but a pattern names all that match."""
    paths: list[str] = []
    for word in words:
        if os.path.lexists(word) or not glob.has_magic(word):
            paths.append(word)
            continue
        matches = sorted(glob.glob(word, recursive=True))
        if not matches:
            raise Failure(EXIT_INPUT, "no file matches", word, REMEDY_NO_CAPTURE)
        paths += matches
    return paths


def write_apart(args: argparse.Namespace, what: str) -> bool:
    """Does each of several captures get an output of its own, `what`? Raises Failure if -o says
    otherwise."""
    several = len(find(args.captures)) > 1 and not args.merge
    if several and args.output is not None:
        raise Failure(
            EXIT_USAGE, "one output for several captures", args.output,
            f"leave -o out: every {what} is then named after its capture; or give --merge",
        )  # fmt: skip
    return several


def open_capture(path: str, args: argparse.Namespace) -> Opened:
    """Raises Failure if nothing of the file can be reported."""
    where = _format.clean(path)
    again, hide = getattr(args, "again", False), getattr(args, "hide_interpreter", False)
    try:
        with Progress(f"reading {where}") as progress:
            reader = Reader(path, progress=progress, ignore_symbols=again, hide_interpreter=hide)
        with Progress(f"looking up native functions of {where}") as looking:
            resolved = resolve(
                path, reader=reader, looking=looking, again=again, hide_interpreter=hide
            )
    except CaptureError as error:
        raise input_failure(where, str(error).removeprefix(f"{path}: ")) from None
    except OSError as error:
        text = error.strerror or str(error)
        raise Failure(
            EXIT_INPUT, f"cannot read the capture ({text})", where, REMEDY_NO_CAPTURE
        ) from None
    info = resolved.reader.info()
    if info["cuts"] == 0 and info["damaged"]:
        raise damaged_failure(where, info)
    paths = _format.Paths(reader.proc().get("stdlib"))
    return Opened(resolved.reader, info, paths, resolved)


def input_failure(where: str, text: str) -> Failure:
    what, _, detail = _format.clean(text).partition(": ")
    if "version" in what:
        return Failure(EXIT_INPUT, what, where, detail)
    if "not a" in what:
        what, detail = "not a capture of PyMemTrace", detail or "the file is empty"
        return Failure(EXIT_INPUT, f"{what} ({detail})", where, REMEDY_NO_CAPTURE)
    if detail:
        what = f"{what} ({detail})"
    return Failure(EXIT_INPUT, what, where, REMEDY_DAMAGED)


def damaged_failure(where: str, info: dict[str, Any]) -> Failure:
    read = "nothing before it can be shown" if info["cuts"] == 0 else "what is before it was shown"
    what = f"the capture is damaged: {_format.clean(info['damaged'])}; {read}"
    return Failure(EXIT_INPUT, what, where, REMEDY_DAMAGED)


def state_text(info: dict[str, Any]) -> str:
    """How the capture ended, in a few words."""
    if info["ended"] == "running":
        return f"still running, as of {_format.duration(info['age_s'])} ago"
    if info["stopped"]:
        return f"cut: {info['stopped']}"
    if info["ended"] == "killed":
        return "killed: the capture ends with its last flush"
    if info["damaged"]:
        return "damaged"
    if info["ended_by"] == "exception":
        return f"ended by an exception (exit status {info['exit_status']})"
    if info["exit_status"]:
        return f"ended with exit status {info['exit_status']}"
    return "ended normally"


def losses(info: dict[str, Any]) -> list[str]:
    """What the recorder could not keep: '9 missed frees', '12 stacks folded'."""
    texts = [f"{_format.count(n)} {reason}" for reason, n in info["dropped"].items()]
    if info["folded"]:
        texts.append(f"{_format.count(info['folded'])} stacks folded")
    return texts


def is_sampled(info: dict[str, Any]) -> bool:
    return "sample_bytes" in info


def sampling_note(info: dict[str, Any]) -> str:
    start, now = info["sample_bytes"], info["sample_bytes_now"]
    per = f"one sample per {_format.setting(start)} allocated on average"
    if now > start:
        per += f" at the start, per {_format.setting(now)} at the end"
    return f"sampled: {per}; figures are estimates with 95 % intervals"


def notes(info: dict[str, Any]) -> Iterator[str]:
    """Sentences about what a reader of the figures has to know."""
    if is_sampled(info):
        yield sampling_note(info)
    length = _format.duration(info["duration_s"])
    if info["cuts"] == 0 and info["stopped"]:
        yield f"The capture holds no figures: {info['stopped']} before any could be written."
    elif info["cuts"] == 0:
        yield "The capture holds no figures: the program had not run for long enough to write any."
    if info["ended"] == "running":
        age = _format.duration(info["age_s"])
        yield f"The program still runs; these figures are {age} old."
    elif info["stopped"] and info["cuts"]:
        yield f"The capture is cut: {info['stopped']}. It ends {length} after the start."
    elif info["ended"] == "killed":
        yield (
            "The program ended without closing the capture, as by SIGKILL, SIGTERM, a crash"
            " or os._exit();"
            f" it ends with the last flush, {length} after the start."
        )
    if info["torn"]:
        yield f"The end of the file is torn: {_format.clean(info['torn'])}."
    if info["damaged"]:
        yield f"The capture is damaged: {_format.clean(info['damaged'])}."
    if info["counters"].get("flushes without new stacks"):
        yield (
            "--max-size had no room for more stacks: what [folded] has is counted by size only."
            " Record again with a larger --max-size."
        )
    lost = losses(info)
    if lost:
        yield f"Not recorded: {', '.join(lost)}."


def attached(proc: dict[str, Any]) -> dict[str, Any] | None:
    """What a process had when `pymemtrace attach` came: its age, its memory, Python's blocks."""
    if "attached_age_ns" not in proc:
        return None
    return {
        "age_s": proc["attached_age_ns"] / 1e9,
        "rss_bytes": proc.get("attached_rss_bytes", 0),
        "blocks": proc.get("attached_blocks", 0),
    }


def native_notes(resolved: Resolved) -> Iterator[str]:
    remarks = resolved.remarks
    yield from map(_format.clean, remarks[:NATIVE_NOTES])
    if len(remarks) > NATIVE_NOTES:
        more = _format.count(len(remarks) - NATIVE_NOTES)
        yield f"Nor are those of {more} other libraries (`pymemtrace symbolize` names them)."


def print_failure(failure: Failure, stream: TextIO | None = None) -> int:
    print(f"pymemtrace: {failure}", file=sys.stderr if stream is None else stream)
    return failure.status


def print_note(note: str) -> None:
    print(f"pymemtrace: note: {note}", file=sys.stderr)


def act_on(opened: R, act: Callable[[R], None]) -> None:
    try:
        act(opened)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; what is wrong is to be said all the same
        drop_stdout()


def for_each(args: argparse.Namespace, act: Callable[[Opened], None]) -> int:
    """Opens the captures one after another; what fails with one does not keep the next one back."""
    status = 0
    for path in find(args.captures):
        try:
            opened = open_capture(path, args)
            act_on(opened, act)
            if opened.info["damaged"]:
                raise damaged_failure(opened.name, opened.info)
        except Failure as failure:
            sys.stdout.flush()
            status = max(status, print_failure(failure))
    return status


def open_several(args: argparse.Namespace) -> tuple[list[Opened], int]:
    """All that can be read, each capture once, and the status so far. A line says what cannot."""
    status = 0
    all_opened: list[Opened] = []
    known: dict[object, str] = {}
    for path in find(args.captures):
        try:
            opened = open_capture(path, args)
            info = opened.info
            # A copy, or an earlier state, of a capture has its id.
            key = (info["id"], info["pid"], info["started"])
            if key in known:
                print_note(f"the same capture as {known[key]}, it counts once: {opened.name}")
                continue
            known[key] = opened.name
            all_opened.append(opened)
            if info["damaged"]:
                raise damaged_failure(opened.name, info)
        except Failure as failure:
            status = max(status, print_failure(failure))
    return all_opened, status


def merge(all_opened: Sequence[Opened], with_inherited: bool) -> Merged:
    """all_opened: at least one."""
    names = [opened.name for opened in all_opened]
    if len(names) > NAMES:
        names[NAMES:] = [f"{_format.count(len(names) - NAMES)} more"]
    combined = Combined([opened.reader for opened in all_opened], with_inherited=with_inherited)
    totals = combined.totals()
    info = {
        "path": ", ".join(names), "started": totals["started"], "duration_s": totals["duration_s"],
    }  # fmt: skip
    return Merged(combined, info, all_opened, totals, all_opened[0].paths)


def for_merged(args: argparse.Namespace, act: Callable[[Merged], None]) -> int:
    """Opens the captures and acts once, on all together."""
    all_opened, status = open_several(args)
    if not all_opened:
        return status
    try:
        act_on(merge(all_opened, args.with_inherited), act)
    except Failure as failure:
        sys.stdout.flush()
        status = max(status, print_failure(failure))
    return status


def for_reports(args: argparse.Namespace, act: Callable[[Report], None]) -> int:
    """With --merge once, on all captures together, else on one after another."""
    if args.merge:
        return for_merged(args, act)
    return for_each(args, act)


def report(
    args: argparse.Namespace,
    collect: Callable[[Report], dict[str, Any]],
    show: Callable[[Page, Report], None],
) -> int:
    """What every reporting command does: print JSON, or show each capture, or all as one."""
    if args.merge:
        return for_merged(args, lambda merged: report_merged(args, merged, collect, show))
    return report_each(args, collect, show)


def report_each(
    args: argparse.Namespace,
    collect: Callable[[Opened], dict[str, Any]],
    show: Callable[[Page, Opened], None],
) -> int:
    """The same of commands that cannot merge."""
    if args.json:
        return report_json(args, collect)
    page = make_page()
    first = True

    def act(opened: Opened) -> None:
        nonlocal first
        if not first:
            page.title("")
        first = False
        show(page, opened)

    return for_each(args, act)


def report_merged(
    args: argparse.Namespace,
    merged: Merged,
    collect: Callable[[Report], dict[str, Any]],
    show: Callable[[Page, Report], None],
) -> None:
    if args.json:
        print_report({**common_fields(merged.infos), **collect(merged)})
    else:
        show(make_page(), merged)


def common_fields(infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"pymemtrace": pymemtrace.__version__, "format": FORMAT, "captures": infos}


def report_json(args: argparse.Namespace, collect: Callable[[Opened], dict[str, Any]]) -> int:
    """One object. Of several captures, `reports` holds one object each, in their order."""
    captures: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []

    def act(opened: Opened) -> None:
        reports.append(collect(opened))
        captures.append(opened.info)

    status = for_each(args, act)
    if not captures:
        return status
    result = common_fields(captures)
    if len(captures) == 1 and len(find(args.captures)) == 1:
        result |= reports[0]
    else:
        result["reports"] = [
            {"path": info["path"], **fields} for info, fields in zip(captures, reports, strict=True)
        ]
    try:
        print_report(result)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()
    return status


def print_report(report: dict[str, Any]) -> None:
    if any(map(is_sampled, report["captures"])):
        nest_estimates(report)
    print_json(report)


def nest_estimates(report: dict[str, Any]) -> None:
    """Makes "bytes", "bytes_low" and "bytes_high" one value: estimate, low, high."""
    waiting: list[Any] = [report]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key in [key for key in item if f"{key}_low" in item]:
                low, high = item.pop(f"{key}_low"), item.pop(f"{key}_high")
                item[key] = {"estimate": item[key], "low": low, "high": high}
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


PIECE = 1 << 24  # characters


def print_json(value: Any) -> None:
    try:
        text = json.dumps(value)
    except RecursionError:  # a tree as deep as the program's recursion
        text = "".join(json_parts(value))
    # in pieces: one write of more than 2 GiB is cut short
    for start in range(0, len(text), PIECE):
        sys.stdout.write(text[start : start + PIECE])
    print()


def json_parts(value: Any) -> Iterator[str]:
    """The same text as json.dumps(), without recursion."""
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _Raw):
            yield item.text
        elif isinstance(item, dict):
            stack.append(_Raw("}"))
            for number, (key, inner) in enumerate(reversed(item.items())):
                stack += [inner, _Raw(f"{json.dumps(key)}: ")]
                if number < len(item) - 1:
                    stack.append(_Raw(", "))
            yield "{"
        elif isinstance(item, (list, tuple)):
            stack.append(_Raw("]"))
            for number, inner in enumerate(reversed(item)):
                stack.append(inner)
                if number < len(item) - 1:
                    stack.append(_Raw(", "))
            yield "["
        else:
            yield json.dumps(item)


class _Raw:
    def __init__(self, text: str) -> None:
        self.text = text
