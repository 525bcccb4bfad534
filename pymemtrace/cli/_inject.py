"""Three ways to have a line of Python run in a process that runs already (design/009-attach.md).

remote-exec  CPython 3.14 and later offer it (PEP 768): the script of a Control runs when the main
             thread comes to a safe point.
pending      The same safe point in older versions: the queue of Py_AddPendingCall. The entry is
             written while all threads stand still and nobody is at the queue; no code of the
             process runs meanwhile.
divert       For a main thread that does not come to a safe point. A thread that waits in a system
             call, holding none of the C library's locks, makes a detour on its way back: it loads
             _attend.so, which starts a thread that waits for the GIL.
"""

import os
import struct
import sys
import time
from collections.abc import Iterator

from pymemtrace import _core
from pymemtrace.cli import _elf
from pymemtrace.cli._control import Control
from pymemtrace.cli._failure import Failure
from pymemtrace.cli._target import Target, impossible, ptrace_remedy

HOLD_S = 1.0  # for threads to stop
PATIENCE_S = 0.7  # for the main thread to come to a safe point, before a detour is tried
POLL_S = 0.01
AGAIN_S = 0.25
LATE_S = 5.0  # for an answer once the request was taken
CALLS_MAX = 32  # in the main thread's queue, from 3.13 on
STACK_MIN = 64 << 10  # what loading a library may need

# Waiting in them, a thread holds no lock of malloc or of the loader. The loader itself reads files,
# by code of its own: it is told by the address of the call.
CALLS = {
    0: "read", 1: "write", 7: "poll", 23: "select", 34: "pause", 35: "nanosleep", 42: "connect",
    43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 61: "wait4",
    73: "flock", 128: "rt_sigtimedwait", 130: "rt_sigsuspend", 230: "clock_nanosleep",
    232: "epoll_wait", 247: "waitid", 270: "pselect6", 271: "ppoll", 281: "epoll_pwait",
    288: "accept4", 299: "recvmmsg", 441: "epoll_pwait2",
}  # fmt: skip
FUTEX, FUTEX_WAIT_BITSET, FUTEX_CMD_MASK = 202, 9, ~(128 | 256)  # semaphores and conditions
LIBRARY = os.path.join(os.path.dirname(os.path.abspath(_core.__file__)), "_attend.so")


class NotNow(Exception):
    """It may be possible in a moment."""


def no_right(target: Target) -> Failure:
    return impossible("no right to trace the process", target.name, ptrace_remedy())


def room_for(target: Target, size: int, avoid_loader: bool = True) -> int:
    """The address of so many unused zeros in mapped code."""
    for loaded in target.objects:
        if avoid_loader and os.path.basename(loaded.path).startswith("ld-"):
            continue
        for start, end in loaded.room():
            if end - start >= size:
                return start
    raise impossible(
        "no room for a few bytes in any loaded library", target.name,
        "attach by another --method, or start the program by `pymemtrace run`",
    )  # fmt: skip


# --- the queue of pending calls -----------------------------------------------------------------


class Pending:
    """The main thread's queue, after a look at whether it is where this build expects it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._memory = target.memory
        self._at = layout = _core.attach_layout()
        self._function = target.symbol("PyRun_SimpleString") or 0
        try:
            self._main = self._read(target.runtime + layout["runtime.main"])
            if "runtime.pending" in layout:
                self._queue = target.runtime + layout["runtime.pending"]
            else:
                self._queue = self._main + layout["interpreter.pending"]
            well = self._function != 0 and target.runtime != 0 and self._looks_right()
        except (ValueError, KeyError):
            well = False
        if not well:
            raise impossible(
                "the interpreter is not laid out as expected, or is just starting or ending",
                target.name, "attach again in a moment, with --python and its own interpreter",
            )  # fmt: skip
        self._text = 0

    def _read(self, address: int, size: int = 8) -> int:
        return self._memory.number(address, size)

    def _looks_right(self) -> bool:
        """Fields on both sides of the queue are what they must be."""
        at, target = self._at, self._target
        modules = self._read(self._main + at["interpreter.modules"])
        head = self._read(self._main + at["interpreter.head"])
        first, last = (
            self._read(self._queue + at[f"pending.{end}"], 4) for end in ("first", "last")
        )
        right = (
            self._read(modules + 8) == target.symbol("PyDict_Type")
            and self._read(head + at["thread.interpreter"]) == self._main
            and max(first, last) < at["calls.count"]
            and self._read(self._queue + at["pending.to_do"], 4) <= at["calls.count"]
        )
        if "runtime.main_thread" not in at:
            return (
                right
                and self._read(self._main + at["interpreter.runtime"]) == target.runtime
                and self._read(self._main + at["interpreter.breaker"], 4) <= 1
                and self._read(self._read(self._queue + at["pending.lock"])) & 0xFFFFFFFF <= 1
            )
        thread = self._read(target.runtime + at["runtime.main_thread"])
        _, finalizing, head_at = struct.unpack("<QQQ", self._memory.read(target.runtime + 24, 24))
        return (
            right
            and (finalizing, head_at) == (at["runtime.finalizing"], at["runtime.head"])
            and self._read(thread + at["thread.interpreter"]) == self._main
            and self._read(thread + at["thread.native_id"]) == target.status.pid_inside
            and self._read(self._queue + at["pending.max"]) == CALLS_MAX  # and the next field is 0
        )

    def _word(self, name: str, size: int = 4) -> tuple[int, bytes]:
        address = self._queue + self._at[f"pending.{name}"]
        return address, self._memory.read(address, size)

    def ask(self, line: bytes) -> float:
        """Seconds for which the process stood still. Raises NotNow, OSError."""
        at = self._at
        if not self._text:
            self._text = room_for(self._target, len(line))
        first, last, to_do = self._word("first"), self._word("last"), self._word("to_do")
        slot = int.from_bytes(last[1], "little")
        after = (slot + 1) % at["calls.count"]
        call = struct.pack("<QQ", self._function, self._text)
        checks: list[tuple[int, bytes | None, bytes | None]]
        writes: list[tuple[int, bytes | None, bytes | None]]
        if "runtime.main_thread" in at:
            if int.from_bytes(to_do[1], "little") >= CALLS_MAX:
                raise NotNow
            call += bytes(at["call.size"] - len(call))
            thread = self._read(self._target.runtime + at["runtime.main_thread"])
            breaker = thread + at["thread.breaker"], 8
            free = self._queue + at["pending.lock"], bytes(1)
            count = int.from_bytes(to_do[1], "little") + 1
            bit = at["calls.bit"]
        else:
            if after == int.from_bytes(first[1], "little"):
                raise NotNow
            breaker = self._main + at["interpreter.breaker"], 4
            free = self._read(self._queue + at["pending.lock"]), struct.pack("<Q", 1)
            count = bit = 1
        broken = self._memory.read(*breaker)
        checks = [
            (address, found, None)
            for address, found in (first, last, to_do, free, (breaker[0], broken))
        ]
        text = (self._text, bytes(len(line)), line)
        writes = [
            (self._queue + at["pending.calls"] + slot * at["call.size"], None, call),
            (last[0], None, struct.pack("<i", after)),
            (to_do[0], None, struct.pack("<i", count)),
            (
                breaker[0],
                None,
                (int.from_bytes(broken, "little") | bit).to_bytes(breaker[1], "little"),
            ),
        ]
        held_s = _core.attach_exchange(self._target.pid, (*checks, text, *writes), HOLD_S)
        if held_s is None:
            self._text = 0
            raise NotNow
        return held_s

    def remind(self) -> None:
        """The interpreter may lose the word that there is something to do, as it may that of
        Py_AddPendingCall; it finds out with the next one."""
        at = self._at
        if "runtime.main_thread" in at or not self._read(self._queue + at["pending.to_do"], 4):
            return
        address = self._main + at["interpreter.breaker"]
        _core.attach_exchange(self._target.pid, ((address, None, struct.pack("<i", 1)),), HOLD_S)


# --- the detour of a waiting thread -------------------------------------------------------------

# -2: the call is restarted; 0: it is not. Both save everything and remember where to go on.
#     jmp restarted | lea rsp,[rsp-128]; push [normal]; jmp both | lea rsp,[rsp-128]; push [again]
# both: pushfq; push rax rcx rdx rbx rsi rdi rbp r8 … r15; cld; mov rbp,rsp; and rsp,-16
#     call [errno_location]; mov rbx,rax; mov r12d,[rax]
#     lea rdi,[library]; mov esi,2; call [dlopen]; test rax,rax; jz out
#     mov rdi,rax; lea rsi,[name]; call [dlsym]; test rax,rax; jz out
#     lea rdi,[line]; call rax
# out: mov [rbx],r12d; mov rsp,rbp; pop r15 … rax; popfq; pop r11; lea rsp,[rsp+128]; jmp r11
# A system call changes rcx and r11, so nobody misses what was in r11.
PUSHES = bytes.fromhex("50515253565755") + bytes.fromhex("41504151415241534154415541564157")
POPS = bytes.fromhex("415f415e415d415c415b415a41594158") + bytes.fromhex("5d5f5e5b5a5958")


class Stub:
    """Machine code with the data behind it, for a place that is given last."""

    def __init__(self) -> None:
        self._code = bytearray()
        self._data = bytearray()
        self._places: list[tuple[int, int]] = []  # in the code: where to put a distance to data

    def code(self, text: str | bytes) -> None:
        self._code += bytes.fromhex(text) if isinstance(text, str) else text

    def with_data(self, text: str, content: bytes) -> None:
        """An instruction that ends with the distance to this."""
        self.code(text)
        self._places.append((len(self._code), len(self._data)))
        self._code += bytes(4)
        self._data += content + bytes(-len(content) % 8)

    def jump(self, text: str) -> int:
        """A short jump forward, which land() completes."""
        self.code(text + "00")
        return len(self._code)

    def land(self, at: int) -> None:
        self._code[at - 1] = len(self._code) - at

    def finish(self) -> bytes:
        start = -(-len(self._code) // 8) * 8
        for place, content in self._places:
            struct.pack_into("<i", self._code, place, start + content - (place + 4))
        return bytes(self._code) + bytes(start - len(self._code)) + bytes(self._data)


def detour(next_address: int, functions: list[int], library: bytes, line: bytes) -> bytes:
    """The code, with the two bytes before its entry. functions: __errno_location, dlopen, dlsym."""
    errno_location, dlopen, dlsym = (struct.pack("<Q", address) for address in functions)
    stub = Stub()
    restarted = stub.jump("eb")
    stub.code("488d642480")
    stub.with_data("ff35", struct.pack("<Q", next_address))
    both = stub.jump("eb")
    stub.land(restarted)
    stub.code("488d642480")
    stub.with_data("ff35", struct.pack("<Q", next_address - 2))
    stub.land(both)
    stub.code(b"\x9c" + PUSHES)
    stub.code("fc 4889e5 4883e4f0")
    stub.with_data("ff15", errno_location)
    stub.code("4889c3 448b20")
    stub.with_data("488d3d", library + b"\0")
    stub.code("be02000000")
    stub.with_data("ff15", dlopen)
    stub.code("4885c0")
    without_library = stub.jump("74")
    stub.code("4889c7")
    stub.with_data("488d35", b"pmt_attend\0")
    stub.with_data("ff15", dlsym)
    stub.code("4885c0")
    without_function = stub.jump("74")
    stub.with_data("488d3d", line)
    stub.code("ffd0")
    stub.land(without_library)
    stub.land(without_function)
    stub.code("448923 4889ec")
    stub.code(POPS)
    stub.code("9d 415b 488da42480000000 41ffe3")
    return stub.finish()


def waiting_threads(target: Target) -> Iterator[tuple[int, int, int, int]]:
    """Thread id, number of the system call, stack pointer and instruction behind the call, of the
    threads that wait where a detour does no harm; the main thread first."""
    libraries = [
        it
        for it in target.objects
        if os.path.basename(it.path).startswith(("libc.", "libc-", "libpthread"))
    ]
    code = [area for it in libraries for area in it.areas if area.runs]
    try:
        tasks = sorted(int(name) for name in os.listdir(f"/proc/{target.pid}/task"))
    except OSError:
        return
    for task in sorted(tasks, key=lambda task: task != target.pid):
        try:
            with open(f"/proc/{target.pid}/task/{task}/syscall", encoding="ascii") as file:
                words = file.read().split()
        except OSError:
            continue
        if len(words) != 9:  # "running", or "-1 stack next"
            continue
        number, (operation, stack, after) = int(words[0]), (int(words[i], 16) for i in (2, 7, 8))
        harmless = number in CALLS or (
            number == FUTEX and operation & FUTEX_CMD_MASK == FUTEX_WAIT_BITSET
        )
        if not harmless or not any(area.start <= after < area.end for area in code):
            continue
        area = next((a for a in target.areas if a.start <= stack < a.end), None)
        if area is None or (area.path != "[stack]" and stack - area.start < STACK_MIN):
            continue
        yield task, number, stack, after


def divert(target: Target, line: bytes) -> float:
    """Seconds for which a thread stood still. Raises NotNow, OSError."""
    target.areas = _elf.mappings(target.pid)
    target.objects = _elf.objects(target.memory, target.areas)
    libc = [
        it
        for it in target.objects
        if os.path.basename(it.path).startswith(("libc.", "libc-", "libdl"))
    ]
    functions = [target.symbol(name, libc) for name in ("__errno_location", "dlopen", "dlsym")]
    found = [address for address in functions if address is not None]
    if len(found) != len(functions):
        raise impossible(
            "it does not use the GNU C library as a shared library", target.name,
            "wait until its main thread runs Python code again, with a longer --timeout",
        )  # fmt: skip
    for task, number, stack, after in waiting_threads(target):
        code = detour(after, found, os.fsencode(LIBRARY), line)
        place = room_for(target, len(code))
        held_s = _core.attach_divert(
            target.pid, (task, number, stack, after), place + 2,
            ((place, bytes(len(code)), code),), HOLD_S,
        )  # fmt: skip
        if held_s is not None:
            return held_s
    raise NotNow


# --- the question and its answer ----------------------------------------------------------------


def remote_exec(target: Target, control: Control) -> None:
    ask = getattr(sys, "remote_exec", None)
    if ask is None:
        raise impossible(
            f"CPython {target.version[0]}.{target.version[1]} has no sys.remote_exec, 3.14 has",
            target.name,
            "leave --method out",
        )
    try:
        ask(target.pid, control.script)
    except PermissionError:
        raise no_right(target) from None
    except (OSError, RuntimeError) as error:
        raise impossible(
            f"sys.remote_exec does not work there ({error})", target.name,
            "give --method ptrace if you may go past that",
        ) from None  # fmt: skip


def revoke(target: Target, control: Control) -> None:
    """What sys.remote_exec has asked for and nobody has done yet is not to be done any more: it
    would complain of the missing script."""
    at = _core.attach_layout()
    script = os.fsencode(control.script) + b"\0"
    try:
        thread = target.memory.number(target.runtime + at["runtime.main_thread"])
        asked = thread + at["thread.asked"]
        parts = (
            (asked, struct.pack("<i", 1), None),
            (thread + at["thread.script"], script, None),
            (asked, None, bytes(4)),
        )
        if not target.memory.number(asked, 4):
            time.sleep(POLL_S)  # it may be just about to open the script
        elif _core.attach_exchange(target.pid, parts, HOLD_S) is None:
            control.keep()
    except (KeyError, ValueError, OSError):
        control.keep()


class Question:
    """One request, by one of the methods auto, remote-exec and ptrace."""

    def __init__(self, target: Target, control: Control, method: str) -> None:
        self._target = target
        self._control = control
        self._pending: Pending | None = None
        self._asked = False
        self._by_script = method == "remote-exec" or (
            method == "auto" and target.version >= (3, 14)
        )
        self._may_divert = method != "remote-exec"
        self.held_s: list[tuple[str, float]] = []

    def ask(self, timeout_s: float) -> dict[str, str]:
        """The answer. Raises Failure; then nothing was done and nothing will be."""
        try:
            return self._ask(time.monotonic() + timeout_s)
        except BaseException:
            late = None
            if not self._control.withdraw():  # too late: it is being done
                late = self._wait(time.monotonic() + LATE_S)
            if late is None:
                raise
            return late
        finally:
            if self._by_script and self._asked:
                revoke(self._target, self._control)

    def _ask(self, until: float) -> dict[str, str]:
        self._target.check()
        if self._by_script:
            remote_exec(self._target, self._control)
            self._asked = True
        else:
            self._pending = Pending(self._target)
        started = time.monotonic()
        diverted = False
        while time.monotonic() < until:
            if not self._asked:
                self._asked = self._try("pending")
            elif self._may_divert and not diverted and time.monotonic() - started > PATIENCE_S:
                diverted = self._try("divert")
            elif self._pending is not None:
                self._pending.remind()
            answer = self._wait(min(until, time.monotonic() + AGAIN_S))
            if answer is not None:
                return answer
        raise impossible(
            "it has not come to a point where it could begin", self._target.name,
            f"its main thread {self._state()}: try again, or with a longer --timeout",
        )  # fmt: skip

    def _try(self, way: str) -> bool:
        try:
            if way == "divert":
                held_s = divert(self._target, self._control.line)
            else:
                assert self._pending is not None
                held_s = self._pending.ask(self._control.line)
        except NotNow:
            return False
        except PermissionError:
            raise no_right(self._target) from None
        except OSError as error:
            if isinstance(error, TimeoutError):
                return False
            self._target.check()
            raise impossible(
                f"cannot trace the process ({error.strerror})", self._target.name, ptrace_remedy()
            ) from None
        self.held_s.append((way, held_s))
        return True

    def _wait(self, until: float) -> dict[str, str] | None:
        while True:
            answer = self._control.answer()
            if answer is not None:
                return answer
            self._target.check()
            if time.monotonic() >= until:
                return None
            time.sleep(POLL_S)

    def _state(self) -> str:
        pid = self._target.pid
        try:
            with open(f"/proc/{pid}/task/{pid}/syscall", encoding="ascii") as file:
                number = file.read().split()[0]
        except (OSError, IndexError):
            return "cannot be seen"
        if number == "running":
            return "runs code in C that does not return to Python"
        name = CALLS.get(int(number), "futex" if number == str(FUTEX) else f"number {number}")
        return f"is in the system call {name}"
