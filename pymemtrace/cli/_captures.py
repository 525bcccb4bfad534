"""Opening the captures that a command line names, and saying what is wrong with them."""

import argparse
import glob
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import pymemtrace
from pymemtrace._core import CaptureError, Reader
from pymemtrace.cli import _format
from pymemtrace.cli._failure import EXIT_INPUT, Failure
from pymemtrace.cli._page import Page, make_page
from pymemtrace.cli._progress import Progress

FORMAT = 1  # of the JSON output

REMEDY_NO_CAPTURE = "give a file that `pymemtrace run` wrote"
REMEDY_DAMAGED = "take another copy of the file, or record the program again"


@dataclass(frozen=True)
class Opened:
    """A capture that a command reports on."""

    reader: Reader
    info: dict[str, Any]
    paths: _format.Paths

    @property
    def name(self) -> str:
        return _format.clean(self.reader.path)

    @property
    def heading(self) -> str:
        return f"{self.name}: {_format.command(self.info['command'])}"


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


def open_capture(path: str) -> Opened:
    """Raises Failure if nothing of the file can be reported."""
    where = _format.clean(path)
    try:
        with Progress(f"reading {where}") as progress:
            reader = Reader(path, progress=progress)
    except CaptureError as error:
        raise input_failure(where, str(error).removeprefix(f"{path}: ")) from None
    except OSError as error:
        text = error.strerror or str(error)
        raise Failure(
            EXIT_INPUT, f"cannot read the capture ({text})", where, REMEDY_NO_CAPTURE
        ) from None
    info = reader.info()
    if info["cuts"] == 0 and info["damaged"]:
        raise damaged_failure(where, info)
    return Opened(reader, info, _format.Paths(reader.proc().get("stdlib")))


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


def notes(info: dict[str, Any]) -> Iterator[str]:
    """Sentences about what a reader of the figures has to know."""
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


def print_failure(failure: Failure, stream: TextIO | None = None) -> int:
    print(f"pymemtrace: {failure}", file=sys.stderr if stream is None else stream)
    return failure.status


def print_note(note: str) -> None:
    print(f"pymemtrace: note: {note}", file=sys.stderr)


def for_each(words: Sequence[str], act: Callable[[Opened], None]) -> int:
    """Opens the captures one after another; what fails with one does not keep the next one back."""
    status = 0
    for path in find(words):
        try:
            opened = open_capture(path)
            try:
                act(opened)
                sys.stdout.flush()
            except (
                BrokenPipeError
            ):  # `| head` has seen enough; what is wrong is to be said all the same
                drop_stdout()
            if opened.info["damaged"]:
                raise damaged_failure(opened.name, opened.info)
        except Failure as failure:
            sys.stdout.flush()
            status = max(status, print_failure(failure))
    return status


def drop_stdout() -> None:
    """What is written to standard output from now on, and what waits in its buffer, is lost."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(
    args: argparse.Namespace,
    collect: Callable[[Opened], dict[str, Any]],
    show: Callable[[Page, Opened], None],
) -> int:
    """What every reporting command does: print JSON, or show each capture on the page."""
    if args.json:
        return report_json(args.captures, collect)
    page = make_page()
    first = True

    def act(opened: Opened) -> None:
        nonlocal first
        if not first:
            page.title("")
        first = False
        show(page, opened)

    return for_each(args.captures, act)


def report_json(words: Sequence[str], collect: Callable[[Opened], dict[str, Any]]) -> int:
    """One object. Of several captures, `reports` holds one object each, in their order."""
    captures: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []

    def act(opened: Opened) -> None:
        reports.append(collect(opened))
        captures.append(opened.info)

    status = for_each(words, act)
    if not captures:
        return status
    result: dict[str, Any] = {
        "pymemtrace": pymemtrace.__version__, "format": FORMAT, "captures": captures,
    }  # fmt: skip
    if len(captures) == 1 and len(find(words)) == 1:
        result |= reports[0]
    else:
        result["reports"] = [
            {"path": info["path"], **fields} for info, fields in zip(captures, reports, strict=True)
        ]
    try:
        print_json(result)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()
    return status


def print_json(value: Any) -> None:
    try:
        text = json.dumps(value)
    except RecursionError:  # a tree as deep as the program's recursion
        text = "".join(json_parts(value))
    print(text)


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
