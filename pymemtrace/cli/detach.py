"""`pymemtrace detach`: ends a recording that `pymemtrace attach` has begun."""

import argparse

from pymemtrace.cli import _format, _helper, attach
from pymemtrace.cli._target import Target

HELP = "end the recording of a process that attach has begun"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("detach", help=HELP, description=HELP)
    attach.add_common(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing if it works")


def run(args: argparse.Namespace) -> int:
    target = Target(args.pid)
    words = ["detach", str(args.pid), "--timeout", f"{args.timeout:f}", "--method", args.method]
    words += [f"--{name}" for name in ("quiet", "verbose") if getattr(args, name)]
    _helper.go_on(target, args.python, words)
    answer = attach.ask(args, target, attach.request("detach", target))
    if not args.quiet:
        live = _format.size(int(answer["live_bytes"]))
        peak = _format.size(int(answer["peak_bytes"]))
        print(f"wrote {_format.clean(answer['path'])}: {live} alive, {peak} at the peak")
    return 0
