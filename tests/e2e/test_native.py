"""What goes past Python's allocators: a program that knows what it keeps."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import compile_c, execute

from pymemtrace import _core

TARGETS = Path(__file__).resolve().parents[1] / "targets"
PYTHON_OBJECTS = 4000  # bytes of Python's own that a function may leave behind


def by_function(command: Any, capture: Path) -> tuple[Counter[str], Counter[str]]:
    done = command("table", "--leaks", "--json", capture)
    assert (done.returncode, done.stderr) == (0, "")
    found, blocks = Counter[str](), Counter[str]()
    for row in json.loads(done.stdout)["rows"]:
        if row["site"]["file"].endswith("native_libc.py"):
            found[row["site"]["function"].split(".")[0]] += row["bytes"]
            blocks[row["site"]["function"].split(".")[0]] += row["blocks"]
    return found, blocks


@pytest.mark.parametrize("folder", ["plain", "with a space:and more"])
def test_every_function_of_the_c_library(command: Any, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    script = tmp_path / folder / "native_libc.py"
    script.write_bytes((TARGETS / "native_libc.py").read_bytes())
    done = command("run", "-q", "-o", "x.pmt", script, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found, blocks = by_function(command, tmp_path / "x.pmt")
    lines = done.stdout.splitlines()
    assert len(lines) == 9
    for line in lines:
        name, bytes_alive, blocks_alive = line.split()
        assert int(bytes_alive) <= found[name] <= int(bytes_alive) + PYTHON_OBJECTS, name
        # 3.14 and later keep freed integers for the next ones
        assert int(blocks_alive) <= blocks[name] <= int(blocks_alive) + 60, name


def test_python_only(command: Any, tmp_path: Path) -> None:
    script = TARGETS / "native_libc.py"
    done = command("run", "-q", "--python-only", "-o", "x.pmt", script, cwd=tmp_path)
    assert done.returncode == 0
    found, _ = by_function(command, tmp_path / "x.pmt")
    assert found["with_malloc"] < PYTHON_OBJECTS
    domains = json.loads(command("stats", "--json", tmp_path / "x.pmt").stdout)["by_domain"]
    assert domains["malloc"]["allocations"] == domains["mmap"]["allocations"] == 0


def test_domains(command: Any, tmp_path: Path) -> None:
    done = command("run", "-q", "-o", "x.pmt", TARGETS / "native_libc.py", cwd=tmp_path)
    assert done.returncode == 0
    domains = json.loads(command("stats", "--json", tmp_path / "x.pmt").stdout)["by_domain"]
    # 3.14 and later map two pages of their own
    assert domains["mmap"]["end_bytes"] // 4096 - (10 + 18 + 45 + 100) in (0, 2)
    assert domains["malloc"]["end_bytes"] > 100_000 + 70_000 + 30_000


def test_the_environment_is_the_program_s(command: Any, tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "print({k: v for k, v in os.environ.items() if 'PRELOAD' in k})\n"
        "subprocess.run(['sh', '-c', 'env | grep PRELOAD'])\n"
        "print(sorted(os.listdir('/proc/self/fd')))\n"
    )
    plain = command("run", "-q", "--python-only", "-o", "x.pmt", "-c", code, cwd=tmp_path)
    preloaded = command("run", "-q", "-o", "y.pmt", "-c", code, cwd=tmp_path)
    assert plain.stdout.splitlines()[0] == "{}"
    assert (preloaded.stdout, preloaded.stderr) == (plain.stdout, plain.stderr)


def test_a_preloaded_library_of_the_user_stays(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libm.so.6")
    code = (
        "import os; print(os.environ['LD_PRELOAD'])\n"
        "print('libm' in open('/proc/self/maps').read())"
    )
    done = command("run", "-q", "-o", "x.pmt", "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("libm.so.6\nTrue\n", "")


def test_native_threads_and_threads_that_ended_have_names(command: Any, tmp_path: Path) -> None:
    code = (
        "import threading\n"
        "def work(): global kept; kept = bytearray(1 << 20)\n"
        "for n in range(3):\n"
        "    t = threading.Thread(target=work, name=f'worker {n}'); t.start(); t.join()\n"
        "class Raises(threading.Thread):\n"
        "    def run(self):\n"
        "        try: {}['missing']\n"
        "        except KeyError as error: self.error = [repr(error)] * 1000\n"
        "t = Raises(name='raising'); t.start(); t.join(); print(t.error[0])\n"
    )
    done = command("run", "-q", "-o", "x.pmt", "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("KeyError('missing')\n", "")
    threads = json.loads(command("stats", "--json", tmp_path / "x.pmt").stdout)["by_thread"]
    names = {thread["name"] for thread in threads}
    assert {"MainThread", "worker 0", "worker 1", "worker 2", "raising"} <= names


IN_PROCESS = """
import ctypes, mmap, sys, time, pymemtrace
from pymemtrace import _core

def read_only():  # which pages of loaded objects nobody may write
    lines = [line.split() for line in open("/proc/self/maps")]
    return {(l[0], l[-1]) for l in lines if len(l) == 6 and l[1] == "r--p" and ".so" in l[-1]}

_core._malloc_pair_ns()
before = read_only()
keep = []
def mapped(): keep.append(mmap.mmap(-1, 100 * 4096))
def found_now():
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    for _ in range(10): malloc(10_000)
def loaded_later():
    library = ctypes.CDLL(sys.argv[1])
    time.sleep(0.5)
    library.take(20, 5000)
with pymemtrace.record("x.pmt", interval_s=0.05):
    mapped(); found_now(); loaded_later()
missing = {item for item in before - read_only() if "_preload" not in item[1]}
print(missing or "read-only as before")
reader = _core.Reader("x.pmt")
print(reader.proc()["native_layer"])
rows = reader.aggregate("leaks").sites()
for name in ("mapped", "found_now", "loaded_later"):
    print(name, sum(row["bytes"] for row in rows if row["site"]["function"] == name))
with pymemtrace.record("y.pmt", native=False):
    found_now()
reader = _core.Reader("y.pmt")
print(reader.proc()["native_layer"], reader.stats()["by_domain"]["malloc"]["allocations"])
"""


def test_a_process_that_runs_already(tmp_path: Path) -> None:
    source = tmp_path / "late.c"
    source.write_text(
        "#include <stdlib.h>\n#include <string.h>\n"
        "void take(int n, int size) { while (n--) memset(malloc(size), 1, size); }\n"
    )
    compile_c("-shared", "-o", tmp_path / "late.so", source)
    (tmp_path / "program.py").write_text(IN_PROCESS)
    done = execute([sys.executable, tmp_path / "program.py", tmp_path / "late.so"], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["read-only as before", "patch"]
    found = {name: int(count) for name, count in (line.split() for line in lines[2:5])}
    assert 100 * 4096 <= found["mapped"] <= 100 * 4096 + PYTHON_OBJECTS
    assert 100_000 <= found["found_now"] <= 100_000 + PYTHON_OBJECTS
    assert 100_000 <= found["loaded_later"] <= 100_000 + PYTHON_OBJECTS
    assert lines[5] == "none 0"


LOADING = """
import ctypes, shutil, sys, pymemtrace
with pymemtrace.record("x.pmt", interval_s=0.01):
    for number in range(20):
        copy = f"copy{number}.so"
        shutil.copy(sys.argv[1], copy)
        ctypes.CDLL("./" + copy)
print("done")
"""


@pytest.mark.parametrize("options", [{}, {"sample_bytes": 65536}], ids=["full", "sampled"])
def test_variables_that_the_program_has_changed(tmp_path: Path, options: Any) -> None:
    """decimal's C library has variables for malloc and free, into which it puts PyMem_Malloc and
    PyMem_Free: what was allocated by these must not be freed by another."""
    script = tmp_path / "decimals.py"
    script.write_text(
        "import decimal, pymemtrace\n"
        "decimal.getcontext().prec = 300\n"  # 128 bytes: of pymalloc
        "kept = [decimal.Decimal(2).sqrt() * i for i in range(50)]\n"
        f"with pymemtrace.record('x.pmt', **{options!r}):\n"
        "    more = [one * one for one in kept]\n"
        "    del kept\n"
        "    most = [one * one for one in more]\n"
        "print(round(more[3], 3))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "18.000\n", "")


def test_modules_that_are_imported_while_others_are_patched(tmp_path: Path) -> None:
    script = tmp_path / "imports.py"
    script.write_text(
        "import os, sys, time, pymemtrace\n"
        "with pymemtrace.record('x.pmt', sample_bytes=65536, interval_s=0.01, force=True):\n"
        "    for number in range(60):\n"
        "        pid = os.fork()\n"
        "        if pid == 0:\n"
        "            time.sleep(number % 20 / 1000)\n"
        "            import decimal\n"
        "            decimal.getcontext().prec = 300\n"
        "            kept = [decimal.Decimal(2).sqrt() * i for i in range(500)]\n"
        "            time.sleep(0.03)\n"
        "            del kept\n"
        "            os._exit(0)\n"
        "        assert os.waitpid(pid, 0)[1] == 0\n"
        "print('well')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


def test_a_library_that_is_being_loaded(tmp_path: Path) -> None:
    """The loader takes its time for this one, and the recorder would overtake it."""
    absent = [f"absent{number}" for number in range(500)]  # in no library: looked for in all
    long = "_" * 2000  # and hashed each time
    page = "(void *)malloc, " + ", ".join(absent)
    source = tmp_path / "slow.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "#define ABSENT(n) extern void n(void) __asm__(#n LONG) __attribute__((weak));\n"
        f'#define LONG "{long}"\n'
        + "".join(f"ABSENT({name})\n" for name in absent)
        + "void *const table[] = {" + ", ".join([page] * 30) + "};\n"
    )  # fmt: skip
    compile_c("-shared", "-o", tmp_path / "slow.so", source)
    (tmp_path / "program.py").write_text(LOADING)
    done = execute([sys.executable, tmp_path / "program.py", tmp_path / "slow.so"], cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_another_allocator_behind_us(tmp_path: Path) -> None:
    """What it maps for itself is not counted besides the blocks that it gives out."""
    library = tmp_path / "other.so"
    compile_c("-shared", "-fno-builtin", "-o", library, TARGETS / "other_malloc.c")
    code = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p\n"
        "kept = [libc.malloc(100_000) for n in range(300)]\n"
    )
    command = [sys.executable, "-m", "pymemtrace", "run", "-q", "-o", "x.pmt", "-c", code]
    done = execute(command, env={**os.environ, "LD_PRELOAD": str(library)})
    assert (done.returncode, done.stderr) == (0, "")
    domains = _core.Reader("x.pmt").stats()["by_domain"]
    assert 30_000_000 <= domains["malloc"]["end_bytes"] < 31_000_000
    assert domains["mmap"]["end_bytes"] < 4 << 20
