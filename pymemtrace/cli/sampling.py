"""`pymemtrace sampling`: another rate for a process that is being sampled, without touching it.

The order is a small file beside the capture, which the recorder looks for before each flush: no
signal, no socket, nothing that is run. It obeys its own user and root (src/record/control.h)."""

import argparse
import os
import time

import pymemtrace
from pymemtrace import _core
from pymemtrace.cli._failure import EXIT_IMPOSSIBLE, EXIT_USAGE, Failure
from pymemtrace.cli._format import size
from pymemtrace.cli._process import capture_of, is_pid
from pymemtrace.cli.run import parse_sample

HELP = "change the rate of a sampled recording, or turn it off and on"
PATIENCE_S = 10.0


def parse_order(text: str) -> str:
    return text if text in ("off", "on") else str(parse_sample(text))


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("sampling", help=HELP, description=HELP.capitalize() + ".")
    add = parser.add_argument
    add("target", metavar="PID|CAPTURE", help="a process that is being sampled, or its capture")
    add(
        "order", metavar="SIZE|off|on", type=parse_order,
        help="one sample per SIZE bytes from now on; off: nothing new is sampled; on: again",
    )  # fmt: skip


def write_order(path: str, order: str) -> None:
    """For the process that writes this capture: it only obeys its own user and root."""
    name, owner = f"{path}.control", os.stat(path).st_uid
    temporary = f"{name}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, f"sample={order}\n".encode())
            if owner != os.geteuid():
                os.fchown(fd, owner, -1)
        finally:
            os.close(fd)
        os.replace(temporary, name)
    except OSError as error:
        raise Failure(
            EXIT_IMPOSSIBLE, f"cannot write the order ({error.strerror})", name,
            "do it as the user of the process, or as root",
        ) from None  # fmt: skip


def is_done(reader: _core.Reader, order: str, marks_before: int) -> bool:
    if order in ("off", "on"):
        labels = [mark["label"] for mark in reader.marks()]
        return f"sampling {order}" in labels[marks_before:]
    return str(reader.info()["sample_bytes_now"]) == order


def is_so_already(order: str, labels: list[str]) -> bool:
    last = [label for label in labels if label in ("sampling off", "sampling on")][-1:]
    return last == [f"sampling {order}"] or (order == "on" and not last)


def run(args: argparse.Namespace) -> int:
    path = capture_of(int(args.target)) if is_pid(args.target) else args.target
    if path is None:
        raise Failure(EXIT_USAGE, "the process is not being recorded", args.target,
             "start it with `pymemtrace run --sample SIZE`")  # fmt: skip
    info = pymemtrace.open(path).info()
    if "sample_bytes" not in info:
        raise Failure(EXIT_USAGE, "the recording is not a sampled one", path,
             "start it with `pymemtrace run --sample SIZE`")  # fmt: skip
    if info["ended"] != "running":
        raise Failure(EXIT_USAGE, "the process has ended", path, "there is nothing to be changed")
    labels = [mark["label"] for mark in _core.Reader(path).marks()]
    before = len(labels)
    if args.order in ("off", "on") and is_so_already(args.order, labels):
        print(f"sampling of process {info['pid']}: {args.order}, as it was")
        return 0
    now = str(info["sample_bytes_now"])
    write_order(path, args.order)
    end = time.monotonic() + PATIENCE_S
    while args.order != now and not is_done(_core.Reader(path), args.order, before):
        if time.monotonic() > end:
            raise Failure(EXIT_IMPOSSIBLE, f"no answer within {PATIENCE_S:.0f} s", path,
                 "the order stands beside the capture and counts from the next flush on, unless"
                 " sampling was already as you ordered it")  # fmt: skip
        time.sleep(0.05)
    what = args.order if args.order in ("off", "on") else f"one sample per {size(int(args.order))}"
    print(f"sampling of process {info['pid']}: {what}")
    return 0
