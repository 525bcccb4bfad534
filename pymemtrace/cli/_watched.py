"""`pymemtrace run --rules … --metrics …`: the program as a child, the watcher as its parent.

As for `run --live`, the program depends on nothing of ours: it has the terminal and all that it
inherits, and goes on if the watcher is killed. The watcher passes signals on, ends when the program
does, and has its exit status: so it can say how a program ended that could not say it itself.
"""

import argparse
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from pymemtrace._watch.follow import Targets
from pymemtrace.cli import watch
from pymemtrace.cli._failure import EXIT_USAGE, Failure
from pymemtrace.cli._live.run import Child, leave, wait_for_capture

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def run(
    execute: Callable[[str], object], path_of: Callable[[int], str], args: argparse.Namespace
) -> int:
    """execute: becomes the program that writes this capture. path_of: the capture of a pid."""
    if args.metrics is not None:
        try:
            args.metrics = watch.parse_address(args.metrics)
        except argparse.ArgumentTypeError as error:
            raise Failure(
                EXIT_USAGE, "no such address", str(error).partition(":")[0].strip("'"),
                "give a port, or HOST:PORT, as 127.0.0.1:9209",
            ) from None  # fmt: skip
    watch.check_exports(args)
    if args.rules:
        watch.load_rules(args.rules)
    # no signal may come between the fork and the handler that passes it on
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            execute(path_of(os.getpid()))
        finally:
            os._exit(4)
    child = Child(pid, path_of(pid), "")
    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, frame: pass_on(child, number, frame))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        if wait_for_capture(child):
            look_on(child, args)
    except Exception as error:  # the program goes on, and its status is still to be passed on
        watch.say(f"the watching ended ({type(error).__name__}: {error})")
    while not child.poll():
        time.sleep(0.05)
    return leave(child)


def pass_on(child: Child, number: int, frame: FrameType | None) -> None:
    # Not child.kill(): it may interrupt the very waitpid() that it would call. The terminal sends
    # Ctrl-C to the program as well.
    if child.status is None and (number != signal.SIGINT or not in_foreground()):
        try:
            os.kill(child.pid, number)
        except ProcessLookupError:
            pass


def in_foreground() -> bool:
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)


def look_on(child: Child, args: argparse.Namespace) -> None:
    """Whatever goes wrong here is said, and leaves the program alone."""

    def status_of(pid: int) -> str:
        if pid != child.pid:
            return ""
        if child.status is None:  # its remains wait for us
            child.status = os.waitpid(pid, 0)[1]
        return status_text(child.status)

    targets = Targets([child.capture], [], watch.say, own_pid=child.pid, status_of=status_of)
    try:
        watcher = watch.make(targets, args, lenient=True)
    except Failure as failure:
        watch.say(f"{failure}: the program is not watched")
        return
    try:
        watcher.run(watch.INTERVAL_S, threading.Event(), until=child.poll)
    finally:
        watcher.close()


def status_text(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
