"""Live bytes against tracemalloc, stacks against a plain walk: on random programs."""

import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = Path(__file__).resolve().parents[1] / "targets"

LIVE = """
import gc, sys, tracemalloc
sys.path.insert(0, sys.argv[1])
import random_stacks
from pymemtrace import _core
tracemalloc.start(1)
_core.start("live.pmt", argv=["live"], native=False)
theirs, ours = tracemalloc.get_traced_memory()[0], _core.status()["live_bytes"]
random_stacks.main(int(sys.argv[2]), 100)
gc.collect()
theirs -= tracemalloc.get_traced_memory()[0]
ours -= _core.status()["live_bytes"]
_core.stop()
print(-theirs, -ours)
"""

STACKS = """
import sys
sys.path.insert(0, sys.argv[1])
import random_stacks
from pymemtrace import _core
_core.start("stacks.pmt", argv=["stacks"], native_traces=len(sys.argv) > 3)
_core._check_stacks(True)
random_stacks.main(int(sys.argv[2]), 150)
print(*_core._check_stacks(False))
_core.stop()
"""


def numbers(code: str, seed: int, *more: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", code, str(TARGETS), str(seed), *more],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("seed", [1, 5])
def test_live_bytes_are_those_of_tracemalloc(seed: int) -> None:
    theirs, ours = numbers(LIVE, seed)
    # The two are asked one after the other: the first answer's own objects lie between.
    assert abs(theirs - ours) < 600


@pytest.mark.parametrize("more", [(), ("native",)], ids=["python", "native"])
@pytest.mark.parametrize("seed", [2, 6])
def test_stacks_are_those_of_a_plain_walk(seed: int, more: tuple[str, ...]) -> None:
    compared, different = numbers(STACKS, seed, *more)
    assert compared > 50_000
    assert different == 0
