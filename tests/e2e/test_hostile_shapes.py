"""Deep, short, threaded, interrupted, finalised: the program is as ever, its numbers right."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile import assert_same, assert_sums, assert_whole, plain, record, row_at


@pytest.mark.parametrize(
    "shape",
    [
        "recursion_error", "daemon_threads", "finalisation", "freeze", "handlers", "tracing",
        "raw_threads",
    ],
)  # fmt: skip
def test_shape(shape: str) -> None:
    done = assert_same("shapes.py", shape)
    assert_whole(done.reader)


# On 3.12 and 3.13, where frames cannot be marked as seen, an event costs more the deeper it is.
DEPTHS = [10_000] if sys.version_info[:2] in ((3, 12), (3, 13)) else [10_000, 100_000]


@pytest.mark.parametrize("depth", DEPTHS)
def test_recursion(depth: int) -> None:
    done = assert_same("shapes.py", f"recursion_{depth}")
    assert (done.status, done.out) == (0, "10\n")
    assert_whole(done.reader)
    assert done.reader.info()["folded"] == 0
    row = row_at(done.reader, "peak", "shapes.py", "DEEP")
    assert 10 * 10_000 <= row["bytes"] <= 10 * 10_200
    assert len(row["stack"]) > depth


def test_equal_sources_share_their_stacks() -> None:
    done = assert_same("shapes.py", "exec_equal")
    assert_whole(done.reader)
    assert done.capture.stat().st_size < 200_000
    assert done.reader.info()["folded"] == 0


def test_distinct_sources() -> None:
    done = assert_same("shapes.py", "exec_distinct")
    assert_whole(done.reader)
    assert done.capture.stat().st_size < 20_000_000


def test_2000_threads() -> None:
    done = assert_same("shapes.py", "threads_2000")
    assert_whole(done.reader)
    row = row_at(done.reader, "leaks", "shapes.py", "THREADS")
    assert 2000 * 2000 <= row["bytes"] <= 2000 * 2400


def test_switching_threads() -> None:
    done = assert_same("shapes.py", "switching")
    assert_whole(done.reader)
    row = row_at(done.reader, "total", "shapes.py", "SWITCHING")
    assert 12_000 * 1000 <= row["bytes"] <= 12_000 * 1200 + 200_000 * 4


def test_traced_program_keeps_its_lines() -> None:
    done = record("shapes.py", "tracing")
    row = row_at(done.reader, "peak", "shapes.py", "TRACING")
    assert 100 * 10_000 <= row["bytes"] <= 100 * 10_200


def test_restarts() -> None:
    done = plain("shapes.py", "restarts")
    assert (done.status, done.out) == (0, "True 0 0\n"), done.err
    from pymemtrace import _core

    for number in range(5):
        reader = _core.Reader(f"{number}.pmt")
        assert reader.info()["ended"] == "normal"
        assert_sums(reader)


def test_memory_is_given_back() -> None:
    done = plain("shapes.py", "gives_back")
    assert (done.status, done.out) == (0, "True True\n"), done.err


def test_interpreters() -> None:
    done = assert_same("shapes.py", "interpreters")
    assert done.status == 0
    info = done.reader.info()
    assert set(info["dropped"]) == {"other interpreters"}
    assert info["dropped"]["other interpreters"] > 10_000
    assert_sums(done.reader)
    row = row_at(done.reader, "leaks", "shapes.py", "BEFORE")
    assert 100 * 10_000 <= row["bytes"] <= 100 * 10_200


def test_start_in_another_interpreter(tmp_path: Path) -> None:
    done = plain("shapes.py", "interpreter_import")
    assert (done.status, done.out) == (0, "200 []\n"), done.err
    assert not (tmp_path / "sub.pmt").exists()
