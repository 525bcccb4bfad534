"""The command line. One command is one file in this folder.

A command's module has

    HELP: str                                  one line for `pymemtrace --help`
    register(subparsers) -> None               adds its parser, of the module's name
    run(args: argparse.Namespace) -> int       does it and returns the exit status

Modules whose name begins with an underscore are no commands. Only the chosen command is imported:
`run` shares the process with the program that it records, where an import is start-up time and
memory that the program would not have.

Exit statuses: 0 done; 1 a check failed; 2 bad usage; 3 unreadable or damaged input; 4 not possible
here. `run` passes the program's own status on.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import cast

import pymemtrace
from pymemtrace.cli._failure import EXIT_IMPOSSIBLE, EXIT_INPUT, EXIT_USAGE, Failure, drop_stdout

EXIT_INTERRUPTED = 130  # as a shell reports SIGINT


def command_names() -> list[str]:
    """The commands that are installed, by the files of this folder."""
    names = (
        entry.name.removesuffix(".py")
        for path in __path__
        for entry in os.scandir(path)
        if entry.name.endswith(".py")
    )
    return sorted(name for name in names if not name.startswith("_"))


def load(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def build_parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """A parser that knows the named commands, whose modules it imports."""
    parser = argparse.ArgumentParser(prog="pymemtrace", description=pymemtrace.__doc__)
    parser.add_argument(
        "--version", action="version", version=f"pymemtrace {pymemtrace.__version__}"
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in names:
        load(name).register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that argv names (default: sys.argv) and returns its exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    names = command_names()
    # --help, --version and mistakes need every parser, a command only its own.
    chosen = args[:1] if args[:1] and args[0] in names else names
    namespace = build_parser(chosen).parse_args(args)
    # What captures hold is not always encodable: no report may fail because of a name.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = cast(int, load(namespace.command).run(namespace))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has seen enough
        drop_stdout()
        return 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Failure as failure:
        status, text = failure.status, str(failure)
    except pymemtrace.UnsupportedError as error:
        status, text = EXIT_IMPOSSIBLE, str(error)
    except pymemtrace.CaptureExistsError as error:
        status, text = EXIT_USAGE, str(error)
    except pymemtrace.PymemtraceError as error:
        status, text = EXIT_INPUT, str(error)
    except OSError as error:
        status = EXIT_USAGE
        text = f"cannot write ({error.strerror or error}): standard output: see where it goes"
        # What is left in the buffer would fail again, with a traceback, at exit.
        drop_stdout()
    print(f"pymemtrace: {text}", file=sys.stderr)
    return status
