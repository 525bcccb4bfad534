"""A piece of machine code for a process that runs already: it loads our extension and calls it.

It goes where a loaded file leaves the rest of a page of code unused. It is the same for all
requests to a process and found again there; what differs is the argument, the name of a folder.
"""

import os
import random
import struct

from pymemtrace import _core
from pymemtrace.cli import _elf
from pymemtrace.cli._target import Target, impossible

CORE = os.path.abspath(_core.__file__)
NAMES, NAMES_COUNT, NAME_SIZE = "pymemtrace_attend_names", 64, 64
RTLD_NOW = 2
Part = tuple[int, bytes | None, bytes | None]  # address, expected, bytes

PUSH_ALL = (
    "50515253565755 4150415141524153 4154415541564157"  # rax rcx rdx rbx rsi rdi rbp r8 … r15
)
POP_ALL = "415f415e415d415c 415b415a41594158 5d5f5e5b5a5958"


class Assembler:
    """Instructions in hexadecimal digits, with distances to labels in them."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._labels: dict[str, int] = {}
        self._places: list[tuple[int, int, str]] = []  # where, how many bytes, to which label

    def code(self, text: str, label: str = "", size: int = 4) -> None:
        """label: the instruction ends with the distance to it."""
        self._bytes += bytes.fromhex(text)
        if label:
            self._places.append((len(self._bytes), size, label))
            self._bytes += bytes(size)

    def label(self, name: str, data: bytes = b"") -> None:
        self._labels[name] = len(self._bytes)
        self._bytes += data

    def offset(self, name: str) -> int:
        return self._labels[name]

    def finish(self) -> bytes:
        for place, size, label in self._places:
            distance = self._labels[label] - (place + size)
            self._bytes[place : place + size] = distance.to_bytes(size, "little", signed=True)
        return bytes(self._bytes)


FUNCTIONS = (
    "dlopen", "dlsym", "__errno_location", "pthread_sigmask", "pthread_create", "pthread_detach",
)  # fmt: skip
GLIBC = ("libc.", "libc-", "libdl.", "libdl-", "libpthread.", "libpthread-", "libm.", "libm-")


def assemble(functions: dict[str, int]) -> Assembler:
    """functions: the addresses of FUNCTIONS there."""
    a = Assembler()
    # A pending call: int call(void *folder). The interpreter is at a safe point, with the GIL.
    a.label("call")
    a.code("f30f1efa 488d05", "attend")  # endbr64; lea rax, [attend]
    a.code("eb", "load", 1)
    # A thread that the detour has started: void *thread(void *folder)
    a.label("thread")
    a.code("f30f1efa 488d05", "attend_thread")
    a.label("load")
    a.code("4154 4155 4883ec08")  # push r12, r13; align
    a.code("4989fd 4989c4")  # mov r13, rdi; mov r12, rax
    a.code("488d3d", "library")  # lea rdi, [library]
    a.code("be" + struct.pack("<I", RTLD_NOW).hex())  # mov esi, RTLD_NOW
    a.code("ff15", "dlopen")
    a.code("4885c0 74", "out", 1)  # test rax, rax; jz out
    a.code("4889c7 4c89e6")  # mov rdi, rax; mov rsi, r12
    a.code("ff15", "dlsym")
    a.label("out")
    a.code("4c89ef 4883c408 415d 415c")  # mov rdi, r13; all as it was
    a.code("4885c0 74", "nothing", 1)
    a.code("ffe0")  # jmp rax: what it returns is what we return
    a.label("nothing")
    a.code("c3")  # rax is 0
    # A thread on its way back from a system call: rcx is where it goes on, r11 the folder. Where
    # the kernel restarts the call, it goes back over its two bytes: the thread comes in before.
    a.code("eb", "restarted", 1)
    a.label("detour")
    a.code("eb", "both", 1)
    a.label("restarted")
    a.code("488d49fe")  # lea rcx, [rcx-2]
    a.label("both")
    a.code("488d642480 51 9c" + PUSH_ALL)  # below the red zone; push rcx, flags and all registers
    a.code("fc 4889e5 4883e4f0")  # cld; mov rbp, rsp; and rsp, -16
    # On the stack: signals to block (128 bytes), those blocked before (128), the thread (16),
    # the registers of floating-point numbers and vectors (512)
    a.code("4881ec10030000 480fae842410010000")  # sub rsp, 784; fxsave64 [rsp+272]
    a.code("4d89dd")  # mov r13, r11
    a.code("ff15", "__errno_location")
    a.code("4889c3 448b30")  # mov rbx, rax; mov r14d, [rax]
    a.code("4889e7 b910000000 4883c8ff f348ab")  # all bits of the first 128 bytes
    a.code("bf02000000 4889e6 488d942480000000")  # SIG_SETMASK, [rsp], [rsp+128]
    a.code("ff15", "pthread_sigmask")
    a.code("488dbc2400010000 31f6 488d15", "thread")  # [rsp+256], 0, thread
    a.code("4c89e9 ff15", "pthread_create")  # with r13
    a.code("85c0 75", "not_created", 1)
    a.code("488bbc2400010000 ff15", "pthread_detach")
    a.label("not_created")
    a.code("bf02000000 488db42480000000 31d2")  # SIG_SETMASK, [rsp+128], 0
    a.code("ff15", "pthread_sigmask")
    a.code("448933 480fae8c2410010000")  # mov [rbx], r14d; fxrstor64 [rsp+272]
    a.code("4889ec" + POP_ALL)  # mov rsp, rbp
    a.code("9d 415b 488da42480000000 41ffe3")  # popfq; pop r11; lea rsp, [rsp+128]; jmp r11
    for name in FUNCTIONS:
        a.label(name, struct.pack("<Q", functions[name]))
    a.label("attend", b"pymemtrace_attend\0")
    a.label("attend_thread", b"pymemtrace_attend_thread\0")
    a.label("library", os.fsencode(CORE) + b"\0")
    return a


class Stub:
    """The code in a process; `parts` writes what is not there yet."""

    def __init__(self, target: Target, folder: str) -> None:
        self._target = target
        target.look_again()
        libc = [it for it in target.objects if base_name(it).startswith(GLIBC)]
        found = {name: target.symbol(name, libc) for name in FUNCTIONS}
        functions = {name: address for name, address in found.items() if address is not None}
        if len(functions) != len(found):
            raise impossible(
                "it does not use the GNU C library as a shared library", target.name,
                "start the program by `pymemtrace run` instead",
            )  # fmt: skip
        assembler = assemble(functions)
        code = assembler.finish()
        name = os.fsencode(folder).ljust(NAME_SIZE, b"\0")
        self.parts: list[Part] = []
        base = find(target, code)
        names = next((n for it in target.objects if (n := it.symbol(NAMES)) is not None), None)
        if base is None:
            base = room(target, len(code) + (NAME_SIZE if names is None else 0))
            self.parts.append((base, bytes(len(code)), code))
        if names is not None:
            self.argument = names + random.randrange(NAMES_COUNT) * NAME_SIZE
            self.parts.append((self.argument, None, name))
        else:
            behind = base + len(code) if self.parts else room(target, NAME_SIZE)
            self.argument = behind
            self.parts.append((behind, bytes(NAME_SIZE), name))
        self.call = base + assembler.offset("call")
        self.detour = base + assembler.offset("detour")


def base_name(loaded: _elf.Object) -> str:
    return os.path.basename(loaded.path)


def stays(target: Target, loaded: _elf.Object) -> bool:
    """Is it never unloaded? The interpreter, the C library, extensions. What a program has loaded
    by itself may go, and take our code with it while somebody is to call it."""
    name = base_name(loaded)
    return (
        loaded is target.objects[0]
        or loaded.path == target.python.path
        or name.startswith(GLIBC)
        or ".cpython-3" in name
    )


def tails(target: Target) -> list[tuple[int, bytes]]:
    """What is behind the code of each file that stays."""
    return [tail for loaded in target.objects if stays(target, loaded) for tail in loaded.tails()]


def find(target: Target, code: bytes) -> int | None:
    for address, content in tails(target):
        if code in content:
            return address + content.index(code)
    return None


def room(target: Target, size: int) -> int:
    """The address of so many zeros that belong to nothing."""
    for address, content in tails(target):
        used = len(content.rstrip(b"\0"))
        start = -(-(address + used + 1) // 16) * 16
        if start + size <= address + len(content):
            return start
    raise impossible(
        "no room for a few bytes behind the code of any library", target.name,
        "start the program by `pymemtrace run` instead",
    )  # fmt: skip
