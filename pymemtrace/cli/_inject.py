"""Three ways to have a process that runs already load our extension (docs/design/009-attach.md).

pending      The main thread's next safe point: the queue of Py_AddPendingCall. The entry is written
             while all threads stand still and nobody is at the queue; no code of the process runs
             meanwhile.
divert       For a main thread that does not come to a safe point. A thread that waits in a system
             call, holding none of the C library's locks, makes a detour on its way back. There it
             starts another one, which waits for the GIL.
remote-exec  CPython 3.14 and later offer it (PEP 768): the script of a Control runs at a safe
             point. For where the first is not possible: the exception of a signal handler of the
             program that comes while the script is read is lost.
"""

import errno
import os
import struct
import sys
import time

from pymemtrace import _core
from pymemtrace.cli import _divert, _elf
from pymemtrace.cli._control import Control
from pymemtrace.cli._failure import Failure
from pymemtrace.cli._pending import HOLD_S, NotNow, Pending
from pymemtrace.cli._stub import Stub
from pymemtrace.cli._target import Target, impossible, ptrace_remedy

PATIENCE_S = 0.7  # for the main thread to come to a safe point, before a detour is tried
POLL_S = 0.01
AGAIN_S = 0.25
LATE_S = 5.0  # for an answer once the request was taken
HOLDS_MAX = 3  # times that the process is stopped, for a while, in vain

REMEDIES = {
    errno.ENOSYS: "it works on x86-64; start the program by `pymemtrace run` instead",
    errno.EIO: "the kernel does not let its code be written: start the program by `pymemtrace run`",
}


def no_right(target: Target) -> Failure:
    return impossible("no right to trace the process", target.name, ptrace_remedy())


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


def revoke_from(pid: int, target: Target, script: bytes) -> bool:
    """What sys.remote_exec has asked of a process and it has not done yet is not to be done any
    more: it would complain of the missing script. False: nobody knows."""
    at = _core.attach_layout()
    memory = _elf.Memory(pid)
    try:
        thread = memory.number(target.runtime + at["runtime.main_thread"])
        asked, place = thread + at["thread.asked"], thread + at["thread.script"]
        if memory.read(place, len(script)) != script:
            return pid != target.pid  # one that has executed another program, or was asked since
        if not memory.number(asked, 4):
            time.sleep(POLL_S)  # it may be just about to open the script
            return True
        parts = (
            (asked, struct.pack("<i", 1), None),
            (place, script, None),
            (asked, None, bytes(4)),
        )
        return _core.attach_exchange(pid, parts, HOLD_S) is not None
    finally:
        memory.close()


def revoke(target: Target, control: Control, children: set[int]) -> None:
    """children: who were forked meanwhile, and so were asked, too."""
    script = os.fsencode(control.script) + b"\0"
    for pid in (target.pid, *children):
        try:
            well = revoke_from(pid, target, script)
        except (KeyError, ValueError, OSError):
            well = not os.path.exists(f"/proc/{pid}/root/")  # it has ended
        if not well:
            control.keep()


class Question:
    """One request, by one of the methods auto, remote-exec and ptrace."""

    def __init__(self, target: Target, control: Control, method: str) -> None:
        self._target = target
        self._control = control
        self._pending: Pending | None = None
        self._asked = False
        self._vain = 0
        self._children: set[int] = set()
        self._by_script = method == "remote-exec"
        self._auto = method == "auto"
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
                revoke(self._target, self._control, self._target.children() - self._children)

    def _ask(self, until: float) -> dict[str, str]:
        self._target.check()
        if self._by_script:
            self._ask_by_script()
        else:
            self._begin()
        started = time.monotonic()
        diverted = False
        while time.monotonic() < until:
            if not self._asked:
                self._asked = self._try_pending()
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

    def _ask_by_script(self) -> None:
        self._by_script = True
        self._pending = None
        self._children = self._target.children()
        remote_exec(self._target, self._control)
        self._asked = True

    def _begin(self) -> None:
        try:
            self._pending = Pending(self._target)
        except Failure as failure:
            self._instead(failure)
            return
        if self._auto and not self._pending.remote_debugging_allowed():
            raise impossible(
                "it was started with remote debugging disabled", self._target.name,
                "give --method ptrace if you may go past that",
            )  # fmt: skip

    def _instead(self, failure: Failure) -> None:
        """Another way, where there is one."""
        if not self._auto or self._target.version < (3, 14):
            raise failure
        try:
            self._ask_by_script()
        except Failure:
            raise failure from None

    def _try_pending(self) -> bool:
        try:
            return self._try("pending")
        except Failure as failure:
            self._target.check()
            self._instead(failure)
            return True

    def _try(self, way: str) -> bool:
        try:
            if way == "divert":
                held_s = _divert.divert(self._target, Stub(self._target, self._control.path))
            else:
                assert self._pending is not None
                held_s = self._pending.ask(Stub(self._target, self._control.path))
        except NotNow:
            return False
        except PermissionError:
            raise no_right(self._target) from None
        except OSError as error:
            self._target.check()
            if not isinstance(error, TimeoutError):
                raise impossible(
                    f"cannot trace the process ({error.strerror})", self._target.name,
                    REMEDIES.get(error.errno or 0) or ptrace_remedy(),
                ) from None  # fmt: skip
            self._vain += 1
            if self._vain < HOLDS_MAX:
                return False
            raise impossible(
                "its threads cannot be stopped for a moment", self._target.name,
                "one waits for a disk or the machine is overloaded: try again later",
            ) from None  # fmt: skip
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
        name = _divert.CALLS.get(
            int(number), "futex" if number == str(_divert.FUTEX) else f"number {number}"
        )
        return f"is in the system call {name}"
