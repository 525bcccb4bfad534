"""Programs that do not end well: what they do is as without us, and the capture holds."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import (
    MB,
    TARGETS,
    assert_same,
    assert_sums,
    assert_whole,
    environment,
    line_of,
    plain,
    record,
    row_at,
)

from pymemtrace import _core

SLACK = 4096  # the objects' headers and the list that holds them


def assert_known(reader: _core.Reader) -> None:
    """100 blocks of 1 MB were held, then half of them; then 10,000 strings came and went."""
    peak = row_at(reader, "peak", "ends.py", "KEPT")
    assert 100 * MB <= peak["bytes"] <= 100 * MB + 100 * 120 + SLACK
    end = row_at(reader, "leaks", "ends.py", "KEPT")
    assert 50 * MB <= end["bytes"] <= 50 * MB + 50 * 120 + SLACK
    churn = row_at(reader, "temporary", "ends.py", "CHURN")
    assert 10_000 <= churn["blocks"] <= 20_000  # from 3.12 on, also the number itself
    total = row_at(reader, "total", "ends.py", "CHURN")
    assert total["allocations"] >= churn["blocks"]
    assert row_at(reader, "leaks", "ends.py", "CHURN")["blocks"] <= 1
    assert_sums(reader)


@pytest.mark.parametrize(
    ("how", "status", "ended"),
    [
        ("exception", 1, "normal"),
        ("exit", 7, "normal"),
        ("SIGINT", -signal.SIGINT, "normal"),
        ("_exit", 9, "normal"),
        ("abort", -signal.SIGABRT, "killed"),
        ("segfault", -signal.SIGSEGV, "killed"),
        ("SIGKILL", -signal.SIGKILL, "killed"),
        ("SIGTERM", -signal.SIGTERM, "killed"),
    ],
)
def test_end(how: str, status: int, ended: str) -> None:
    done = assert_same("ends.py", how)
    assert done.status == status
    assert_whole(done.reader, ended)
    assert_known(done.reader)


def test_killed_at_any_instant(tmp_path: Path) -> None:
    """What the program saw written is there, and what is there is consistent."""
    seed = 20240229
    draw = random.Random(seed)
    seen = 0
    for number in range(20):
        path = tmp_path / f"{number}.pmt"
        with subprocess.Popen(
            [sys.executable, TARGETS / "killed.py", path],
            stdout=subprocess.PIPE, env=environment(None), text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.random() * 0.15)
            process.kill()
            out = process.stdout.read().splitlines()
        said = [int(line) for line in out[:-1]]  # the last may be cut off
        reader = _core.Reader(str(path))
        info = reader.info()
        assert info["ended"] == "killed"
        assert info["dropped"] == {}
        assert not info["damaged"]
        assert_sums(reader)
        if not said or said[-1] == 0:
            continue
        seen += 1
        # Each cut ends an epoch. What was allocated before a cut that the program knew of is there.
        cuts = said[-1]
        assert reader.timeline()[-1]["epoch"] >= cuts
        turns = next(i for i, number in enumerate(said) if number == cuts)
        line = line_of("killed.py", "KEPT")
        rows = [r for r in reader.aggregate("total").sites() if r["site"]["line"] == line]
        assert sum(row["allocations"] for row in rows) >= 2 * 50 * turns
    assert seen >= 5


def test_deep_recursion_error() -> None:
    done = assert_same("shapes.py", "recursion_error")
    assert_whole(done.reader)


def test_plain_targets_work() -> None:
    """The comparisons compare something."""
    assert plain("ends.py", "exit").status == 7
    assert record("ends.py", "exit").status == 7
