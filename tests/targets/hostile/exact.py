"""Allocations whose numbers are known; ends with a comparison of live bytes with tracemalloc's."""

import gc
import json
import sys
import tracemalloc

from pymemtrace import _core


def hold():
    return [bytearray(1 << 20) for _ in range(100)]  # HELD


def temporaries():
    for n in range(5000):
        bytearray(3000)  # TEMPORARY


def kept_long(kept):
    for n in range(1000):
        kept.append(bytearray(4000))  # LONG


def known():
    global survivors
    _core.start(sys.argv[2], argv=sys.argv)
    held = hold()
    del held[::2]
    _core.mark("held")
    temporaries()
    kept = []
    kept_long(kept)
    _core.mark("long")
    del kept[:900]
    survivors = held, kept
    _core.stop()


def quiescent():
    """Both see the same blocks: live bytes at 20 points, as (ours, tracemalloc's)."""
    global kept
    tracemalloc.start()
    gc.collect()
    base = tracemalloc.get_traced_memory()[0]
    _core.start(sys.argv[2], argv=sys.argv)
    points = []
    kept = []
    for turn in range(20):
        kept.append({str(n): [n, (n, str(n))] for n in range(1000)})
        kept.append(bytearray(turn * 10_000))
        kept.append(json.loads(json.dumps({"a": list(range(2000))})))
        if turn % 3 == 2:
            del kept[: len(kept) // 2]
        _core.flush()
        points.append((_core.status()["live_bytes"], tracemalloc.get_traced_memory()[0] - base))
    for point in points:
        print(*point)
    _core.stop()


globals()[sys.argv[1]]()
