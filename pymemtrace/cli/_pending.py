"""The main thread's queue of pending calls, changed from outside."""

import struct

from pymemtrace import _core
from pymemtrace.cli._stub import Part, Stub
from pymemtrace.cli._target import Target, impossible

HOLD_S = 0.2  # for threads to stop
CALLS_MAX = 32  # in this queue, from 3.13 on


class NotNow(Exception):
    """It may be possible in a moment."""


class Pending:
    """The main thread's queue, after a look at whether it is where this build expects it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._memory = target.memory
        self._at = layout = _core.attach_layout()
        try:
            self._main = self._read(target.runtime + layout["runtime.main"])
            if "runtime.pending" in layout:
                self._queue = target.runtime + layout["runtime.pending"]
            else:
                self._queue = self._main + layout["interpreter.pending"]
            well = target.runtime != 0 and self._looks_right()
        except (ValueError, KeyError):
            well = False
        if not well:
            raise impossible(
                "the interpreter is not laid out as expected, or is just starting or ending",
                target.name, "attach again in a moment, with --python and its own interpreter",
            )  # fmt: skip

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

    def remote_debugging_allowed(self) -> bool:
        """-X disable-remote-debug and its environment variable, from 3.14 on."""
        at = self._at.get("interpreter.remote_debug")
        return at is None or self._read(self._main + at, 4) != 0

    def _word(self, name: str, size: int = 4) -> tuple[int, bytes]:
        address = self._queue + self._at[f"pending.{name}"]
        return address, self._memory.read(address, size)

    def ask(self, stub: Stub) -> float:
        """Seconds for which the process stood still. Raises NotNow, OSError."""
        at = self._at
        first, last, to_do = self._word("first"), self._word("last"), self._word("to_do")
        slot = int.from_bytes(last[1], "little")
        after = (slot + 1) % at["calls.count"]
        call = struct.pack("<QQ", stub.call, stub.argument)
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
        checks: list[Part] = [
            (address, found, None)
            for address, found in (first, last, to_do, free, (breaker[0], broken))
        ]
        # By one system call of a process that nobody kills by mistake. Should it end in between all
        # the same, what is there is complete: an entry that does not count yet, or one for which
        # the loop has not been told. (From 3.13 on, calls come one behind between the second and
        # the third, until the queue is used again.)
        writes: list[Part] = [
            (self._queue + at["pending.calls"] + slot * at["call.size"], None, call),
            (last[0], None, struct.pack("<i", after)),
            (to_do[0], None, struct.pack("<i", count)),
            (
                breaker[0],
                None,
                (int.from_bytes(broken, "little") | bit).to_bytes(breaker[1], "little"),
            ),
        ]
        held_s = _core.attach_exchange(self._target.pid, (*checks, *stub.parts, *writes), HOLD_S)
        if held_s is None:
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
