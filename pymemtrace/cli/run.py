"""`pymemtrace run`: starts a program with the recorder in it. _launch.py does the rest."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

HELP = "run a program and record its allocations"

EXIT_USAGE = 2
EXIT_IMPOSSIBLE = 4

USAGE = "pymemtrace run [options] SCRIPT | -m MODULE | -c CODE | - [argument ...]"
EPILOG = """\
What follows SCRIPT, MODULE, CODE or - belongs to the program. The exit status is the program's own;
2 if it could not be started, 4 if recording is not possible here.
Other options of python go to python: python -I -m pymemtrace run SCRIPT.
"""

# Names and the stacks of a small program alone take some ten KiB; below this, nothing useful fits.
SAMPLE_MIN, SAMPLE_MAX = 1 << 10, 1 << 40
MIN_FILE_SIZE = 256 << 10

PRELOAD = Path(__file__).absolute().parent.parent / "_preload.so"

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """'300', '64K', '1.5G', '512MiB': bytes, in powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", text.strip().upper(), re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: write 64M, 1.5G or a number of bytes"
        )
    return int(float(match[1]) * UNITS[match[2]])


def parse_file_size(text: str) -> int:
    size = parse_size(text)
    if 0 < size < MIN_FILE_SIZE:
        raise argparse.ArgumentTypeError(
            f"{text!r} is too small for a capture: give {MIN_FILE_SIZE >> 10}K or more"
        )
    return size


def parse_sample(text: str) -> int:
    size = parse_size(text)
    if not SAMPLE_MIN <= size <= SAMPLE_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}: give 1K to 1T, for example 512K")
    return size


def parse_count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def find_target(words: Sequence[str], with_value: frozenset[str]) -> int:
    """The index of the first word that is not for us: SCRIPT, -m, -c, -, `--`, or the length.

    argparse cannot do it: it takes options of the program for ours, and `--` away.
    """
    index = 0
    while index < len(words):
        word = words[index]
        if word in ("-", "--") or not word.startswith("-") or word.startswith(("-m", "-c")):
            return index
        index += 1 + takes_next(word, with_value)
    return len(words)


def takes_next(word: str, with_value: frozenset[str]) -> bool:
    """Whether the option's value is the next word: -o, --output, and -qfo, but not -oFILE."""
    if word.startswith("--"):
        return word in with_value
    first = next((i for i, letter in enumerate(word[1:], 1) if f"-{letter}" in with_value), None)
    return first == len(word) - 1


def split_target(words: Sequence[str]) -> list[str]:
    """-mMODULE and -cCODE in one word, as python takes them, become two; `--` goes."""
    if words[:1] == ["--"]:
        return list(words[1:])
    if words and words[0][:2] in ("-m", "-c") and len(words[0]) > 2:
        return [words[0][:2], words[0][2:], *words[1:]]
    return list(words)


class RunParser(argparse.ArgumentParser):
    """Parses up to the program and leaves the rest alone, in `namespace.target`."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = sys.argv[1:] if args is None else list(args)
        with_value = frozenset(
            option
            for action in self._actions
            if action.nargs is None
            for option in action.option_strings
        )
        index = find_target(words, with_value)
        known, extra = super().parse_known_args(words[:index], namespace)
        known.target = split_target(words[index:])
        if extra:
            self.error(f"no such option: {' '.join(extra)}")
        if not known.target:
            self.error("nothing to run: give a SCRIPT, -m MODULE, -c CODE, or - for standard input")
        if known.target and known.target[0] in ("-m", "-c") and len(known.target) < 2:
            self.error(f"argument expected for {known.target[0]}")
        return known, extra


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "run",
        help=HELP,
        description="Runs a program as python would and records its allocations.",
        usage=USAGE,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # add_parser() makes parsers of the class of the main one
    parser.__class__ = RunParser
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="the capture (pymemtrace-<program>.<pid>.pmt)")
    add("-f", "--force", action="store_true", help="overwrite FILE")
    add("-q", "--quiet", action="store_true", help="do not say at the end which file was written")
    add(
        "--sample", metavar="SIZE", type=parse_sample, default=0,
        help="record samples only, one per SIZE bytes on average (512K): for production",
    )  # fmt: skip
    add("--native", action="store_true",
        help="the stacks contain the frames of C, C++ and Rust functions, too")  # fmt: skip
    add("--async-parents", action="store_true",
        help="the stacks of asyncio's tasks contain the tasks that await them")  # fmt: skip
    add("--events", action="store_true", help="also keep the log of every single event")
    add(
        "--max-memory", metavar="SIZE", type=parse_size, default=0,
        help="memory that the tables of stacks may use (64M; at least 4M is taken; default: 1G)",
    )  # fmt: skip
    add(
        "--max-size", metavar="SIZE", type=parse_file_size, default=0,
        help="size that FILE may reach (default: no limit)",
    )  # fmt: skip
    add(
        "--temporaries", metavar="N", type=parse_count, default=1,
        help="call a block temporary if it is freed within N further allocations of its thread "
             "(default: 1)",
    )  # fmt: skip
    add("--python-only", action="store_true",
        help="leave out what goes past Python's allocators: malloc and mmap")  # fmt: skip
    add("--no-follow", action="store_true",
        help="do not record children (they go into FILE's name with .<pid>.pmt)")  # fmt: skip
    add("--live", action="store_true",
        help="show it meanwhile, as `pymemtrace live`; its output goes to a file")  # fmt: skip
    add("-X", metavar="OPT", dest="x_options", action="append", default=[],
        help="as python -X OPT")  # fmt: skip
    add("-W", metavar="ARG", dest="warnings", action="append", default=[],
        help="as python -W ARG")  # fmt: skip


def interpreter_options(words: Sequence[str]) -> list[str]:
    """The options of the interpreter in the command line `words` (sys.orig_argv[1:])."""
    options: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word in ("-", "--") or not word.startswith("-"):
            break
        index += 1
        if word.startswith("--"):
            options.append(word)
            if word == "--check-hash-based-pycs":
                options += words[index : index + 1]
                index += 1
            continue
        for position, letter in enumerate(word[1:], 1):
            if letter in "mc":  # the program: ourselves
                return [*options, word[:position]] if position > 1 else options
            if letter in "XW":
                options.append(word)
                if position == len(word) - 1:
                    options += words[index : index + 1]
                    index += 1
                break
        else:
            options.append(word)
    return options


def skips_first_line(options: Sequence[str]) -> bool:
    """-x is meant for the script, but would take a line off our own file."""
    return any(re.match(r"-[^-XW]*x", option) for option in options)


def default_output(target: Sequence[str], pid: int) -> str:
    """pymemtrace-<program>.<pid>.pmt"""
    first = target[0]
    name = {"-c": "command", "-": "stdin", "-m": target[1] if len(target) > 1 else ""}.get(
        first, Path(os.path.abspath(first)).name or "root"
    )
    return f"pymemtrace-{name.replace('/', '_')}.{pid}.pmt"


def original_environment() -> dict[bytes, bytes]:
    """os.environb without what this start of the interpreter has put into the environment.

    In the C locale, the interpreter sets LC_CTYPE for its children. A second start that finds it
    set does not turn the UTF-8 mode on.
    """
    environment = dict(os.environb)
    try:
        words = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return environment
    environment.pop(b"LC_CTYPE", None)
    return environment | dict(
        word.split(b"=", 1) for word in words if word.startswith(b"LC_CTYPE=")
    )


def preload(environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The environment with our library in LD_PRELOAD, which puts back what was there before
    anything of the program runs (src/native/preload.c)."""
    library = os.fsencode(PRELOAD)
    if not os.access(library, os.R_OK):
        return environment
    if re.search(rb"[\s:]", library):  # they separate the names in LD_PRELOAD
        fd = os.open(library, os.O_RDONLY)
        os.set_inheritable(fd, True)
        library = b"/proc/self/fd/%d" % fd
    before = environment.get(b"LD_PRELOAD")
    return environment | {
        b"LD_PRELOAD": library if before is None else library + b":" + before,
        b"PYMEMTRACE_LD_PRELOAD": b"-" if before is None else b"=" + before,
    }


def fail(status: int, what: str, where: object, remedy: str) -> NoReturn:
    print(f"pymemtrace: {what}: {where}: {remedy}", file=sys.stderr)
    raise SystemExit(status)


def launch_command(args: argparse.Namespace, path: str) -> list[str]:
    """The command line that becomes the program."""
    options = interpreter_options(sys.orig_argv[1:])
    if skips_first_line(options):
        fail(EXIT_USAGE, "cannot run a program under python -x", sys.executable, "leave -x out")
    for option in args.x_options:
        options += ["-X", option]
    for warning in args.warnings:
        options += ["-W", warning]
    return [
        sys.executable,
        *options,
        str(Path(__file__).absolute().parent.parent / "_launch.py"),
        f"path={path}",
        f"force={args.force:d}",
        f"quiet={args.quiet:d}",
        f"events={args.events:d}",
        f"max_memory_bytes={args.max_memory}",
        f"max_size_bytes={args.max_size}",
        f"temporaries={args.temporaries}",
        f"native={not args.python_only:d}",
        f"native_traces={args.native:d}",
        f"async_parents={args.async_parents:d}",
        f"sample_bytes={args.sample}",
        f"follow={not args.no_follow:d}",
        f"live={args.live:d}",
        f"library={PRELOAD}",
        "--",
        *args.target,
    ]


def run(args: argparse.Namespace) -> int:
    if args.sample and (args.events or args.native or args.async_parents):
        fail(EXIT_USAGE, "samples have no event log, no native stacks and no awaiting tasks",
             "--sample", "leave out --events, --native and --async-parents")  # fmt: skip
    if not sys.executable:
        fail(EXIT_IMPOSSIBLE, "cannot find the interpreter", "sys.executable is empty",
             "start pymemtrace by the python that is to run the program")  # fmt: skip
    if args.live:
        from pymemtrace.cli._live.run import run as run_live

        return run_live(
            lambda path: execute(args, path), lambda pid: capture_path(args, pid), args.quiet
        )
    return execute(args, capture_path(args, os.getpid()))


def capture_path(args: argparse.Namespace, pid: int) -> str:
    """pid: of the process that becomes the program, and keeps its id."""
    try:
        return str(Path(args.output or default_output(args.target, pid)).absolute())
    except OSError as error:
        fail(EXIT_USAGE, f"no current directory ({error.strerror})", args.output or ".",
             "give the capture's absolute path with -o")  # fmt: skip


def execute(args: argparse.Namespace, path: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    environment = original_environment()
    if not (args.python_only and args.no_follow):
        environment = preload(environment)
    try:
        os.execve(sys.executable, launch_command(args, path), environment)
    except OSError as error:
        fail(EXIT_IMPOSSIBLE, f"cannot start the interpreter ({error.strerror})", sys.executable,
             "start pymemtrace by another python")  # fmt: skip
