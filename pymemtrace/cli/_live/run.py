"""`pymemtrace run --live`: the program as a child, the viewer in the foreground.

Both cannot have the terminal. The viewer has it; what the program prints goes into a file beside
the capture, which the viewer shows, and from which it is printed when the viewer has gone: the
terminal then has what it would have had without it. The program depends on nothing of ours: a file
takes whatever it prints, and it goes on if the viewer is left or killed.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import pymemtrace
from pymemtrace._core import Reader
from pymemtrace.cli import _format
from pymemtrace.cli._live.watch import OUTPUT_BYTES, Watch, base_of
from pymemtrace.cli.live import check_terminal, check_textual

POLL_S = 0.02
REMEDY_TERMINAL = "leave --live out, and see `pymemtrace live FILE` in a terminal"


class Child:
    """The program. `status` is that of waitpid(), None as long as it runs."""

    def __init__(self, pid: int, capture: str, output: str) -> None:
        self.pid = pid
        self.capture = capture
        self.output = output
        self.status: int | None = None

    def poll(self) -> bool:
        """Whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid != 0:
                self.status = status
        return self.status is not None

    def kill(self, number: int) -> None:
        if not self.poll():
            os.kill(self.pid, number)

    def has_capture(self) -> bool:
        """Not that of an earlier run, which -f overwrites."""
        try:
            return bool(Reader(self.capture).info()["pid"] == self.pid)
        except (OSError, pymemtrace.PymemtraceError):
            return False


def run(execute: Callable[[str], object], path_of: Callable[[int], str], quiet: bool) -> int:
    """execute: becomes the program that writes this capture. path_of: the capture of a pid."""
    check_terminal("run --live", REMEDY_TERMINAL)
    check_textual()
    pid = os.fork()
    if pid == 0:
        try:
            become(execute, path_of(os.getpid()))
        finally:
            os._exit(4)
    capture = path_of(pid)
    child = Child(pid, capture, output_of(capture))
    if not wait_for_capture(child):  # there was nothing to run; what it printed says why
        show_output(child)
        if os.path.isfile(child.output):
            os.unlink(child.output)
        return leave(child)
    view(child)
    show_output(child)
    if not quiet:
        output = f"; what the program printed: {child.output}"
        told = output if os.path.exists(child.output) else ""
        print(f"pymemtrace: wrote {child.capture}{told}", file=sys.stderr)
    return leave(child)


def wait_for_capture(child: Child) -> bool:
    """False: the program has ended without one."""
    while not child.has_capture():
        if child.poll():
            return child.has_capture()
        time.sleep(POLL_S)
    return True


def output_of(capture: str) -> str:
    return f"{base_of(capture)}.out"


def become(execute: Callable[[str], object], capture: str) -> None:
    output = output_of(capture)
    try:
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    except OSError as error:
        text = f"cannot write what the program prints ({error.strerror}): {output}"
        print(f"pymemtrace: {text}: choose another capture with -o", file=sys.stderr, flush=True)
        os._exit(2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, number in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(fd, number)
    execute(capture)


def view(child: Child) -> None:
    from pymemtrace.cli._live.app import LiveApp, show

    watch = Watch([child.capture], output=child.output)
    app = LiveApp(watch, has_output=True, interrupt=lambda: child.kill(signal.SIGINT))

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.kill(number)
        if number == signal.SIGHUP:  # there is no terminal any more
            os._exit(128 + number)
        app.exit()

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    show(app)


def show_output(child: Child) -> None:
    """Prints what the program has printed, and goes on with it until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the program as well
    try:
        fd = os.open(child.output, os.O_RDONLY)
    except OSError:
        fd = os.open(os.devnull, os.O_RDONLY)
    size = os.fstat(fd).st_size
    if size > OUTPUT_BYTES:
        os.lseek(fd, size - OUTPUT_BYTES, os.SEEK_SET)
        print(f"… {_format.size(size - OUTPUT_BYTES)} before are in {child.output}", flush=True)
    while True:
        ended = child.poll()
        while text := os.read(fd, OUTPUT_BYTES):
            sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        if ended:
            break
        time.sleep(POLL_S)
    if os.fstat(fd).st_size == 0 and os.path.isfile(child.output):
        os.unlink(child.output)
    os.close(fd)


def leave(child: Child) -> int:
    """The program's status; a signal that has ended it ends us as well."""
    status = child.status or 0
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        sys.stdout.flush()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return 128 + number
    return os.waitstatus_to_exitcode(status)
