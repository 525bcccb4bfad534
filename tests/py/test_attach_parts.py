"""The parts of `attach`: the code that is put into a process, run in this one; its options."""

import argparse
import ctypes
import mmap
import os
import platform
import struct
from pathlib import Path

import pytest

from pymemtrace import _core
from pymemtrace.cli import _elf, _stub, attach, main
from pymemtrace.cli._failure import Failure

on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code for x86-64")

REGISTERS = ("rax", "rbx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r12", "r13", "r14",
             "r15")  # fmt: skip
# mov reg, [rcx+disp32]; the other direction has 89 for 8b
MOVES = dict(zip(REGISTERS, ("488b81", "488b99", "488b91", "488bb1", "488bb9", "488ba9", "4c8b81",
    "4c8b89", "4c8b91", "4c8ba1", "4c8ba9", "4c8bb1", "4c8bb9"), strict=True))  # fmt: skip
AREA = 4096
STATE = 1024  # in the area: what fxsave64 writes
RED_ZONE, STACK = 512, 520  # two words that are compared
FLAGS = 528


def address_of(buffer: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def local_function(name: str) -> int:
    found = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    assert found is not None
    return found


def visit(entry: int, argument: int, before: int, after: int, back_by: int) -> bytes:
    """A function that comes by the entry as a thread does on its way back from a system call, with
    every register from one area, and leaves what they are then in the other."""
    a = _stub.Assembler()
    a.code("53 55 4154 4155 4156 4157")  # push rbx, rbp, r12 … r15
    a.code("48b9" + struct.pack("<Q", before).hex())  # mov rcx, before
    a.code("480fae89" + struct.pack("<I", STATE).hex())  # fxrstor64 [rcx+STATE]
    a.code("4889a1" + struct.pack("<I", STACK).hex())  # mov [rcx+STACK], rsp
    for number, name in enumerate(REGISTERS):
        a.code(MOVES[name] + struct.pack("<I", 8 * number).hex())
    a.code("4c8b99" + struct.pack("<I", RED_ZONE).hex())  # mov r11, [rcx+RED_ZONE]
    a.code("4c895c24f8 4c895c2480")  # mov [rsp-8], r11; mov [rsp-128], r11
    a.code("49bb" + struct.pack("<Q", argument).hex())  # mov r11, argument
    a.code("f9 488d0d", "back")  # stc; lea rcx, [back]
    if back_by:
        a.code(f"488d49{back_by:02x}")  # lea rcx, [rcx+back_by]
    a.code("ff25", "entry")
    a.label("back")
    a.code("48b9" + struct.pack("<Q", after).hex())
    for number, name in enumerate(REGISTERS):
        a.code(MOVES[name].replace("8b", "89", 1) + struct.pack("<I", 8 * number).hex())
    a.code("4889a1" + struct.pack("<I", STACK).hex())
    a.code("9c 8f81" + struct.pack("<I", FLAGS).hex())  # pushfq; pop [rcx+FLAGS]: over [rsp-8]
    a.code("4c8b5c2480 4c8999" + struct.pack("<I", RED_ZONE).hex())
    a.code("480fae81" + struct.pack("<I", STATE).hex())
    a.code("415f 415e 415d 415c 5d 5b c3")
    a.label("entry", struct.pack("<Q", entry))
    return a.finish()


def threads() -> set[str]:
    return {path.name for path in Path("/proc/self/task").iterdir()}


def state() -> bytes:
    """Registers of floating-point numbers and vectors, as fxrstor64 reads them."""
    content = bytearray(512)
    struct.pack_into("<H", content, 0, 0x37F)
    struct.pack_into("<I", content, 24, 0x1F80 | 0x6000)  # rounds towards zero, as few programs do
    content[160:416] = bytes(range(256))  # xmm0 … xmm15
    return bytes(content)


@on_x86_64
@pytest.mark.parametrize("restarted", [False, True])
def test_a_detour_changes_no_register(restarted: bool) -> None:
    ours = _stub.assemble({name: local_function(name) for name in _stub.FUNCTIONS})
    code = mmap.mmap(-1, 16384, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    areas = [mmap.mmap(-1, AREA) for _ in range(2)]
    name = ctypes.create_string_buffer(b"/nonexistent/pymemtrace")
    base = address_of(code)
    text = ours.finish()
    code[: len(text)] = text
    for number in range(len(REGISTERS)):
        struct.pack_into("<Q", areas[0], 8 * number, 0x1111111111111111 * (number + 1))
    struct.pack_into("<Q", areas[0], RED_ZONE, 0xFEDCBA9876543210)
    areas[0][STATE : STATE + 512] = state()
    entry = base + ours.offset("detour") - 2 * restarted
    caller = visit(
        entry, ctypes.addressof(name), *map(address_of, areas), back_by=2 if restarted else 0
    )
    code[8192 : 8192 + len(caller)] = caller
    tasks = threads()
    errno = ctypes.get_errno()
    try:
        for _ in range(20):
            ctypes.PYFUNCTYPE(None)(base + 8192)()
    finally:  # the caller leaves it as it was told to: to nearest, for the tests that follow
        assert ctypes.CDLL("libm.so.6").fesetround(0) == 0
    before, after = (bytes(area) for area in areas)
    assert after[: 8 * len(REGISTERS)] == before[: 8 * len(REGISTERS)]
    assert after[RED_ZONE : STACK + 8] == before[RED_ZONE : STACK + 8]
    assert after[STATE + 24 : STATE + 28] == before[STATE + 24 : STATE + 28]
    assert after[STATE + 160 : STATE + 416] == before[STATE + 160 : STATE + 416]
    assert struct.unpack_from("<Q", after, FLAGS)[0] & 0x401 == 1  # carry as it was; forward
    assert ctypes.get_errno() == errno
    for _ in range(200):  # the threads find nothing to do and end
        if threads() <= tasks:
            break
        ctypes.CDLL(None).usleep(10_000)
    assert threads() <= tasks


@on_x86_64
def test_a_call_without_a_request_does_nothing() -> None:
    ours = _stub.assemble({name: local_function(name) for name in _stub.FUNCTIONS})
    text = ours.finish()
    code = mmap.mmap(-1, 8192, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code[: len(text)] = text
    call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_char_p)
    assert call(address_of(code) + ours.offset("call"))(b"/nonexistent/pymemtrace") == 0
    assert not _core.is_recording()


def test_symbols_of_a_loaded_object() -> None:
    areas = _elf.mappings(os.getpid())
    memory = _elf.Memory(os.getpid())
    loaded = _elf.objects(memory, areas)
    core = next(it for it in loaded if Path(it.path).name.startswith("_core."))
    names = core.symbol(_stub.NAMES)
    assert names is not None
    assert any(area.start <= names < area.end for area in areas)
    assert core.symbol("pymemtrace_attend") is not None
    assert core.symbol("no_such_name") is None
    for it in loaded:
        for start, content in it.tails():
            assert len(content) < _elf.PAGE
            assert (start + len(content)) % _elf.PAGE == 0
    memory.close()


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 4090])
def test_damaged_headers(content: bytes, tmp_path: Path) -> None:
    class Some(_elf.Memory):
        def __init__(self) -> None:
            pass

        def read(self, address: int, size: int) -> bytes:
            found = content[address : address + size]
            if len(found) != size:
                raise ValueError("no memory")
            return found

    area = _elf.Mapping(0, 4096, "r-xp", 0, ("0:1", 1), "x")
    damaged = _elf.Object(Some(), "x", [area])
    assert damaged.symbol("Py_Version") is None
    assert list(damaged.tails()) == []


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    attach.register(parser.add_subparsers())
    return parser.parse_args(["attach", "1", *words])


def test_samples_are_the_default() -> None:
    usual = {"sample_bytes": 512 << 10, "box_bytes": 16 << 20, "max_overhead_ppm": 20_000}
    assert attach.mode_words(options()) == usual
    assert attach.mode_words(options("--sample", "64K", "--box", "1M", "--max-overhead", "0")) == {
        "sample_bytes": 64 << 10, "box_bytes": 1 << 20, "max_overhead_ppm": 0
    }  # fmt: skip
    assert attach.mode_words(options("--max-size", "2M"))["box_bytes"] == 0
    assert attach.mode_words(options("--full", "--events")) == {
        "events": 1, "native_traces": 0, "async_parents": 0
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--events", "--native", "--async-parents"])
def test_what_samples_do_not_have(option: str) -> None:
    with pytest.raises(Failure, match=f"{option}: add --full"):
        attach.mode_words(options(option))


def test_modes_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["attach", "1", "--full", "--sample", "1M"])
    assert "not allowed with" in capsys.readouterr().err


def test_the_command_line_for_a_helper() -> None:
    words = ("--full", "--native", "--duration", "3", "-o", "-x.pmt", "--max-size", "1M", "-f")
    args = options(*words[:4], "--output=-x.pmt", *words[6:])
    assert vars(options(*attach.attach_words(args)[2:])) == vars(args)


@pytest.mark.parametrize(
    ("words", "name"),
    [(["python", "app.py", "x"], "app.py"), (["python", "-X", "dev", "-m", "a.b"], "a.b"),
     (["python", "-c", "pass"], "command"), (["python", "-"], "stdin"), ([], "process"),
     (["/usr/bin/python3"], "python3"), (["python", "-u", "/srv/app.py"], "app.py")],
)  # fmt: skip
def test_name_of_a_program(words: list[str], name: str) -> None:
    assert attach.program_name(words) == name
