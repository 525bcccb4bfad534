"""Child of native.py: ns per malloc + free pair of 64 bytes, as this process sees them.

Printed: with the GIL and without, the lowest of many rounds; of eight threads at once, the mean.
All but the first in a process that has another thread, which waits: the C library's allocator takes
locks and atomic operations only where there is one, and the recorder brings one along.
"""

import json
import sys
import threading

from pymemtrace import _core

ROUNDS = int(sys.argv[1])


def pair(threads, with_gil):
    return _core._malloc_pair_ns(64, ROUNDS, threads, with_gil)


def main():
    pair(1, True)
    alone = pair(1, True)
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return {
        "alone": alone,
        "gil": pair(1, True),
        "no_gil": pair(1, False),
        "threads8": min(pair(8, False) for _ in range(3)),
    }


print(json.dumps(main()))
