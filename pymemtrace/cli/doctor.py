"""`pymemtrace doctor`: what works here, what does not, and what to do about it."""

import argparse
import ctypes
import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pymemtrace
from pymemtrace import _core
from pymemtrace.cli import _captures, _format, _production
from pymemtrace.cli._check import Check
from pymemtrace.cli._failure import EXIT_IMPOSSIBLE
from pymemtrace.cli._page import make_page

HELP = "check what works here, and say what to do about what does not"

SUPPORTED = ((3, 11), (3, 15))  # first and last
OUR_DISTRIBUTION = "pymemtrace-profiler"
OTHER_DISTRIBUTION = "pymemtrace"
LITTLE_DISK_BYTES = 256 << 20
SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
MEMBARRIER_PRIVATE_EXPEDITED = 1 << 3

# A recording from start to end, in a process of its own, under the limits that hold here.
RECORDING = """\
import sys
sys.path[:0] = sys.argv[2:]
from pymemtrace import _core
_core.start(sys.argv[1], argv=["doctor"])
kept = [bytes(100) for _ in range(100)]
_core.stop()
reader = _core.Reader(sys.argv[1])
print(reader.totals()["allocations"])
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("doctor", help=HELP, description=HELP)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    checks = list(make_checks())
    works = all(check.ok for check in checks if check.needed)
    if args.json:
        _captures.print_json(
            {
                "pymemtrace": pymemtrace.__version__,
                "format": _captures.FORMAT,
                "captures": [],
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        show(checks, works)
    return 0 if works else EXIT_IMPOSSIBLE


def show(checks: list[Check], works: bool) -> None:
    page = make_page()
    page.title(f"pymemtrace {pymemtrace.__version__}, {sys.executable}")
    width = max(len(check.name) for check in checks)
    for check in checks:
        word, style = ("ok", "green") if check.ok else ("FAILS", "bold red")
        if not check.ok and not check.needed:
            word, style = "note", "yellow"
        page.line(
            [(f"  {word:<5}  ", style), (f"{check.name:<{width}}  ", "bold"), (check.detail, "")]
        )
        if not check.ok and check.remedy:
            page.line([(" " * (width + 11) + "do: ", "dim"), (check.remedy, "")])
    page.title("Recording works here." if works else "Recording does not work here.")


def make_checks() -> Iterator[Check]:
    yield check_interpreter()
    for result in _core.self_test():
        yield Check(
            result["name"], bool(result["ok"]), result["detail"], result["remedy"], needed=True
        )
    yield check_recording()
    yield check_membarrier()
    yield check_address_space()
    yield check_allocator()
    yield check_name()
    yield check_disk()
    yield check_speed()
    yield _production.check_environment()
    yield _production.check_box()
    yield _production.check_memory()


def check_interpreter() -> Check:
    version = sys.version_info[:2]
    implementation = platform.python_implementation()
    host = f"{platform.system()} {platform.machine()}"
    detail = f"{implementation} {platform.python_version()} on {host}"
    problem = ""
    if implementation != "CPython":
        problem = "only CPython can be recorded"
    elif not SUPPORTED[0] <= version <= SUPPORTED[1]:
        problem = "its version is not supported"
    elif sysconfig.get_config_var("Py_GIL_DISABLED"):
        problem = "free-threaded builds are not supported"
    elif sys.platform != "linux":
        problem = "only Linux is supported"
    return Check(
        "interpreter", not problem, f"{detail}: {problem}" if problem else detail,
        "use CPython 3.11 to 3.15, with a GIL, on Linux", needed=True,
    )  # fmt: skip


def check_recording() -> Check:
    """Records in a child process: what fails there would fail in `run`."""
    import tempfile

    # Where our package is, also if this process found it through the current directory.
    folder = str(Path(pymemtrace.__file__).parent.parent)
    core = str(Path(_core.__file__).parent.parent)
    with tempfile.TemporaryDirectory(prefix="pymemtrace-doctor-") as temporary:
        command = [
            sys.executable, "-I", "-c", RECORDING, str(Path(temporary) / "test.pmt"), core, folder,
        ]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if key != "PYMEMTRACE"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0 and done.stdout.strip().isdigit():
        count = _format.count(int(done.stdout))
        return Check("recording", True, f"a test recording held {count} allocations", needed=True)
    lines = done.stderr.strip().splitlines()
    if done.returncode < 0:
        reason = f"it ended by signal {-done.returncode}"
    else:
        reason = lines[-1].strip() if lines else f"it ended with status {done.returncode}"
    return Check(
        "recording", False, f"a test recording failed: {reason}",
        "see the other checks; if they pass, report this line to the project", needed=True,
    )  # fmt: skip


def check_membarrier() -> Check:
    """The writer halts threads by membarrier(2); without it, every hook needs a fence."""
    number = SYS_MEMBARRIER.get(platform.machine())
    have = -1
    if number is not None:
        have = ctypes.CDLL(None, use_errno=True).syscall(number, 0, 0, 0)
    ok = have > 0 and bool(have & MEMBARRIER_PRIVATE_EXPEDITED)
    return Check(
        "membarrier", ok,
        "the kernel has it" if ok
        else "the kernel lacks it or a sandbox forbids it: recording works, but is slower",
        "allow the system call membarrier (kernel 4.14 or newer; the seccomp profile)",
    )  # fmt: skip


def check_address_space() -> Check:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return Check("address space", True, "no limit (ulimit -v)")
    return Check(
        "address space", False,
        f"limited to {_format.size(limit)} (ulimit -v); the recorder reserves more than it uses",
        "raise the limit, or record with a smaller --max-memory",
    )  # fmt: skip


def check_allocator() -> Check:
    value = os.environ.get("PYTHONMALLOC", "")
    if not value:
        return Check("allocator", True, "PYTHONMALLOC is not set: the interpreter's own")
    debug = "debug" in value
    detail = f"PYTHONMALLOC={_format.clean(value)}"
    if debug:
        detail += ": slower, and the program itself needs more memory than usual"
    elif value != "pymalloc":
        detail += ": samples look into a filter at every free, which costs a little more"
    return Check("allocator", not debug, detail, "unset PYTHONMALLOC for figures as in production")


def other_files() -> list[str]:
    """Files of the distribution that is called like our package, in this environment."""
    try:
        found = importlib.metadata.distribution(OTHER_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        found = None
    files = [str(found.locate_file(""))] if found is not None else []
    over_ours = Path(pymemtrace.__file__).with_name("trace_malloc.py")
    return [*files, str(over_ours)] if over_ours.exists() else files


def check_name() -> Check:
    files = other_files()
    if not files:
        return Check("name", True, "no other distribution owns the name pymemtrace here")
    return Check(
        "name", False,
        f"the distribution '{OTHER_DISTRIBUTION}', another project, is installed in {files[0]} and"
        " writes into the same package",
        f"pip uninstall {OTHER_DISTRIBUTION} {OUR_DISTRIBUTION}, then install {OUR_DISTRIBUTION}",
    )  # fmt: skip


def check_disk() -> Check:
    try:
        folder = os.getcwd()
        free = shutil.disk_usage(folder).free
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        return Check("disk", False, f"no current directory ({error.strerror})", "change to another")
    if not writable:
        return Check(
            "disk", False, f"the current directory cannot be written: {_format.clean(folder)}",
            "give the capture's file with run -o",
        )  # fmt: skip
    return Check(
        "disk", free >= LITTLE_DISK_BYTES,
        f"{_format.size(free)} free in the current directory",
        "make room, write elsewhere with run -o, or limit the capture with --max-size",
    )  # fmt: skip


def check_speed() -> Check:
    """What makes recorded times differ from those of production."""
    reasons = []
    if sys.flags.dev_mode:
        reasons.append("development mode (-X dev)")
    if sysconfig.get_config_var("Py_DEBUG"):
        reasons.append("a debug build of the interpreter")
    if "tracemalloc" in sys._xoptions or os.environ.get("PYTHONTRACEMALLOC", "0") != "0":
        reasons.append("tracemalloc is switched on")
    try:
        cpus = len(os.sched_getaffinity(0))
    except OSError:
        cpus = os.cpu_count() or 1
    if cpus == 1:
        reasons.append("one CPU only: the recorder's writer takes time from the program")
    if reasons:
        return Check(
            "speed", False, f"slower than need be: {', '.join(reasons)}",
            "leave them out for realistic run times; the bytes are right in any case",
        )  # fmt: skip
    return Check("speed", True, f"nothing slows the recording down; {cpus} CPUs")
