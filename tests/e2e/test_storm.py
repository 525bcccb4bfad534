"""Threads, forks, libraries, starts and stops at once: nothing hangs or breaks, the figures add up.

PYMEMTRACE_STORM_SECONDS makes it longer (`make stress`).
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import TARGETS, assert_sums, compile_c, plain, record

SECONDS = float(os.environ.get("PYMEMTRACE_STORM_SECONDS", "3"))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    compile_c("-shared", "-pthread", "-o", tmp_path / "storm.so", TARGETS / "storm.c")
    return tmp_path / "storm.so"


KINDS = {"python": [], "native": ["--native"], "sampled": ["--sample", "8K"]}
kinds = pytest.mark.parametrize("kind", list(KINDS))


@kinds
def test_storm(kind: str, library: Path, tmp_path: Path) -> None:
    done = record(
        "storm.py", SECONDS, library, tmp_path, options=["-Wignore"],
        run=KINDS[kind],
    )  # fmt: skip
    assert (done.status, done.out, done.err) == (0, "done\n", "")
    info = done.reader.info()
    assert info["ended"] == "normal"
    assert not set(info["dropped"]) - {"missed_frees"}
    assert_sums(done.reader)
    # What the library's threads kept is nothing: no block may be left over, or be counted twice.
    domains = done.reader.stats()["by_domain"]
    assert domains["malloc"]["allocations"] > 100_000
    assert domains["malloc"]["end_bytes"] < 8 << 20 or kind == "sampled"  # an estimate


@kinds
def test_storm_with_starts_and_stops(kind: str, library: Path, tmp_path: Path) -> None:
    done = plain("storm.py", SECONDS, library, tmp_path, f"stop-{kind}", options=["-Wignore"])
    assert (done.status, done.out, done.err) == (0, "done\n", "")
