"""Shared libraries and programs that tests compile, and the addresses of what is in them."""

import itertools
import os
import subprocess
from functools import cache
from pathlib import Path

# Inlined functions, and names as C++ and both manglings of Rust have them. Every function calls
# another, so that there is a return address in it.
SOURCE = """\
void leave(int);
void leave(int what) { __asm__ volatile("" :: "r"(what)); }
__attribute__((noipa)) static void sink(int what) { leave(what); __asm__ volatile(""); }
static inline __attribute__((always_inline)) void innermost(int what)
{
    sink(what);
}
static inline __attribute__((always_inline)) void middle(int what)
{
    innermost(what + 1);
    __asm__ volatile("");
}
void outermost(int what);
void outermost(int what)
{
    middle(what);
    __asm__ volatile("");
}
void cpp(int) __asm__("_ZN4shop5CacheIiE4loadEjRKNS_3KeyE");
void cpp(int what) { sink(what); __asm__ volatile(""); }
void rust_old(int) __asm__("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE");
void rust_old(int what) { sink(what); __asm__ volatile(""); }
void rust_new(int) __asm__("_RNvNtCs1234_7mycrate3foo3bar");
void rust_new(int what) { sink(what); __asm__ volatile(""); }
__attribute__((noipa)) static void hidden(int what) { sink(what); __asm__ volatile(""); }
void internal(int) __asm__("__GI___libc_thing");
void internal(int what) { sink(what); __asm__ volatile(""); }
void thing(int) __attribute__((alias("__GI___libc_thing")));
void __libc_thing(int) __attribute__((alias("__GI___libc_thing")));
void plain(int what);
void plain(int what) { hidden(what); __asm__ volatile(""); }
"""
INNERMOST_LINE, MIDDLE_LINE, OUTERMOST_LINE = 6, 10, 16  # of the calls
PROGRAM = "void plain(int);\nint main(void) { plain(1); return 0; }\n"


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return os.fsdecode(done.stdout)


def build(folder: Path, *options: str, name: str = "libthing.so") -> Path:
    """A library with debug information; other options come last."""
    source = folder / "thing.c"
    source.write_text(SOURCE)
    out = folder / name
    run("gcc", "-g", "-O2", "-fPIC", "-shared", *options, "-o", out, source)
    return out


def build_program(folder: Path, *options: str) -> Path:
    (folder / "main.c").write_text(PROGRAM)
    (folder / "thing.c").write_text(SOURCE)
    out = folder / "program"
    run("gcc", "-g", "-O2", *options, "-o", out, folder / "main.c", folder / "thing.c")
    return out


@cache
def functions(path: Path) -> dict[str, int]:
    lines = run("nm", "--defined-only", path).splitlines()
    return {name: int(address, 16) for address, _, name in map(str.split, lines)}


@cache
def return_address(path: Path, function: str) -> int:
    """Of the first call in the function."""
    start = functions(path)[function]
    text = run("objdump", "-d", "--no-show-raw-insn", f"--start-address={start}", path)
    lines = [line.split("\t") for line in text.splitlines() if "\t" in line]
    for (_, instruction), (after, _) in itertools.pairwise(lines):
        if instruction.startswith(("call", "jmp ")):
            return int(after.strip().rstrip(":"), 16)
    raise AssertionError(f"{function} calls nothing")


def build_id(path: Path) -> str:
    for line in run("readelf", "-n", path).splitlines():
        if "Build ID:" in line:
            return line.split()[-1]
    return ""


def split(path: Path, debug: Path) -> None:
    """Moves the debug information into a file of its own; the library keeps its dynamic symbols."""
    run("objcopy", "--only-keep-debug", path, debug)
    run("strip", path)


def add_link(path: Path, debug: Path) -> None:
    run("objcopy", f"--add-gnu-debuglink={debug}", path)
