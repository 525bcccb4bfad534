"""A recording that the variable PYMEMTRACE starts, in any Python where this package is installed.

pymemtrace.pth, which every start of the interpreter reads, calls begin() if the variable is there.
Nothing is printed if all goes well, nothing is raised, whatever the variable says: it is text from
outside. What is wrong with it is one line on standard error, and the program runs on.

This is in the program's process, at its very start: what is imported here costs it time.
"""

import os
import sys

from pymemtrace import _boxes, _core

TYPE_CHECKING = False  # as in typing, which is not to be imported here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VARIABLE = "PYMEMTRACE"
VALUE_MAX = 4096
ON = ("1", "on", "yes", "true")
OFF = ("", "0", "off", "no", "false")

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}

SHORT_S = 1.0  # a process that ends normally within this time leaves no box
SWEEP_S = 1.0  # before a fork, the folder is looked at once in this time,
SWEEP_FORKS = 4  # or after so many forks
FILES_REPORTED = 8

# The process that multiprocessing keeps to tidy up (see _child.py).
HELPER = "from multiprocessing.resource_tracker import"
# Programs that nobody asks about, and our own.
SKIPPED = ("pymemtrace", "_launch.py", "_deaths.py", "ensurepip", "venv", "virtualenv",
           "_in_process.py", "__pip-runner__.py")  # fmt: skip


class Settings:
    sample_bytes = 512 * KIB
    box_bytes = 16 * MIB
    dir = "."
    program = ""
    keep = _boxes.KEEP
    keep_normal = _boxes.KEEP_NORMAL
    max_bytes = _boxes.MAX_BYTES
    interval_s = 1.0
    max_overhead_ppm = 20_000
    native = True
    follow = True
    signal = 0  # 0: none
    verbose = False


class Wrong(Exception):
    """A value, and what it should be."""


# --- the variable ---------------------------------------------------------------------------------


def parse(value: str) -> "tuple[Settings | None, list[str]]":
    """What the variable asks for, None for nothing, and what is wrong with it."""
    settings, problems = Settings(), []
    if value.strip().lower() in OFF:
        return None, []
    if len(value) > VALUE_MAX or not value.isprintable():
        return None, ["the value is too long or has control characters: nothing is recorded"]
    if value.strip().lower() in ON:
        return settings, []
    for word in value.split(","):
        key, separator, text = word.strip().partition("=")
        if not key and not separator:
            continue
        reader = KEYS.get(key)
        if reader is None:
            problems.append(f"unknown key {key[:40]!r}: it is one of {', '.join(sorted(KEYS))}")
            continue
        try:
            name, read = reader
            setattr(settings, name, read(text.strip() if separator else "1"))
        except Wrong as wrong:
            problems.append(f"{key}={text[:60]} {wrong}: its usual value is taken")
    return settings, problems


def size(text: str) -> int:
    """'512KiB', '512K', '16M', '1.5G', '4096': bytes, in powers of 1024. -1: it is none."""
    digits = text.lower().removesuffix("b").removesuffix("i")
    unit = digits[-1:] if digits[-1:] in UNITS else ""
    digits = digits.removesuffix(unit).strip()
    whole, _, part = digits.partition(".")
    if not (_is_number(whole) and (not part or _is_number(part))):
        return -1
    return int(float(digits) * UNITS[unit])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15


def _size_between(low: int, high: int, what: str, zero: bool = False) -> "Callable[[str], object]":
    def read(text: str) -> int:
        value = size(text)
        if not (low <= value <= high or (zero and value == 0)):
            raise Wrong(f"is no size from {what}{', or 0' if zero else ''}")
        return value

    return read


def _number_between(low: int, high: int) -> "Callable[[str], object]":
    def read(text: str) -> int:
        if not _is_number(text) or not low <= int(text) <= high:
            raise Wrong(f"is no number from {low} to {high}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1.0
    if not 0.01 <= value <= 3600:
        raise Wrong("is no number of seconds from 0.01 to 3600")
    return value


def _share(text: str) -> int:
    """A part of the CPU time, in millionths."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise Wrong("is no percentage from 0 to 100")
    return round(percent * 10_000)


def _switch(text: str) -> bool:
    if text.lower() in ON:
        return True
    if text.lower() in OFF:
        return False
    raise Wrong("is neither 1 nor 0")


def _folder(text: str) -> str:
    if not text or len(text) > 1024:
        raise Wrong("is no folder")
    return text


def _signal_number(text: str) -> int:
    import _signal  # type: ignore[import-not-found]  # builtin; `signal` brings enum along

    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if name not in ("SIGUSR1", "SIGUSR2"):
        raise Wrong("is neither SIGUSR1 nor SIGUSR2")
    return int(getattr(_signal, name))


KEYS: "dict[str, tuple[str, Callable[[str], object]]]" = {
    "sample": ("sample_bytes", _size_between(KIB, TIB, "1K to 1T")),
    "box": ("box_bytes", _size_between(MIB, GIB, "1M to 1G", zero=True)),
    "dir": ("dir", _folder),
    "program": ("program", _boxes.clean),
    "keep": ("keep", _number_between(0, 1000)),
    "keep_normal": ("keep_normal", _number_between(0, 1000)),
    "max_bytes": ("max_bytes", _size_between(MIB, TIB, "1M to 1T")),
    "max_overhead": ("max_overhead_ppm", _share),
    "interval": ("interval_s", _seconds),
    "native": ("native", _switch),
    "follow": ("follow", _switch),
    "signal": ("signal", _signal_number),
    "verbose": ("verbose", _switch),
}


# --- the start ------------------------------------------------------------------------------------


class Running:
    """The recording that this module has started."""

    def __init__(self, settings: Settings, program: str, path: str) -> None:
        import time

        self.settings = settings
        self.program = program
        self.path = path
        self.pid = os.getpid()
        self.clock = time.monotonic
        self.started_s = self.swept_s = self.clock()
        self.forks = 0


_running: Running | None = None
_begun = False


def begin() -> None:
    """Called by pymemtrace.pth, in a virtual environment twice."""
    global _begun
    if _begun:
        return
    _begun = True
    try:
        _begin(os.environ.get(VARIABLE, ""))
    except Exception as error:  # whatever it is, it is not to end the program
        say(f"nothing is recorded ({type(error).__name__}: {error}): see `pymemtrace doctor`")


def say(text: str) -> None:
    _boxes.stderr(f"{VARIABLE}: {text}")


def _begin(value: str) -> None:
    if os.geteuid() != os.getuid() or os.getegid() != os.getgid():
        return  # whose rights the program has not, could name a file for it here
    # `pymemtrace run` has preloaded its library, and records or leaves out whom it wants
    if is_skipped(sys.orig_argv) or _core.is_recording() or _core.is_preloaded():
        return
    settings, problems = parse(value)
    for problem in problems:
        say(problem)
    if settings is None:
        return
    try:
        _start(settings)
    except _boxes.Refused as refused:
        say(str(refused))
    except _core.UnsupportedError as error:
        say(f"cannot record here: {error}: see `pymemtrace doctor`")
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        say(f"cannot write the box ({why}): {settings.dir}: make room, or name another folder with"
            " dir=")  # fmt: skip


def is_skipped(words: "list[str]") -> bool:
    program = _boxes.program_of(words)
    return (
        program in SKIPPED
        or program == "pip"
        or (program.startswith("pip") and program[3:].replace(".", "").isdigit())
        or any(word.startswith(HELPER) for word in words)
    )


def _start(settings: Settings) -> None:
    global _running
    import time

    program = settings.program or _boxes.program_of(sys.orig_argv)
    folder = _boxes.Folder(os.path.abspath(settings.dir))
    try:
        deaths = _tidy(folder, program, settings, time.time())
        path = _record(folder, program, settings)
        _running = Running(settings, program, path)
        if settings.signal:
            from pymemtrace._sampling import toggle_sampling_on

            toggle_sampling_on(settings.signal)
    finally:
        folder.close()
    import atexit

    atexit.register(_at_end)
    # before, not after: the writer must not start again while os.fork counts threads (3.12+)
    os.register_at_fork(before=_forking)
    if settings.verbose:
        say(_verbose_line(settings, path))
    if deaths:
        report(folder.path, program, deaths)


def _tidy(folder: _boxes.Folder, program: str, settings: Settings, now_s: float) -> "list[str]":
    limits = _boxes.Limits(settings.keep, settings.keep_normal, settings.max_bytes)
    if not folder.lock():
        return []  # who has the lock does it
    try:
        return _boxes.tidy(folder, program, limits, now_s)
    finally:
        folder.unlock()


def _record(folder: _boxes.Folder, program: str, settings: Settings) -> str:
    """Starts the recording; returns its path."""
    while True:
        path = folder.path_of(_boxes.choose(folder, program, os.getpid()))
        try:
            _core.start(
                path,
                argv=list(sys.orig_argv),
                sample_bytes=settings.sample_bytes,
                box_bytes=settings.box_bytes,
                interval_s=settings.interval_s,
                max_overhead_ppm=settings.max_overhead_ppm,
                native=settings.native,
                # forked children; executed ones find the variable themselves
                follow="" if settings.follow else None,
                base=folder.path_of(program),
            )
            return path
        except _core.CaptureExistsError:
            if not os.path.lexists(path):
                raise


def _verbose_line(settings: Settings, path: str) -> str:
    from pymemtrace import _volume

    volume = _volume.volume_of(os.path.dirname(path))
    line = f"recording into {path}, a sample per {settings.sample_bytes >> 10} KiB"
    if volume.problem:
        line += f"; {volume.problem}: {volume.remedy}"
    return line


def report(folder: str, program: str, files: "list[str]") -> None:
    """Has a process of its own say how these processes died; it is nobody's child, so that no
    wait() of the program finds it."""
    # of an embedded interpreter it is another program
    if not os.path.basename(sys.executable or "").startswith("python"):
        return
    import _signal  # not signal, which imports more

    here = os.path.dirname(os.path.abspath(__file__))
    alone = os.path.dirname(os.path.abspath(_core.__file__)) == here
    options = ["-I"] if "PYTHONHOME" not in os.environ else []
    options += ["-S"] if alone else []
    command = [sys.executable, *options, os.path.join(here, "_deaths.py")]
    command += [folder, program, *files[:FILES_REPORTED]]
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    # the handler of a program that waits for its children need not hear of this one
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD])
    try:
        pid = os.posix_spawn(command[0], command, environment)
        os.waitpid(pid, 0)  # it forks at once and ends
    except OSError:
        pass
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


# --- later ----------------------------------------------------------------------------------------


def _forking() -> None:
    """Before each fork: a prefork server starts new workers for those that died."""
    running = _running
    if running is None:
        return
    running.forks += 1
    now_s = running.clock()
    if now_s - running.swept_s < SWEEP_S and running.forks < SWEEP_FORKS:
        return
    running.forks, running.swept_s = 0, now_s
    try:
        import time

        folder = _boxes.Folder(os.path.dirname(running.path), create=False)
        try:
            deaths = _tidy(folder, running.program, running.settings, time.time())
        finally:
            folder.close()
        if deaths:
            report(folder.path, running.program, deaths)
    except Exception:  # the folder is gone, or another's now; the program is not to hear of it
        pass


def _at_end() -> None:
    """The last exit handler."""
    running = _running
    if running is None or not _core.is_recording():
        return
    raised = hasattr(sys, "last_value") or hasattr(sys, "last_exc")
    _core.main_returned(raised)
    if raised or os.getpid() != running.pid:  # a child's box is named by the recorder
        return
    short = running.clock() - running.started_s < SHORT_S
    if short or running.settings.keep_normal == 0:
        _core.stop()
        _remove_own(running.path)


def _remove_own(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            head = _boxes.read_head(fd)
        finally:
            os.close(fd)
        if head is not None and head.number("pid") == os.getpid():
            os.unlink(path)
    except OSError:
        pass


def give_way() -> None:
    """The program records itself (pymemtrace.record): its box ends here."""
    global _running
    if _running is not None and _running.pid == os.getpid() and _core.is_recording():
        _core.stop()
        _running = None


def paths() -> "Iterator[str]":
    """The box of this process, if there is one."""
    if _running is not None and _running.pid == os.getpid():
        yield _running.path
