"""The detour of a thread that waits in a system call."""

import os
from collections.abc import Iterator

from pymemtrace import _core
from pymemtrace.cli._pending import HOLD_S, NotNow
from pymemtrace.cli._stub import Stub
from pymemtrace.cli._target import Target

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
LIBRARIES = ("libc.", "libc-", "libpthread")  # whose calls these are


def waiting_threads(target: Target) -> Iterator[tuple[int, int, int, int]]:
    """Thread id, number of the system call, stack pointer and instruction behind the call, of the
    threads that wait where a detour does no harm; the main thread first."""
    libraries = [it for it in target.objects if os.path.basename(it.path).startswith(LIBRARIES)]
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


def divert(target: Target, stub: Stub) -> float:
    """Seconds for which a thread stood still. Raises NotNow, OSError."""
    for waiting in waiting_threads(target):
        held_s = _core.attach_divert(
            target.pid, waiting, stub.detour, stub.argument, tuple(stub.parts), HOLD_S
        )
        if held_s is not None:
            return held_s
    raise NotNow
