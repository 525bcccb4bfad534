"""Children, daemons and descriptors: a capture holds one process; nothing else is written to."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import (
    TARGETS,
    assert_same,
    assert_sums,
    assert_whole,
    compile_c,
    execute,
    record,
    row_at,
)

from pymemtrace import _core


@pytest.mark.parametrize("how", ["exit", "_exit", "many", "in_thread"])
def test_child_is_not_in_its_parent_s_capture(how: str) -> None:
    # From 3.12 on, os.fork() warns when the process has threads: ours must not count.
    options = ["-Werror"] if how in ("exit", "_exit") else []
    done = assert_same("forks.py", how, options=options)
    assert_whole(done.reader)
    assert row_at(done.reader, "total", "forks.py", "CHILD")["allocations"] == 0
    assert "other" not in done.reader.info()["dropped"]


def test_parent_is_recorded_across_forks() -> None:
    done = assert_same("forks.py", "_exit")
    row = row_at(done.reader, "total", "forks.py", "PARENT")
    assert 200 * 10_000 <= row["bytes"] <= 200 * 10_200


def test_handler_that_joins_a_thread_which_allocates(tmp_path: Path) -> None:
    """Our handler runs first and holds the tables; the thread must not wait for them for ever."""
    library = tmp_path / "joins.so"
    compile_c("-shared", "-pthread", "-o", library, TARGETS / "joins_at_fork.c")
    code = (
        "import ctypes, os, sys, time\n"
        "library = ctypes.CDLL(sys.argv[1])\n"
        "assert library.begin() == 0\n"
        "import pymemtrace\n"
        "with pymemtrace.record('x.pmt'):\n"
        "    time.sleep(0.1)\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os._exit(7)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    done = execute([sys.executable, "-Wignore", "-c", code, library])
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")
    assert _core.Reader("x.pmt").info()["ended"] == "normal"


def test_many_forks() -> None:
    done = assert_same("forks.py", "loop", options=["-Werror"])
    assert_whole(done.reader)
    row = row_at(done.reader, "peak", "forks.py", "LOOP")
    assert 200 * 10_000 <= row["bytes"] <= 200 * 10_200


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str) -> None:
    # The pool itself starts threads before it forks, which 3.12+ warns about, with and without us.
    done = assert_same("forks.py", method)
    assert_whole(done.reader)
    assert row_at(done.reader, "total", "forks.py", "CHILD")["allocations"] == 0


def test_daemon(tmp_path: Path) -> None:
    done = record("forks.py", "daemon")
    assert (done.status, done.out, done.err) == (0, "b'finished'\n", "")
    for number in range(100):
        assert (tmp_path / f"daemon.{number}").read_bytes() == b"daemon" * 15
    assert_whole(done.reader)


def test_descriptors_closed_and_taken(tmp_path: Path) -> None:
    done = assert_same("forks.py", "closes")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert_whole(done.reader)
    row = row_at(done.reader, "total", "forks.py", "AFTER")
    assert 130 * 10_000 <= row["bytes"] <= 130 * 10_200


def test_fork_in_atexit() -> None:
    options = ["-Werror"]
    done = assert_same("forks.py", "in_atexit", options=options)
    assert "late 0" in done.out or sys.version_info >= (3, 12)
    assert_whole(done.reader)


def test_exec_of_itself() -> None:
    done = assert_same("forks.py", "execs")
    assert done.out.count("second") == 1
    assert_whole(done.reader)
    row = row_at(done.reader, "leaks", "forks.py", "PARENT")
    assert 100 * 10_000 <= row["bytes"] <= 100 * 10_200


def test_child_records_itself(tmp_path: Path) -> None:
    done = record("forks.py", "restarts", run=["--no-follow"])
    assert (done.status, done.out, done.err) == (0, "102 100\n", "")
    assert_whole(done.reader)
    child = _core.Reader(str(tmp_path / "child.pmt"))
    assert child.info()["dropped"] == {}
    assert_sums(child)
    assert child.proc()["pid"] != done.reader.proc()["pid"]
    row = row_at(child, "leaks", "forks.py", "HELD")
    assert 100 * 50_000 <= row["bytes"] <= 100 * 50_200
    assert row_at(child, "total", "forks.py", "PARENT")["allocations"] == 0
