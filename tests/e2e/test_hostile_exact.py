"""Where the truth is known: by arithmetic, from tracemalloc, from a plain walk of the stack."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile import MB, TARGETS, assert_whole, environment, plain, row_at

from pymemtrace import _core

HEADER = 128  # of a bytearray and, from 3.15 on, of the bytes in it, at most
SLACK = 2048  # of the list that holds them


def assert_between(low: int, value: int, high: int) -> None:
    assert low <= value <= high


def test_known_program(tmp_path: Path) -> None:
    done = plain("exact.py", "known", tmp_path / "x.pmt")
    assert (done.status, done.err) == (0, "")
    reader = _core.Reader(str(tmp_path / "x.pmt"))
    assert_whole(reader)
    totals = reader.totals()
    # 100 MB were held at once, and little else
    assert_between(100 * MB, totals["heap_bytes_peak"], 100 * MB + 100 * HEADER + 64 * 1024)
    held = row_at(reader, "peak", "exact.py", "HELD")
    assert_between(100 * (MB + 1), held["bytes"], 100 * (MB + 1 + HEADER) + SLACK)
    assert_between(200, held["blocks"], 203)
    assert row_at(reader, "peak", "exact.py", "LONG")["blocks"] == 0
    alive = row_at(reader, "leaks", "exact.py", "HELD")
    assert_between(50 * (MB + 1), alive["bytes"], 50 * (MB + 1 + HEADER) + SLACK)
    kept = row_at(reader, "leaks", "exact.py", "LONG")
    assert_between(100 * 4001, kept["bytes"], 100 * (4001 + HEADER) + 16 * 1024)
    # each bytearray(3000) is an object and its bytes, gone before the next but one is made
    gone = row_at(reader, "temporary", "exact.py", "TEMPORARY")
    assert_between(5000 * 3001, gone["bytes"], 5000 * (3001 + HEADER))
    all_of_it = row_at(reader, "total", "exact.py", "TEMPORARY")
    assert_between(5000 * 3001, all_of_it["bytes"], 5000 * (3001 + HEADER + 32))
    assert row_at(reader, "temporary", "exact.py", "LONG")["blocks"] <= 100  # the list, as it grows
    marks = reader.marks()
    assert [mark["label"] for mark in marks] == ["held", "long"]
    epochs = [mark["epoch"] for mark in marks]
    assert epochs == sorted(set(epochs))


def test_live_bytes_are_those_of_tracemalloc(tmp_path: Path) -> None:
    """Within 0.05 % and 4 KB: what flush() and the two measurements themselves hold."""
    done = plain("exact.py", "quiescent", tmp_path / "x.pmt")
    assert (done.status, done.err) == (0, "")
    points = [tuple(map(int, line.split())) for line in done.out.splitlines()]
    assert len(points) == 20
    for ours, theirs in points:
        assert abs(ours - theirs) <= 4096 + theirs * 0.0005, points
    reader = _core.Reader(str(tmp_path / "x.pmt"))
    assert reader.info()["dropped"] == {}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stacks_are_those_of_a_plain_walk(seed: int, tmp_path: Path) -> None:
    code = (
        "import sys, runpy\n"
        "from pymemtrace import _core\n"
        "_core.start(sys.argv.pop(1), argv=['x'], interval_s=0.05)\n"
        "_core._check_stacks(True)\n"
        "sys.argv[0] = sys.argv.pop(1)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "print(*_core._check_stacks(False))\n"
        "_core.stop()\n"
    )
    target = TARGETS.parent / "random_stacks.py"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "x.pmt", target, str(seed), "150"],
        env=environment(None), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    compared, different = map(int, done.stdout.split())
    assert compared > 50_000
    assert different == 0
