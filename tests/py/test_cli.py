"""The command line itself; each command has its own tests."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import pymemtrace

COMMAND = str(Path(sys.executable).parent / "pymemtrace")
ENTRIES = [[COMMAND], [sys.executable, "-m", "pymemtrace"]]


def run(entry: list[str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*entry, *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("entry", ENTRIES, ids=["command", "module"])
def test_version_is_the_distribution_s(entry: list[str]) -> None:
    result = run(entry, "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"pymemtrace {version('pymemtrace-profiler')}\n"
    assert pymemtrace.__version__ == version("pymemtrace-profiler")


@pytest.mark.parametrize("entry", ENTRIES, ids=["command", "module"])
def test_an_unknown_command_is_bad_usage(entry: list[str]) -> None:
    result = run(entry, "no-such-command")
    assert (result.returncode, result.stdout) == (2, "")
    assert "invalid choice: 'no-such-command'" in result.stderr


def test_no_command_is_bad_usage() -> None:
    result = run([COMMAND])
    assert (result.returncode, result.stdout) == (2, "")
    assert "COMMAND" in result.stderr
