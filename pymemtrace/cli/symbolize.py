"""`pymemtrace symbolize`: look up the native frames of captures, and keep the names in them."""

import argparse

from pymemtrace.cli import _captures, _format, _options

HELP = "look up native functions and keep their names in the capture"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "symbolize",
        help=HELP,
        description=f"{HELP}. The first report does the same; on another machine, where the"
        " libraries are not, it is too late.",
    )
    _options.add_captures(parser)
    parser.add_argument(
        "--again", action="store_true",
        help="look up also what is known: debug information was installed since",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    status = 0

    def act(opened: _captures.Opened) -> None:
        nonlocal status
        resolved = opened.resolved
        for remark in resolved.remarks:
            _captures.print_note(f"{opened.name}: {_format.clean(remark)}")
        count = _format.count
        if not resolved.places:
            print(f"{opened.name}: there is nothing to look up")
            return
        text = f"{count(resolved.named)} of {count(resolved.places)} native places have a name now"
        if resolved.named and not resolved.stored:
            state = "it is still written" if opened.info["ended"] == "running" else "see its rights"
            _captures.print_note(f"{opened.name}: the names could not be kept in it: {state}")
        print(f"{opened.name}: {text}")

    return max(status, _captures.for_each(args, act))
