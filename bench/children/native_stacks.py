"""Child of native_stacks.py: child.py LEVELS ROUNDS CAPTURE.

LEVELS calls of Python functions by C functions, so that both kinds of frames lie on the stack. At
the bottom a pair of malloc + free is timed without a recorder, recorded, and recorded with native
stacks, in turn: the same pair over and over ("still"), and pairs from levels that change, so that a
part of the stack is new each time ("moving"). Prints the lowest of each in ns, and what the stacks
were like.
"""

import functools
import json
import sys
import time

from pymemtrace import _core

LEVELS, ROUNDS, CAPTURE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
SIZE = 48
PASSES = 20  # each of 1,280 pairs
MOVES = 3000
MODES = {"bare": None, "recorded": False, "native": True}


def step(_, work):
    return work()


def through_c(level, work):
    """Calls work() below so many C functions that call back."""
    if level == 0:
        return work()
    return functools.reduce(step, [lambda: through_c(level - 1, work)], None)


def moving():
    """ns for one object from here and one from a level of C further up."""
    begin = time.perf_counter_ns()
    for _ in range(MOVES):
        object()
        through_c(1, object)
    return (time.perf_counter_ns() - begin) / MOVES


def facts():
    """Of a recording with native stacks: frames of the deepest stack, events per move."""
    _core.start(CAPTURE, argv=["pair"], force=True, native_traces=True)
    moving()
    _core.stop()
    reader = _core.Reader(CAPTURE)
    stacks = [row["stack"] for row in reader.aggregate("total").sites()]
    deepest = max(stacks, key=len)
    native = sum("+0x" in frame["function"] for frame in deepest)
    return {
        "native_frames": native,
        "python_frames": len(deepest) - native,
        "events": reader.stats()["allocations"] / MOVES,
    }


def measure():
    found = {f"{mode}_{what}": [] for mode in MODES for what in ("still", "moving")}
    for _ in range(ROUNDS):
        for mode, native in MODES.items():
            if native is not None:
                _core.start(CAPTURE, argv=["pair"], force=True, native_traces=native)
            found[f"{mode}_still"].append(_core._pair_ns(SIZE, PASSES))
            found[f"{mode}_moving"].append(moving())
            if native is not None:
                _core.stop()
    return {name: min(values) for name, values in found.items()} | facts()


print(json.dumps(through_c(LEVELS, measure)))
