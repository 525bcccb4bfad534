"""Under limits of the system and of our own."""

import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile import MB, Done, assert_same, assert_sums, assert_whole, plain, record, row_at


def assert_held(reader: object) -> None:
    row = row_at(reader, "leaks", "limits.py", "KEPT")  # type: ignore[arg-type]
    assert 200 * MB <= row["bytes"] <= 200 * MB + 200 * 120 + 4096


@pytest.mark.parametrize("limit", [512 * MB, 2048 * MB])
def test_address_space_from_outside(limit: int) -> None:
    def before() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = assert_same("limits.py", before=before)
    assert done.status == 0
    assert_whole(done.reader)
    assert_held(done.reader)


@pytest.mark.parametrize("limit", [512 * MB, 2048 * MB])
def test_address_space_from_inside(limit: int) -> None:
    done = assert_same("limits.py", "RLIMIT_AS", limit)
    assert done.status == 0
    assert_whole(done.reader)
    assert_held(done.reader)


def test_memory_error_of_the_program() -> None:
    """What the recorder takes from the program's address space is small."""
    limit = 1024 * MB
    done = record("limits.py", "RLIMIT_AS", limit, "fill")
    assert (done.status, done.err) == (0, "")
    expected = plain("limits.py", "RLIMIT_AS", limit, "fill")
    had, has = (int(out.split()[1]) for out in (expected.out, done.out))
    assert has > 0.6 * had
    assert_held(done.reader)


def test_few_descriptors(tmp_path: Path) -> None:
    def before() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    done = assert_same("limits.py", before=before)
    assert done.status == 0
    assert_whole(done.reader)
    assert_whole(assert_same("limits.py", "RLIMIT_NOFILE", 64, run=["-f"]).reader)


def test_small_thread_stacks() -> None:
    def before() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (512 << 10, resource.RLIM_INFINITY))

    assert_whole(assert_same("limits.py", before=before).reader)


def assert_same_totals(free: Done, tight: Done, keys: Sequence[str]) -> None:
    had, has = free.reader.totals(), tight.reader.totals()
    for key in keys:
        # the two command lines differ by a few objects
        assert abs(had[key] - has[key]) <= 5_000, key


def test_little_memory_for_the_recorder() -> None:
    """Stacks fold; the totals are those of an unlimited run, to the byte."""
    free = record("stacks.py", 30_000)
    tight = record("stacks.py", 30_000, run=["--max-memory", "1M"], output="y.pmt")
    assert (free.status, free.out) == (tight.status, tight.out) == (0, free.out)
    assert_whole(free.reader)
    assert_sums(tight.reader)
    assert free.reader.info()["folded"] == 0
    assert tight.reader.info()["folded"] > 0
    assert tight.reader.info()["dropped"] == {}
    keys = ["heap_bytes_peak", "heap_bytes_end"]
    if sys.version_info < (3, 13):
        # From 3.13 on, an object from a free list counts as an allocation when it is another
        # line's; where lines fold, that is not seen.
        keys += ["allocated_bytes", "allocations", "frees"]
    assert_same_totals(free, tight, keys)


def test_a_file_too_small_for_the_stacks() -> None:
    """Totals fit where stacks do not; and it is said, although nobody looks at a terminal."""
    free = record("stacks.py", 80_000)
    tight = record("stacks.py", 80_000, run=["--max-size", "256K"], output="y.pmt")
    assert (free.status, free.out) == (tight.status, tight.out) == (0, free.out)
    assert tight.err.count("\n") == 1
    assert tight.err.startswith("pymemtrace: --max-size has no room for all stacks: ")
    assert "y.pmt: " in tight.err
    assert tight.capture.stat().st_size <= 256 << 10
    assert_whole(tight.reader)
    assert tight.reader.info()["stopped"] is None
    assert tight.reader.info()["folded"] > 0
    assert tight.reader.info()["counters"]["flushes without new stacks"] > 0
    keys = ["heap_bytes_peak", "heap_bytes_end", "allocated_bytes", "allocations", "frees"]
    assert_same_totals(free, tight, keys)
    had, has = free.reader.stats(), tight.reader.stats()
    assert sum(row["blocks"] for row in has["lifetimes"]) == has["frees"]
    assert list(had["by_domain"]) == list(has["by_domain"])
    for name, domain in had["by_domain"].items():
        assert abs(domain["peak_bytes"] - has["by_domain"][name]["peak_bytes"]) <= 5_000, name


def test_a_file_too_small_for_the_stacks_that_come_later(tmp_path: Path) -> None:
    code = """
import time
def early(): return bytearray(100_000)
kept = early()
time.sleep(1.3)  # a flush has it
import random
for i in range(8):
    exec(f"def f{i}(n): return bytearray(100) if not n else random.choice(all)(n - 1)")
all = [globals()[f"f{i}"] for i in range(8)]
kept = [kept, [random.choice(all)(12) for _ in range(30_000)]]
"""
    (tmp_path / "later.py").write_text(code)
    done = record(str(tmp_path / "later.py"), run=["--max-size", "256K"])
    assert done.status == 0
    assert "has no room for all stacks" in done.err
    assert_whole(done.reader)
    rows = {row["site"]["function"]: row["bytes"] for row in done.reader.aggregate("leaks").sites()}
    assert 100_057 <= rows["early"] <= 100_097  # what was known before keeps its stack
    assert rows["[folded]"] >= 30_000 * 157
