"""`run --native`: native and Python frames in one stack, in the order of the calls, by name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import compile_c, execute

import pymemtrace
from pymemtrace import _core

TARGETS = Path(__file__).parent.parent / "targets"

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import native_frames

def callback(n):
    return native_frames.inner(100_000 + n)

def through_map(n):
    return list(map(callback, [n]))[0]

def main():
    native_frames.outer(callback)
    native_frames.outer(through_map)
    native_frames.threaded(300_000)

main()
"""


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    folder = tmp_path / "extension"
    folder.mkdir()
    compile_c("-O2", "-g", "-shared", "-pthread", "-o", folder / "native_frames.so",
              TARGETS / "native_frames.c")  # fmt: skip
    return folder


def stacks(capture: Path | str, at_least: int = 90_000) -> list[list[dict[str, Any]]]:
    """Root first, of blocks that are kept and large."""
    rows = pymemtrace.open(capture).aggregate("leaks").stacks()
    return [row["stack"][::-1] for row in rows if row["bytes"] >= at_least]


def names(stack: list[dict[str, Any]]) -> list[str]:
    return [frame["function"] for frame in stack]


def in_order(wanted: list[str], found: list[str]) -> bool:
    rest = iter(found)
    return all(name in rest for name in wanted)


def run(extension: Path, *options: str) -> None:
    command = [sys.executable, "-m", "pymemtrace", "run", "-q", "-o", "x.pmt", *options]
    done = execute([*command, "-c", PROGRAM, extension])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_native_and_python_frames(extension: Path) -> None:
    run(extension, "--native")
    found = [names(stack) for stack in stacks("x.pmt")]
    direct = ["<module>", "main", "outer", "between", "callback", "inner", "deepest", "inlined"]
    assert any(in_order(direct, stack) and "through_map" not in stack for stack in found), found
    mapped = ["<module>", "main", "outer", "between", "through_map", "map_next", "callback",
              "inner", "deepest", "inlined"]  # fmt: skip
    by_map = [stack for stack in found if "through_map" in stack]
    # the system's interpreter has no names for its own static functions
    wanted = mapped if any("map_next" in stack for stack in by_map) else mapped[:5] + mapped[6:]
    assert any(in_order(wanted, stack) for stack in by_map), found
    # nothing of the recorder's, and nothing of what started the interpreter
    assert all(stack[-1] == "inlined" for stack in found if "deepest" in stack), found
    for stack in found:
        assert stack[0] == "<module>" or "in_thread" in stack, stack
        assert not any(name.startswith(("pmt__", "hook_", "native_a")) for name in stack), stack


def test_inlined_functions_and_lines(extension: Path) -> None:
    run(extension, "--native")
    lines = (TARGETS / "native_frames.c").read_text().splitlines()
    (stack, *_) = [s for s in stacks("x.pmt") if "callback" in names(s)]
    at = names(stack).index("deepest")
    deepest, inlined = stack[at], stack[at + 1]
    assert inlined["function"] == "inlined"
    assert "malloc(size)" in lines[inlined["line"] - 1]
    assert "inlined(size)" in lines[deepest["line"] - 1]
    assert Path(deepest["file"]).name == "native_frames.c"
    (callback,) = [frame for frame in stack if frame["function"] == "callback"]
    assert callback["line"] == 7


def test_without_the_gil_and_without_python(extension: Path) -> None:
    run(extension, "--native")
    found = [names(stack) for stack in stacks("x.pmt")]
    assert any(in_order(["main", "threaded", "deepest"], stack) for stack in found), found
    (alone,) = [stack for stack in found if "in_thread" in stack]
    assert in_order(["thread", "in_thread", "inlined"], alone)
    assert "main" not in alone


def test_table_blames_the_python_line(extension: Path) -> None:
    run(extension, "--native")
    rows = pymemtrace.open("x.pmt").aggregate("leaks").sites()
    lines = {row["site"]["function"]: row["bytes"] for row in rows}
    assert 200_006 <= lines["callback"] <= 201_000
    assert 600_000 <= lines["main"] <= 601_000


def test_same_figures_as_without(extension: Path) -> None:
    run(extension)
    plain = _core.Reader("x.pmt").stats()["by_domain"]["malloc"]
    run(extension, "--native", "-f")
    native = _core.Reader("x.pmt").stats()["by_domain"]["malloc"]
    assert abs(plain["end_bytes"] - native["end_bytes"]) < 2000
    assert abs(plain["allocations"] - native["allocations"]) < 50


def test_recordings_one_after_the_other(extension: Path) -> None:
    code = (
        "import sys, pymemtrace\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import native_frames\n"
        "for n in range(3):\n"
        "    body = n * '    pass\\n' + '    return native_frames.inner(x)\\n'\n"
        "    exec(f'def f{n}(x):\\n' + body)\n"
        "    with pymemtrace.record(f'{n}.pmt', native_traces=True):\n"
        "        exec(f'native_frames.outer(lambda x: f{n}(100_000))')\n"
    )
    done = execute([sys.executable, "-c", code, extension])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for n in range(3):
        (stack,) = stacks(f"{n}.pmt")
        assert in_order(["<module>", "outer", "between", "<lambda>", f"f{n}", "deepest"],
                        names(stack))  # fmt: skip


def test_children_too(extension: Path) -> None:
    code = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {PROGRAM!r}, sys.argv[1]], check=True)\n"
    )
    run_it = [sys.executable, "-m", "pymemtrace", "run", "-q", "--native", "-o", "x.pmt"]
    done = execute([*run_it, "-c", code, extension])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    captures = list(Path().glob("x.*.pmt"))
    if not captures and " " in str(Path(pymemtrace.__file__).parent):
        pytest.skip("children by posix_spawn are not followed where the package's path has a space")
    (child,) = captures
    assert any("deepest" in names(stack) for stack in stacks(child))


def test_forked_child_has_objects_of_its_own(extension: Path) -> None:
    code = PROGRAM + (
        "import os\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    native_frames.outer(lambda n: callback(1_000_000))\n"
        "    os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    command = [sys.executable, "-Wignore", "-m", "pymemtrace", "run", "-q", "--native"]
    done = execute([*command, "-o", "x.pmt", "-c", code, extension])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (child,) = Path().glob("x.*.pmt")
    found = [names(stack) for stack in stacks(child, 1_000_000)]
    assert any(in_order(["outer", "between", "callback", "inner", "deepest"], s) for s in found)


def test_stripped_library(extension: Path) -> None:
    subprocess.run(["strip", extension / "native_frames.so"], check=True)
    run(extension, "--native")
    found = [names(stack) for stack in stacks("x.pmt")]
    assert any(
        in_order(["main", "callback"], stack) and stack[-1].startswith("native_frames.so+0x")
        for stack in found
    ), found


def test_capture_that_is_folded_and_compacted(extension: Path) -> None:
    code = PROGRAM + (
        "for n in range(300):\n"
        "    exec(f'def f{n}():\\n    return native_frames.outer(callback)\\nf{n}()\\n')\n"
    )
    command = [sys.executable, "-m", "pymemtrace", "run", "-q", "--native", "--max-size", "256K"]
    done = execute([*command, "-o", "x.pmt", "-c", code, extension])
    assert done.returncode == 0
    assert Path("x.pmt").stat().st_size <= 256 * 1024
    assert _core.Reader("x.pmt").info()["ended"] == "normal"


def test_python_only(extension: Path) -> None:
    run(extension, "--native", "--python-only")
    assert not any("deepest" in names(stack) for stack in stacks("x.pmt"))
    rows = pymemtrace.open("x.pmt").aggregate("total").stacks()
    assert any("PyLong_FromLong" in names(row["stack"]) or "+0x" in "".join(names(row["stack"]))
               for row in rows)  # fmt: skip


def test_another_library_at_the_same_addresses(tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        source = tmp_path / f"{name}.c"
        source.write_text(
            "#include <stdlib.h>\n"
            "void *volatile kept;\n"
            f"void {name}_allocates(size_t n) {{ kept = malloc(n); *(char *)kept = 1; }}\n"
        )
        compile_c("-g", "-shared", "-o", tmp_path / f"{name}.so", source)
    code = (
        "import _ctypes, ctypes, sys\n"
        "def use(name, size):\n"
        "    library = ctypes.CDLL(f'{sys.argv[1]}/{name}.so')\n"
        "    function = library[name + '_allocates']\n"
        "    function.argtypes, function.restype = [ctypes.c_size_t], None\n"
        "    function(size)\n"
        "    address = ctypes.cast(function, ctypes.c_void_p).value\n"
        "    _ctypes.dlclose(library._handle)\n"
        "    return address\n"
        "print(use('alpha', 1_000_000) == use('beta', 2_000_000))\n"
    )
    command = [sys.executable, "-m", "pymemtrace", "run", "-q", "--native", "-o", "x.pmt"]
    done = execute([*command, "-c", code, tmp_path])
    assert (done.returncode, done.stderr) == (0, "")
    rows = pymemtrace.open("x.pmt").aggregate("leaks").stacks()
    found = {row["stack"][0]["function"]: row["bytes"] for row in rows if row["bytes"] > 900_000}
    assert found == {"alpha_allocates": 1_000_000, "beta_allocates": 2_000_000}


def test_code_that_was_made_at_run_time() -> None:
    """Its line of Python is blamed, with and without native stacks."""
    code = (
        "import ctypes, mmap\n"
        "libc = ctypes.CDLL(None)\n"
        "malloc = ctypes.cast(libc.malloc, ctypes.c_void_p).value\n"
        "# sub rsp, 8; mov rax, malloc; call rax; add rsp, 8; ret\n"
        "text = b'\\x48\\x83\\xec\\x08\\x48\\xb8' + malloc.to_bytes(8, 'little')\n"
        "text += b'\\xff\\xd0\\x48\\x83\\xc4\\x08\\xc3'\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(text)\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "made = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(address)\n"
        "def caller():\n"
        "    made(3_000_000)\n"
        "caller()\n"
    )
    command = [sys.executable, "-m", "pymemtrace", "run", "-q", "--native", "-o", "x.pmt"]
    done = execute([*command, "-c", code])
    assert (done.returncode, done.stderr) == (0, "")
    aggregate = pymemtrace.open("x.pmt").aggregate("leaks")
    (row,) = [row for row in aggregate.sites() if row["bytes"] >= 3_000_000]
    assert row["site"]["function"] == "caller"
    (stack,) = [names(row["stack"]) for row in aggregate.stacks() if row["bytes"] == 3_000_000]
    assert stack[:3] == ["[unknown native code]", "caller", "<module>"]
