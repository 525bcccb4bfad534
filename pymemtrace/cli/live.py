"""`pymemtrace live`: watches a program while it runs. _live/ is the viewer."""

import argparse
import importlib.util
import os
import sys

from pymemtrace._core import CaptureError, Reader
from pymemtrace.cli import _captures, _format, _options
from pymemtrace.cli._failure import EXIT_IMPOSSIBLE, EXIT_INPUT, EXIT_USAGE, Failure
from pymemtrace.cli._process import capture_of, is_pid
from pymemtrace.cli._progress import Progress

HELP = "watch a program while it runs: its top sites, tree, threads, memory"

REMEDY_TERMINAL = "use it in a terminal; elsewhere, `pymemtrace summary` reads a growing file, too"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("live", help=HELP, description=HELP)
    parser.add_argument(
        "captures", metavar="PID|CAPTURE", nargs="+",
        help="id of a running process, or file that `pymemtrace run` writes (its children's are"
             " watched as well), or a quoted pattern such as 'job*.pmt'",
    )  # fmt: skip
    parser.add_argument(
        "--include", metavar="PATTERN", action="append", default=[],
        help="only stacks with a frame whose file, module or package matches (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[],
        help="without stacks whose innermost frame matches (repeatable)",
    )  # fmt: skip
    _options.add_hide_interpreter(parser)


def run(args: argparse.Namespace) -> int:
    check_terminal("live", REMEDY_TERMINAL)
    check_textual()
    words = [path_of(int(word)) if is_pid(word) else word for word in args.captures]
    paths = _captures.find(words)
    from pymemtrace.cli._live.app import LiveApp, show
    from pymemtrace.cli._live.watch import Watch, Wish

    watch = Watch(words, hide_interpreter=args.hide_interpreter)
    with Progress("reading what there is") as progress:
        watch.refresh(progress)
    if not watch.processes():
        raise failure_of(paths[0])
    show(LiveApp(watch, Wish(include=tuple(args.include), exclude=tuple(args.exclude))))
    return 0


def failure_of(path: str) -> Failure:
    """What is wrong with a capture that cannot be read."""
    where = _format.clean(path)
    try:
        Reader(path)
        text = "it is just being made"
    except CaptureError as error:
        return _captures.input_failure(where, str(error).removeprefix(f"{path}: "))
    except OSError as error:
        text = error.strerror or str(error)
    return Failure(
        EXIT_INPUT, f"cannot read the capture ({text})", where, _captures.REMEDY_NO_CAPTURE
    )


def check_terminal(what: str, remedy: str) -> None:
    if not all(os.isatty(fd) for fd in (0, 1, 2)):
        raise Failure(EXIT_USAGE, f"{what} needs a terminal", "this is none", remedy)


def check_textual() -> None:
    if importlib.util.find_spec("textual") is None:
        raise Failure(
            EXIT_IMPOSSIBLE, "the viewer needs textual", sys.executable,
            "pip install 'pymemtrace-profiler[live]'",
        )  # fmt: skip


def path_of(pid: int) -> str:
    try:
        os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        raise Failure(
            EXIT_IMPOSSIBLE, "no right to look at the process", pid,
            "it is another user's: ask as that user, or as root, or give its capture",
        ) from None  # fmt: skip
    except OSError:
        raise Failure(
            EXIT_INPUT, "no such process", pid, "give the id of a running process, or a capture"
        ) from None
    path = capture_of(pid)
    if path is None:
        raise Failure(
            EXIT_INPUT, "the process is not being recorded", pid,
            "start it by `pymemtrace run`, or record it with pymemtrace.record()",
        )  # fmt: skip
    return path
