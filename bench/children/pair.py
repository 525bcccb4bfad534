"""Child of pair.py, run by the interpreter that is measured: child.py DEPTH ROUNDS CAPTURE.

Alternates between no recorder, ours and tracemalloc(1) in one process, so that all three see the
same memory, frequency and neighbours. Prints the lowest of each, in ns per pair.
"""

import json
import sys
import tracemalloc

from pymemtrace import _core

DEPTH, ROUNDS, CAPTURE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
SIZE = 48
PASSES = 60  # each of 1,280 pairs


def measure():
    bare, ours, theirs = [], [], []
    for _ in range(ROUNDS):
        bare.append(_core._pair_ns(SIZE, PASSES))
        _core.start(CAPTURE, argv=["pair"], force=True)
        ours.append(_core._pair_ns(SIZE, PASSES))
        _core.stop()
        tracemalloc.start(1)
        theirs.append(_core._pair_ns(SIZE, PASSES // 20 + 1))
        tracemalloc.stop()
    return {"bare": min(bare), "pymemtrace": min(ours), "tracemalloc": min(theirs)}


def deeper(frames):
    return deeper(frames - 1) if frames else measure()


# The module is a frame and measure() is one.
print(json.dumps(deeper(DEPTH - 3) if DEPTH > 2 else measure()))
