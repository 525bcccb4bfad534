"""The detour of a thread that waits in a system call.

All that it does there is to start another thread, by pthread_create, and to go on: what that one
may have to wait for (the loader, the GIL) does not keep the one that waits from its own work.
"""

import os
from collections.abc import Iterator

from pymemtrace import _core
from pymemtrace.cli import _elf
from pymemtrace.cli._pending import HOLD_S, NotNow
from pymemtrace.cli._stub import Stub
from pymemtrace.cli._target import Target

STACK_MIN = 32 << 10  # what starting a thread may need
STACK_LOOK = 1 << 20

# Waiting in them, a thread holds no lock of malloc. The loader reads files by code of its own: it
# is told by the address of the call. A signal handler, which may have come while a lock was held,
# is told by what it returns to.
CALLS = {
    0: "read", 1: "write", 7: "poll", 23: "select", 34: "pause", 35: "nanosleep", 42: "connect",
    43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 61: "wait4",
    73: "flock", 128: "rt_sigtimedwait", 130: "rt_sigsuspend", 230: "clock_nanosleep",
    232: "epoll_wait", 247: "waitid", 270: "pselect6", 271: "ppoll", 281: "epoll_pwait",
    288: "accept4", 299: "recvmmsg", 441: "epoll_pwait2",
}  # fmt: skip
FUTEX, FUTEX_WAIT_BITSET, FUTEX_CMD_MASK = 202, 9, ~(128 | 256)  # semaphores and conditions
LIBRARIES = ("libc.", "libc-", "libpthread")  # whose calls these are


# mov rax, 15 (rt_sigreturn); syscall: what the kernel lets a signal handler return to
RETURN_FROM_SIGNAL = bytes.fromhex("48c7c00f0000000f05")


def signal_returns(target: Target, code: list[_elf.Mapping]) -> set[bytes]:
    """The addresses of this, as they are found on a stack."""
    found = set()
    for area in code:
        try:
            text = target.memory.read(area.start, area.end - area.start)
        except ValueError:
            continue
        at = text.find(RETURN_FROM_SIGNAL)
        while at >= 0:
            found.add((area.start + at).to_bytes(8, "little"))
            at = text.find(RETURN_FROM_SIGNAL, at + 1)
    return found


def in_signal_handler(target: Target, stack: int, end: int, returns: set[bytes]) -> bool:
    """Or was it, on this part of its stack: then nobody knows."""
    try:
        words = target.memory.read(stack, min(end - stack, STACK_LOOK) & ~7)
    except ValueError:
        return True
    return any(words[i : i + 8] in returns for i in range(0, len(words), 8))


def waiting_threads(target: Target) -> Iterator[tuple[int, int, int, int]]:
    """Thread id, number of the system call, stack pointer and instruction behind the call, of the
    threads that wait where a detour does no harm; the main thread first."""
    libraries = [it for it in target.objects if os.path.basename(it.path).startswith(LIBRARIES)]
    code = [area for it in libraries for area in it.areas if area.runs]
    returns = signal_returns(target, code)
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
        if in_signal_handler(target, stack, area.end, returns):
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
