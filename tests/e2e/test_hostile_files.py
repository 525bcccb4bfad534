"""What happens to the capture must not happen to the program."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile import (
    TARGETS,
    Done,
    assert_sums,
    assert_whole,
    environment,
    execute,
    plain,
    record,
    row_at,
)

from pymemtrace import _core


def run_both(what: str, capture: Path, *more: object, complaint: str = "") -> Done:
    """complaint: what the only line on standard error says of a capture that is not whole."""
    expected = plain("files.py", what, capture, *more)
    assert (expected.status, expected.out, expected.err) == (5, "ran 400\n", "")
    done = record("files.py", what, capture, *more, output=capture)
    assert (done.status, done.out) == (5, "ran 400\n")
    if complaint:
        assert done.err.startswith(f"pymemtrace: the capture is cut ({complaint}): {capture}: ")
        assert done.err.count("\n") == 1
    else:
        assert done.err == ""
    return done


def assert_before(reader: _core.Reader) -> None:
    row = row_at(reader, "leaks", "files.py", "BEFORE")
    assert 100 * 10_000 <= row["bytes"] <= 100 * 10_200
    assert_sums(reader)


def test_size_limit(tmp_path: Path) -> None:
    """SIGXFSZ would kill the program: our writes must not raise it."""
    done = run_both("limit", tmp_path / "x.pmt", complaint="no space left on the device")
    assert_before(done.reader)
    assert row_at(done.reader, "total", "files.py", "AFTER")["allocations"] == 0
    assert "space" in (done.reader.info()["stopped"] or "")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        done = run_both("fill", disk / "x.pmt", complaint="no space left on the device")
        assert_before(done.reader)
        assert "space" in (done.reader.info()["stopped"] or "")


def test_disk_that_was_full_for_a_while(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        done = run_both("fill", disk / "x.pmt", "again")
        assert_whole(done.reader)
        assert_before(done.reader)
        row = row_at(done.reader, "leaks", "files.py", "AFTER")
        assert 100 * 20_000 <= row["bytes"] <= 100 * 20_200


def test_capture_removed(tmp_path: Path) -> None:
    run_both("unlink", tmp_path / "x.pmt")
    assert not (tmp_path / "x.pmt").exists()


def test_folder_removed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    run_both("rmtree", tmp_path / "in" / "x.pmt")
    assert not (tmp_path / "in").exists()


def test_capture_replaced_by_a_link(tmp_path: Path) -> None:
    """The descriptors are closed, too, so that the file would have to be opened again."""
    (tmp_path / "precious").write_text("precious")
    run_both("symlink", tmp_path / "x.pmt", complaint="it was removed or replaced")
    assert (tmp_path / "precious").read_text() == "precious"


def test_capture_truncated(tmp_path: Path) -> None:
    run_both("truncate", tmp_path / "x.pmt")


def test_descriptors_closed(tmp_path: Path) -> None:
    done = run_both("closed", tmp_path / "x.pmt")
    assert_whole(done.reader)
    assert_before(done.reader)
    assert row_at(done.reader, "leaks", "files.py", "AFTER")["blocks"] >= 100


def refused(done: Done, *parts: str) -> None:
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
    for part in parts:
        assert part in done.err


@pytest.mark.parametrize("force", [[], ["-f"]])
def test_links_are_not_followed(force: list[str], tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "x.pmt").symlink_to("precious")
    refused(record("ends.py", "exit", run=force), str(tmp_path / "x.pmt"))
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / "y.pmt").symlink_to("new")
    refused(record("ends.py", "exit", run=force, output="y.pmt"), str(tmp_path / "y.pmt"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("force", [[], ["-f"]])
def test_no_file(force: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("/dev/full", "/dev/null", tmp_path / "fifo", tmp_path / "folder"):
        refused(record("ends.py", "exit", run=force, output=name), str(name))
    assert Path("/dev/null").is_char_device()


def test_umask(tmp_path: Path) -> None:
    def hide_all() -> None:
        os.umask(0o777)

    done = record("ends.py", "exit", before=hide_all)
    assert done.status == 7
    assert (tmp_path / "x.pmt").stat().st_mode & 0o777 == 0o600
    assert_whole(done.reader)


def start_killed(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pymemtrace", "run", "-fqo", path, TARGETS / "files.py", "closed"],
        stdout=subprocess.PIPE, env=environment(None), text=True,
    )  # fmt: skip


def test_two_runs_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pmt"
    with start_killed(path) as first:
        while not path.exists() or path.stat().st_size < 4200:
            assert first.poll() is None
        refused(record("ends.py", "exit"), str(path), "exists")
        first.communicate()
    assert_whole(_core.Reader(str(path)))


def test_two_forced_runs_to_one_file(tmp_path: Path) -> None:
    """The second takes the name; the first closes its descriptors and finds another file there."""
    path = tmp_path / "x.pmt"
    with start_killed(path) as first:
        while not path.exists() or path.stat().st_size < 4200:
            assert first.poll() is None
        with start_killed(path) as second:
            assert first.communicate()[0] == second.communicate()[0] == "ran 400\n"
        reader = _core.Reader(str(path))
        assert reader.proc()["pid"] == second.pid
    assert_whole(reader)
    assert_before(reader)


def test_unwritable_folder(tmp_path: Path) -> None:
    refused(
        record("ends.py", "exit", output="/proc/x.pmt"), "/proc/x.pmt", "cannot write the capture"
    )
    done = execute([sys.executable, "-m", "pymemtrace", "run", "-o", "no/x.pmt", "-c", "1"])
    assert done.returncode == 2
