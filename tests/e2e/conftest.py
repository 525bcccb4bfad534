"""Recordings that several tests read."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """\
import threading


def peak():
    return bytearray(50 * 1024 * 1024)


def churn():
    for number in range(20000):
        str(number + 1000) + "x"


def worker():
    global kept
    kept = bytearray(2 * 1024 * 1024)


held = peak()
del held
churn()
thread = threading.Thread(target=worker)
thread.start()
thread.join()
"""
COMMAND = [sys.executable, "-m", "pymemtrace"]


def run_command(*words: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=120
    )


class Recorded:
    """A recording of PROGRAM: known.py and known.pmt in a folder."""

    peak_line, churn_line, worker_line = 5, 10, 15
    peak_bytes, worker_bytes = 50 * 1024 * 1024, 2 * 1024 * 1024

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "known.py"
        self.capture = folder / "known.pmt"


@pytest.fixture(scope="session")
def command() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `pymemtrace` with these words."""
    return run_command


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("a recording")
    (folder / "known.py").write_text(PROGRAM)
    done = run_command("run", "-o", "known.pmt", "known.py", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return Recorded(folder)
