"""The process that `attach` and `detach` are to reach: what it is, and why it cannot be reached."""

import os
import pwd
from dataclasses import dataclass

from pymemtrace.cli import _elf, _format
from pymemtrace.cli._failure import EXIT_IMPOSSIBLE, EXIT_USAGE, Failure

SUPPORTED = ((3, 11), (3, 15))  # first and last
FORMER = ("_PyRuntime", "PyRun_SimpleString", "PyRun_SimpleStringFlags")
YAMA = "/proc/sys/kernel/yama/ptrace_scope"
SUPPORTED_TEXT = "PyMemTrace attaches to CPython 3.11 to 3.15, with a GIL"
CORE_NAME = "/_core."

PTRACE_REMEDIES = {
    "1": "run it as root or with CAP_SYS_PTRACE, or allow it: sysctl kernel.yama.ptrace_scope=0",
    "2": "run it as root or with CAP_SYS_PTRACE (kernel.yama.ptrace_scope is 2)",
    "3": "the kernel allows it to nobody (kernel.yama.ptrace_scope is 3): start the program by"
    " `pymemtrace run` instead",
}
PTRACE_REMEDY = (
    "run it as the user of the process or as root; in a container, with --cap-add=SYS_PTRACE"
)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def impossible(what: str, where: object, remedy: str) -> Failure:
    return Failure(EXIT_IMPOSSIBLE, what, where, remedy)


def ptrace_remedy() -> str:
    try:
        with open(YAMA, encoding="ascii") as file:
            return PTRACE_REMEDIES.get(file.read().strip(), PTRACE_REMEDY)
    except OSError:
        return PTRACE_REMEDY


@dataclass(frozen=True)
class Status:
    """What /proc/PID/stat and status say at one moment."""

    state: str
    start_ticks: int
    uid: int  # the ones that count for files
    gid: int
    groups: list[int]
    tracer: int
    pid_inside: int  # what the process takes for its own id
    threads: int


def read_status(pid: int) -> Status:
    """Raises OSError if there is no such process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    with open(f"/proc/{pid}/status", "rb") as file:
        lines = dict(line.partition(b":")[::2] for line in file.read().splitlines())
    ids = lines.get(b"NSpid", str(pid).encode()).split()
    return Status(
        fields[0].decode(), int(fields[19]), int(lines[b"Uid"].split()[3]),
        int(lines[b"Gid"].split()[3]), [int(group) for group in lines[b"Groups"].split()],
        int(lines[b"TracerPid"]), int(ids[-1]), int(lines[b"Threads"]),
    )  # fmt: skip


class Target:
    """A running CPython that can be recorded. Raises Failure, which says why not."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._check_state()
        self.words = self._read_words()
        self._check_user()
        try:
            self.memory = _elf.Memory(pid)
            os.stat(f"/proc/{pid}/root")
            self.look_again()
        except PermissionError:
            raise impossible(
                "no right to look into the process", self.name, ptrace_remedy()
            ) from None
        except OSError:
            raise self.gone() from None
        self.python, self.version = self._find_python()
        self.runtime = self.python.symbol("_PyRuntime") or 0

    @property
    def name(self) -> str:
        """For a message: the process and what runs in it."""
        words = " ".join(self.words) if hasattr(self, "words") else ""
        text = _format.clean(words)
        if len(text) > 60:
            text = text[:59] + "…"
        return f"process {self.pid}" + (f" ({text})" if text else "")

    def gone(self) -> Failure:
        return Failure(
            EXIT_USAGE, "the process has ended", self.name, "give the id of a process that runs"
        )

    def _check_state(self) -> None:
        try:
            self.status = read_status(self.pid)
        except (OSError, ValueError, IndexError, KeyError):
            raise Failure(
                EXIT_USAGE, "there is no such process", f"process {self.pid}",
                "give the id of a Python process, as `ps` or `pgrep -a python` shows it",
            ) from None  # fmt: skip
        if self.status.state in "ZXx":
            raise self.gone()
        if self.status.state in "Tt" and not self.status.tracer:
            raise impossible(
                "the process is stopped", self.name, f"let it go on first: kill -CONT {self.pid}"
            )
        if self.status.tracer:
            raise impossible(
                f"process {self.status.tracer} traces it already, as a debugger does", self.name,
                "end that first",
            )  # fmt: skip
        if self.pid == os.getpid():
            raise Failure(
                EXIT_USAGE, "that is this command itself", self.name, "give the id of another one"
            )

    def _read_words(self) -> list[str]:
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb") as file:
                raw = file.read().removesuffix(b"\0")
        except OSError:
            return []
        return [os.fsdecode(word) for word in raw.split(b"\0")] if raw else []

    def _check_user(self) -> None:
        if os.geteuid() not in (0, self.status.uid):
            raise impossible(
                f"it is a process of another user, {user_name(self.status.uid)}", self.name,
                f"attach as that user or as root: sudo -u '#{self.status.uid}' ...",
            )  # fmt: skip

    def look_again(self) -> None:
        """What is loaded now."""
        self.areas = _elf.mappings(self.pid)
        self.objects = _elf.objects(self.memory, self.areas)

    def check(self) -> None:
        """Is it still the same process, and does it still run?"""
        try:
            now = read_status(self.pid)
        except (OSError, ValueError, IndexError, KeyError):
            raise self.gone() from None
        if now.start_ticks != self.status.start_ticks or now.state in "ZXx":
            raise self.gone()

    def children(self) -> set[int]:
        found: set[int] = set()
        try:
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/children", encoding="ascii") as file:
                    found.update(map(int, file.read().split()))
        except OSError:
            pass  # it ends; or a thread of it does
        return found

    # --- which Python --------------------------------------------------------------------------

    def _find_python(self) -> tuple[_elf.Object, tuple[int, int]]:
        def rank(loaded: _elf.Object) -> int:
            return 0 if "python" in os.path.basename(loaded.path) else 1

        for loaded in sorted(self.objects, key=rank):
            address = loaded.symbol("Py_Version")
            if address is not None:
                number = self.memory.number(address, 4)
                version = number >> 24, number >> 16 & 0xFF
                if not SUPPORTED[0] <= version <= SUPPORTED[1]:
                    raise self._unsupported(f"CPython {version[0]}.{version[1]}")
                self._check_gil(loaded, version)
                return loaded, version
        for loaded in self.objects:
            if any(loaded.symbol(name) is not None for name in FORMER):
                raise self._unsupported("a CPython older than 3.11")
        raise Failure(
            EXIT_USAGE, "the process does not run Python", self.name,
            "give the id of a Python process, as `pgrep -a python` shows it",
        )  # fmt: skip

    def _unsupported(self, what: str) -> Failure:
        return impossible(f"it runs {what}", self.name, SUPPORTED_TEXT)

    def _check_gil(self, loaded: _elf.Object, version: tuple[int, int]) -> None:
        runtime = loaded.symbol("_PyRuntime")
        if version < (3, 13) or runtime is None:
            return
        head = self.memory.read(runtime, 24)
        if head[:8] == b"xdebugpy" and int.from_bytes(head[16:24], "little"):
            raise self._unsupported("a free-threaded CPython")

    def symbol(self, name: str, where: list[_elf.Object] | None = None) -> int | None:
        for loaded in [self.python] if where is None else where:
            address = loaded.symbol(name)
            if address is not None:
                return address
        return None

    # --- where it lives ------------------------------------------------------------------------

    def sees(self, path: str) -> bool:
        """Is it the same file or folder there under the same name?"""
        try:
            theirs = os.stat(f"/proc/{self.pid}/root{path}")
            ours = os.stat(path)
        except OSError:
            return False
        return os.path.samestat(theirs, ours)

    def _check_readable(self, files: list[str]) -> None:
        """Another user may not be able to read what root can."""
        if os.geteuid() != 0 or self.status.uid == 0:
            return
        child = os.fork()
        if child == 0:
            try:
                os.setgroups(self.status.groups)
                os.setresgid(self.status.gid, self.status.gid, self.status.gid)
                os.setresuid(self.status.uid, self.status.uid, self.status.uid)
                for path in files:
                    os.close(os.open(path, os.O_RDONLY))
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1] != 0:
            raise impossible(
                f"its user, {user_name(self.status.uid)}, cannot read this installation",
                os.path.dirname(_format.clean(files[0])),
                "install pymemtrace-profiler where that user may read it",
            )  # fmt: skip

    def check_package(self, files: list[str]) -> None:
        """Can it load what we want it to load?"""
        for path in files:
            if not self.sees(path):
                raise impossible(
                    "it lives in another container, which does not have this installation",
                    self.name,
                    "install pymemtrace-profiler there and attach from within: docker exec ...,"
                    f" or nsenter -t {self.pid} -a",
                )
        self._check_readable(files)
        ours = os.stat(files[0])
        for area in self.areas:
            if "/pymemtrace" + CORE_NAME in area.path and area.file[1] != ours.st_ino:
                raise impossible(
                    "it has loaded another installation or version of pymemtrace", self.name,
                    f"use that one, of {os.path.dirname(_format.clean(area.path))}",
                )  # fmt: skip
