"""`pymemtrace attach`: begins to record a process that runs already."""

import argparse
import os
import re
import sys

from pymemtrace.cli import _control, _format, _helper, _inject
from pymemtrace.cli._failure import EXIT_IMPOSSIBLE, EXIT_USAGE, Failure
from pymemtrace.cli._stub import CORE
from pymemtrace.cli._target import Target, impossible, user_name
from pymemtrace.cli.run import (
    box_bytes,
    max_overhead_ppm,
    parse_box,
    parse_file_size,
    parse_sample,
    parse_share,
    parse_size,
)

HELP = "record a process that runs already"

DURATION_MAX_S = 1e9
SAMPLE_BYTES = 512 << 10  # what is attached to is in production
FULL_ONLY = ("native", "async_parents", "events")
METHODS = ("auto", "remote-exec", "ptrace")
PRELOAD = os.path.join(os.path.dirname(CORE), "_preload.so")


def parse_seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?s?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 30 or 0.5, in seconds")
    value = float(text.rstrip("s"))
    if not 0 < value <= DURATION_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: give 0.001 to 1e9 seconds")
    return value


def parse_pid(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r} is no process id")
    return int(text)


def add_common(parser: argparse.ArgumentParser) -> None:
    """What attach and detach have in common."""
    add = parser.add_argument
    add("pid", metavar="PID", type=parse_pid, help="the process")
    add("--timeout", metavar="SECONDS", type=parse_seconds, default=10.0,
        help="give up when it has not begun by then (default: 10)")  # fmt: skip
    add("--method", choices=METHODS, default="auto",
        help="how the process is reached: ptrace, sys.remote_exec of 3.14 and later, or auto"
             " (default: ptrace; where that is not possible, sys.remote_exec)")  # fmt: skip
    add("--python", metavar="PATH",
        help="an interpreter of its version with this package (default: looked for)")  # fmt: skip
    add("-v", "--verbose", action="store_true", help="say how it was reached")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "attach",
        help=HELP,
        description="Begins to record a Python process that runs already. It ends by --duration,"
        " by `pymemtrace detach`, or with the process.",
    )
    add_common(parser)
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="the capture (pymemtrace-<program>.<pid>.pmt)")
    add("-f", "--force", action="store_true", help="overwrite FILE")
    add("-q", "--quiet", action="store_true", help="say nothing if it works")
    add("--duration", metavar="SECONDS", type=parse_seconds, default=0.0,
        help="the recording ends by itself after this time")  # fmt: skip
    # How it is recorded: another mode is another option beside these.
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--sample", metavar="SIZE", type=parse_sample, default=0,
        help="record samples only, one per SIZE bytes on average (default: 512K)")  # fmt: skip
    modes.add_argument("--full", action="store_true", help="record every allocation")
    add("--native", action="store_true",
        help="the stacks contain the frames of C, C++ and Rust functions, too (with --full)",
    )  # fmt: skip
    add("--async-parents", action="store_true",
        help="the stacks of asyncio's tasks contain the tasks that await them (with --full)",
    )  # fmt: skip
    add("--events", action="store_true",
        help="also keep the log of every single event (with --full)")  # fmt: skip
    add("--box", metavar="SIZE", type=parse_box, default=None,
        help="size of FILE, which is taken at the start (16M; 0: FILE grows; not with --full)",
    )  # fmt: skip
    add("--max-overhead", metavar="SHARE", type=parse_share, default=None,
        help="sample less where that takes more of the CPU time (2%%; 0: never; not with --full)",
    )  # fmt: skip
    add("--max-memory", metavar="SIZE", type=parse_size, default=0,
        help="memory that the tables of stacks may use (64M; default: 1G)")  # fmt: skip
    add("--max-size", metavar="SIZE", type=parse_file_size, default=0,
        help="size that FILE may reach (default: no limit)")  # fmt: skip


def program_name(words: list[str]) -> str:
    """Of the command line python … app.py …: the program, as `run` names captures."""
    rest = iter(words[1:])
    for word in rest:
        if word == "-m" or word == "-c":
            name = next(rest, "module") if word == "-m" else "command"
        elif word in ("-X", "-W"):
            next(rest, "")
            continue
        elif word.startswith("-") and word != "-":
            continue
        else:
            name = "stdin" if word == "-" else os.path.basename(word)
        return name.replace("/", "_") or "process"
    return os.path.basename(words[0]) if words else "process"


def output_path(args: argparse.Namespace, target: Target) -> str:
    name = args.output or f"pymemtrace-{program_name(target.words)}.{target.pid}.pmt"
    try:
        path = os.path.abspath(name)
    except OSError as error:
        raise Failure(
            EXIT_USAGE, f"no current directory ({error.strerror})", name,
            "give the capture's absolute path with -o",
        ) from None  # fmt: skip
    if "\x1f" in path or "\n" in path:
        raise Failure(
            EXIT_USAGE, "a control character in the name", _format.clean(path), "take another"
        )
    if not target.sees(os.path.dirname(path)) and os.path.isdir(os.path.dirname(path)):
        raise impossible(
            "the process lives in another container and does not see the folder",
            os.path.dirname(path), "attach from within: docker exec ..., or give a folder that"
            " both have",
        )  # fmt: skip
    return path


def request(action: str, target: Target) -> dict[str, object]:
    target.check_package([CORE, PRELOAD])
    return {"pid": target.status.pid_inside, "action": action}  # pid is the first


def ask(args: argparse.Namespace, target: Target, words: dict[str, object]) -> dict[str, str]:
    """The answer to a request. Raises Failure for one that says no."""
    with _control.Control(target, CORE, words) as control:
        question = _inject.Question(target, control, args.method)
        answer = question.ask(args.timeout)
        if args.verbose:
            for way, held_s in question.held_s:
                print(f"{way}: stood still for {held_s * 1e6:.0f} us", file=sys.stderr)
    if answer.get("kind") != "done":
        raise refusal(target, answer, str(words.get("path", "")))
    return answer


def refusal(target: Target, answer: dict[str, str], path: str) -> Failure:
    kind, text = answer.get("kind", ""), _format.clean(answer.get("text", ""))
    user = user_name(target.status.uid)
    if kind == "recorded":
        return impossible(
            f"the process is being recorded already, into {text}", target.name,
            "read that capture, or end that recording first",
        )  # fmt: skip
    if kind == "exists":
        return Failure(
            EXIT_USAGE, "the capture exists already", path,
            "choose another file with -o, or overwrite it with -f",
        )  # fmt: skip
    if kind == "unwritable":
        return Failure(
            EXIT_USAGE, f"the process, of the user {user}, cannot write the capture ({text})", path,
            "choose a file in a directory where that user may write, with -o",
        )  # fmt: skip
    if kind == "unloadable":
        return impossible(
            f"the process, of the user {user}, cannot load our library ({text})", target.name,
            "install pymemtrace-profiler where that user may read it",
        )  # fmt: skip
    if kind == "not recorded":
        return impossible("the process is not being recorded", target.name, "nothing is to be done")
    if kind == "not attached":
        return impossible(
            f"its recording was not begun by attach: {text}", target.name,
            "it ends with the program, or where the program ends it",
        )  # fmt: skip
    what = (
        "recording is not possible there" if kind == "unsupported" else f"it did not work ({kind})"
    )
    return Failure(EXIT_IMPOSSIBLE, what, target.name, text or "see `pymemtrace doctor`")


def attach_words(args: argparse.Namespace) -> list[str]:
    """The command line again, for a helper; sys.argv is not ours where main() is called."""
    words = ["attach", str(args.pid), "--timeout", f"{args.timeout:f}", "--method", args.method]
    if args.duration:
        words += ["--duration", f"{args.duration:f}"]
    if args.output is not None:
        words += [f"--output={args.output}"]
    words += [f"--max-memory={args.max_memory}"] if args.max_memory else []
    words += [f"--max-size={args.max_size}"] if args.max_size else []
    words += [f"--sample={args.sample}"] if args.sample else []
    words += [] if args.box is None else [f"--box={args.box}"]
    words += [] if args.max_overhead is None else [f"--max-overhead={args.max_overhead:f}"]
    for name in ("force", "quiet", "verbose", "full", *FULL_ONLY):
        words += [f"--{name.replace('_', '-')}"] if getattr(args, name) else []
    return words


def mode_words(args: argparse.Namespace) -> dict[str, object]:
    """How it is recorded, as arguments of start() (_ext/attend.c knows their names)."""
    if args.box and (args.full or args.max_size):
        raise Failure(
            EXIT_USAGE, "a file of fixed size is for samples, and its size is its limit", "--box",
            "leave out --full and --max-size",
        )  # fmt: skip
    if args.full:
        if args.max_overhead:
            raise Failure(
                EXIT_USAGE, "a full recording cannot do less", "--max-overhead", "leave out --full"
            )
        return {
            "events": int(args.events),
            "native_traces": int(args.native),
            "async_parents": int(args.async_parents),
        }
    extra = [f"--{name.replace('_', '-')}" for name in FULL_ONLY if getattr(args, name)]
    if extra:
        raise Failure(
            EXIT_USAGE, "samples have no event log, no native stacks and no awaiting tasks",
            extra[0], "add --full, which records every allocation, or leave it out",
        )  # fmt: skip
    args.sample = args.sample or SAMPLE_BYTES
    return {
        "sample_bytes": args.sample,
        "box_bytes": box_bytes(args),
        "max_overhead_ppm": max_overhead_ppm(args),
    }


def run(args: argparse.Namespace) -> int:
    mode = mode_words(args)
    target = Target(args.pid)
    path = output_path(args, target)
    _helper.go_on(target, args.python, attach_words(args))
    if os.path.lexists(path) and not args.force:
        raise refusal(target, {"kind": "exists"}, path)
    words = request("attach", target) | {
        "path": path,
        "duration_s": repr(args.duration),
        "force": int(args.force),
        "max_memory_bytes": args.max_memory,
        "max_size_bytes": args.max_size,
        **mode,
    }
    before = what_was_there(target)
    answer = ask(args, target, words)
    if not args.quiet:
        show(args, target, path, before, answer)
    return 0


def what_was_there(target: Target) -> str:
    """How old the process is and what it has."""
    with open("/proc/uptime", encoding="ascii") as file:
        now_s = float(file.read().split()[0])
    with open(f"/proc/{target.pid}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    age_s = max(now_s - target.status.start_ticks / os.sysconf("SC_CLK_TCK"), 0)
    size = _format.size(pages * os.sysconf("SC_PAGESIZE"))
    return f"{_format.duration(age_s)} after its start, with {size} of resident memory"


def show(
    args: argparse.Namespace, target: Target, path: str, before: str, answer: dict[str, str]
) -> None:
    how = "every allocation" if args.full else f"a sample per {_format.size(args.sample)}"
    print(f"recording {target.name} into {path}: {how}")
    blocks = _format.count(int(answer.get("blocks", "0")))
    print(f"attached {before}, {blocks} blocks of Python's; what was there is not in the capture")
    if args.duration:
        print(f"it ends by itself after {_format.duration(args.duration)}")
    else:
        print(f"it ends by `pymemtrace detach {target.pid}`, or with the process")
