"""`run --sample`: estimates near the truth whatever the allocator; the program is as it was."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import execute

import pymemtrace
from pymemtrace import _core

PROGRAM = """
import hashlib, sys, threading
kept = []
def small():
    for n in range(40_000):
        kept.append((n, n + 1, n + 2))
def medium():
    for n in range(4_000):
        kept.append(bytes(2_000))
def large():
    for n in range(8):
        kept.append(bytearray(2_000_000))
def growing():
    for n in range(40):
        data = bytearray()
        for k in range(200):
            data += b"x" * 500
        kept.append(data)
def churn():
    for n in range(100_000):
        [n, n, n, n]
def threaded():
    threads = [threading.Thread(target=hashing) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
def hashing():
    for n in range(30):
        hashlib.sha256(bytes(100_000)).digest()
def main():
    small(), medium(), large(), growing(), churn(), threaded()
main()
print(len(kept), sum(map(len, kept[:10])))
"""
# bytes alive at the end, by function; small: a tuple and an int or two each
ALIVE = {"medium": 4000 * 2033, "large": 8 * 2_000_057, "growing": 40 * 112_600}

ALLOCATORS = ["", "malloc", "debug", "pymalloc_debug", "malloc_debug"]


def run(*options: str, env: dict[str, str] | None = None, run: Sequence[str] = ()) -> Any:
    command = [sys.executable, *options, "-m", "pymemtrace", "run", "-q", "-f", "-o", "x.pmt"]
    done = execute([*command, *run, "-c", PROGRAM], env={**os.environ, **(env or {})})
    assert (done.returncode, done.stdout, done.stderr) == (0, "44048 30\n", "")
    return pymemtrace.open("x.pmt")


def alive(capture: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in capture.aggregate("leaks").sites():
        name = row["site"]["function"]
        found[name] = found.get(name, 0) + row["bytes"]
    return found


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("more", [[], ["--python-only"]], ids=["native", "python-only"])
def test_estimates_are_near_the_truth(allocator: str, more: list[str]) -> None:
    env = {"PYTHONMALLOC": allocator} if allocator else {}
    capture = run(env=env, run=["--sample", "8K", *more])
    found = alive(capture)
    # so many samples that a wrong one is one in millions: six standard deviations and more
    for name, truth in ALIVE.items():
        assert abs(found[name] / truth - 1) < 0.25, (name, found[name], truth)
    total = capture.totals()["allocated_bytes"]
    full = run(env=env, run=more).totals()["allocated_bytes"]
    assert abs(total / full - 1) < 0.1, (total, full)


def test_what_is_freed_is_gone() -> None:
    capture = run(run=["--sample", "8K"])
    assert alive(capture).get("churn", 0) < 200_000
    assert alive(capture).get("hashing", 0) < 1_000_000


def test_beside_tracemalloc() -> None:
    capture = run("-X", "tracemalloc", run=["--sample", "8K"])
    found = alive(capture)
    for name, truth in ALIVE.items():
        assert abs(found[name] / truth - 1) < 0.25, (name, found[name], truth)


def test_the_mean_is_doubled_where_there_are_too_many_samples() -> None:
    capture = run(run=["--sample", "1K"])
    found = alive(capture)
    for name, truth in ALIVE.items():
        assert abs(found[name] / truth - 1) < 0.25, (name, found[name], truth)


def test_full_and_sampled_recordings_in_turn() -> None:
    code = (
        "import pymemtrace\n"
        "def f():\n"
        "    return [bytes(3000) for n in range(2000)]\n"
        "for n in range(6):\n"
        "    with pymemtrace.record(f'{n}.pmt', sample_bytes=8192 if n % 2 else 0):\n"
        "        kept = f()\n"
        "    del kept\n"
    )
    done = execute([sys.executable, "-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for n in range(6):
        reader = _core.Reader(f"{n}.pmt")
        (found, *_) = [row["bytes"] for row in reader.aggregate("leaks").sites()
                       if row["site"]["function"].startswith("f")]  # fmt: skip
        truth = 2000 * 3033
        assert abs(found / truth - 1) < (0.3 if n % 2 else 0.01), (n, found)
        assert reader.proc()["mode"] == ("sampled" if n % 2 else "full")


def test_forked_children_draw_other_samples() -> None:
    code = (
        "import os\n"
        "def f():\n"
        "    return [bytes(700) for n in range(20_000)]\n"
        "for n in range(2):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        kept = f()\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
    )
    command = [sys.executable, "-Wignore", "-m", "pymemtrace", "run", "-q", "--sample", "64K"]
    done = execute([*command, "-o", "x.pmt", "-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = [_core.Reader(str(path)).totals()["allocated_bytes"] for path in Path().glob("x.*.pmt")]
    assert len(found) == 2
    assert found[0] != found[1]
    for total in found:
        assert abs(total / (20_000 * 733) - 1) < 0.5


@pytest.mark.parametrize("size", ["0", "-1", "5", "1P", "x"])
def test_wrong_sizes(size: str) -> None:
    command = [sys.executable, "-m", "pymemtrace", "run", "--sample", size, "-c", "0"]
    done = execute(command)
    assert done.returncode == 2
    assert "--sample" in done.stderr


def test_not_with_events_or_native_stacks() -> None:
    for option in ("--events", "--native"):
        command = [sys.executable, "-m", "pymemtrace", "run", "--sample", "512K", option]
        done = execute([*command, "-c", "0"])
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
