"""Captures that are compacted while they are written: bounded, readable, with the same figures."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pymemtrace import _core

# Many call sites, so that a cut has many rows; the same allocations in every run.
PROGRAM = """
import json, os, sys, time
from pymemtrace import _core

path, max_size, seconds, interval_s, forks = json.loads(sys.argv[1])
# One block per call.
source = "".join(f"def f{i}(k):\\n    return b'xy' * k\\n" for i in range(200))
names = {}
exec(compile(source, "/app/generated.py", "exec"), names)
functions = [names[f"f{i}"] for i in range(200)]
counts = list(range(40, 340))
kept, biggest, inodes = [], 0, set()
_core.start(path, argv=["generated"], interval_s=interval_s, max_size_bytes=max_size)
until = time.monotonic() + seconds
calls = 0
while time.monotonic() < until or calls % 20000:
    block = functions[calls % 200](counts[calls % 300])
    if calls % 7 == 0:
        kept.append(block)
    if calls % 5000 == 4999:
        del kept[: len(kept) // 2]
    if calls % 20000 == 0:
        _core.mark(f"batch {calls // 20000}")
        if forks:
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
    calls += 1
    if calls % 50 == 0:
        found = os.stat(path)
        biggest = max(biggest, found.st_size)
        inodes.add(found.st_ino)
status = _core.status()
_core.main_returned()
del kept, block
_core.stop()
print(json.dumps({"calls": calls, "biggest": biggest, "files": len(inodes),
                  "status": status["status"], "reason": status["reason"]}))
"""


def run(path: Path, max_size: int, seconds: float = 3.0, *, forks: bool = False) -> dict[str, Any]:
    arguments = json.dumps([str(path), max_size, seconds, 0.01, forks])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


Figures = dict[str, tuple[int, int]]  # by function: bytes, blocks


def generated(aggregate: _core.Aggregate) -> Figures:
    return {
        row["site"]["function"]: (row["bytes"], row["blocks"])
        for row in aggregate.sites()
        if row["site"]["file"] == "/app/generated.py" and row["site"]["function"] != "<module>"
    }


def expected(calls: int) -> tuple[Figures, Figures]:
    """What the program allocates in total, and what it still holds when it is told to return."""
    made = [(f"f{call % 200}", sys.getsizeof(b"xy" * (40 + call % 300))) for call in range(calls)]
    kept: list[int] = []
    for call in range(calls):
        if call % 7 == 0:
            kept.append(call)
        if call % 5000 == 4999:
            del kept[: len(kept) // 2]
    held = {*kept, calls - 1}

    def figures(which: Iterable[int]) -> Figures:
        sums: Figures = {}
        for call in which:
            name, size = made[call]
            bytes_, blocks = sums.get(name, (0, 0))
            sums[name] = (bytes_ + size, blocks + 1)
        return sums

    return figures(range(calls)), figures(held)


def check_timeline(reader: _core.Reader) -> list[dict[str, Any]]:
    timeline = reader.timeline()
    end_s = 0.0
    for cut in timeline:
        assert cut["t_s"] - cut["span_s"] == pytest.approx(end_s, abs=1e-6)
        end_s = cut["t_s"]
    assert end_s == pytest.approx(reader.info()["duration_s"], abs=0.1)
    return timeline


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> tuple[_core.Reader, dict[str, Any]]:
    path = tmp_path_factory.mktemp("bounded") / "a.pmt"
    result = run(path, 120_000)
    return _core.Reader(str(path)), result


def test_the_file_stays_below_max_size(bounded: tuple[_core.Reader, dict[str, Any]]) -> None:
    reader, result = bounded
    path = Path(reader.path)
    assert result["files"] > 1  # it was compacted at all
    assert result["biggest"] <= 120_000
    assert path.stat().st_size <= 120_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["a.pmt"]
    info = reader.info()
    assert info["ended"] == "normal"
    assert info["stopped"] is None
    assert info["torn"] is None


def test_figures_are_those_of_the_program(
    bounded: tuple[_core.Reader, dict[str, Any]],
) -> None:
    reader, result = bounded
    made, held = expected(result["calls"])
    assert generated(reader.aggregate("total")) == made
    assert generated(reader.aggregate("leaks")) == held
    timeline = check_timeline(reader)
    whole = reader.aggregate("total")
    assert timeline[-1]["allocations"] == whole.allocations
    assert timeline[-1]["allocated_bytes"] == whole.allocated_bytes
    assert len(timeline) < 200  # windows, not cuts


def test_live_and_peak_agree_with_the_cuts(bounded: tuple[_core.Reader, dict[str, Any]]) -> None:
    reader, _ = bounded
    totals = reader.totals()
    assert reader.aggregate("peak").bytes == totals["heap_bytes_peak"]
    assert reader.aggregate("peak").blocks == totals["heap_blocks_peak"]
    end = [cut for cut in reader.timeline() if cut["main_returned"]]
    assert len(end) == 1
    leaks = reader.aggregate("leaks")
    assert (leaks.bytes, leaks.blocks) == (end[0]["heap_bytes"], end[0]["heap_blocks"])
    assert end[0]["heap_bytes"] > reader.timeline()[-1]["heap_bytes"]  # `kept` was alive then


def test_time_windows_work_at_the_coarser_grain(
    bounded: tuple[_core.Reader, dict[str, Any]],
) -> None:
    reader, _ = bounded
    timeline = reader.timeline()
    middle = len(timeline) // 2
    split_s = timeline[middle]["t_s"]
    before = reader.aggregate("total", end_s=split_s - 1e-6)
    after = reader.aggregate("total", start_s=split_s)
    assert before.allocations == timeline[middle]["allocations"]
    assert before.allocations + after.allocations == reader.aggregate("total").allocations


def test_without_a_limit_a_small_capture_keeps_all_its_cuts(tmp_path: Path) -> None:
    path = tmp_path / "a.pmt"
    result = run(path, 0, seconds=1.0)
    assert result["files"] == 1
    reader = _core.Reader(str(path))
    assert (generated(reader.aggregate("total")), generated(reader.aggregate("leaks"))) == expected(
        result["calls"]
    )
    assert max(cut["epoch"] for cut in reader.timeline()) >= len(reader.timeline())


def test_marks_and_their_epochs_survive(bounded: tuple[_core.Reader, dict[str, Any]]) -> None:
    reader, result = bounded
    labels = [mark["label"] for mark in reader.marks()]
    assert labels == [f"batch {i}" for i in range(len(labels))]
    assert len(labels) == result["calls"] // 20000


def test_a_limit_that_cannot_be_kept_stops_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.pmt"
    result = run(path, 16_000, seconds=1.0)
    assert (result["status"], result["reason"]) == (3, 2)
    assert path.stat().st_size <= 16_000
    reader = _core.Reader(str(path))
    assert "--max-size" in reader.info()["stopped"]
    assert reader.info()["torn"] is None
    assert not (tmp_path / "a.pmt.compact").exists()


def test_forks_interrupt_compaction_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.pmt"
    result = run(path, 120_000, forks=True)
    assert result["biggest"] <= 120_000
    reader = _core.Reader(str(path))
    assert reader.info()["ended"] == "normal"
    timeline = check_timeline(reader)
    assert timeline[-1]["allocations"] == reader.aggregate("total").allocations


def test_killed_at_any_moment_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pmt"
    arguments = json.dumps([str(path), 60_000, 60.0, 0.01, False])
    left_over = tmp_path / "a.pmt.compact"
    compacted = 0
    for round_ in range(12):
        path.unlink(missing_ok=True)
        left_over.write_bytes(b"left by a process that was killed")
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, arguments])
        try:
            started = time.monotonic()
            first = 0
            while time.monotonic() < started + 20:
                # A reader of the running capture sees the old file or the new one, whole.
                if path.exists() and path.stat().st_size > 4096:
                    reader = _core.Reader(str(path))
                    assert not reader.info()["damaged"]
                    first = first or path.stat().st_ino
                    if path.stat().st_ino != first:
                        compacted += 1
                        break
            time.sleep(round_ * 0.013)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        reader = _core.Reader(str(path))
        info = reader.info()
        assert info["ended"] == "killed"
        assert not info["damaged"]
        timeline = check_timeline(reader)
        assert timeline[-1]["allocations"] == reader.aggregate("total").allocations
    assert compacted == 12
    if left_over.exists():  # the next recording does not mind
        left_over.rename(tmp_path / "b.pmt.compact")
    run(tmp_path / "b.pmt", 60_000, seconds=1.0)
    assert not (tmp_path / "b.pmt.compact").exists()
