"""Child of sampled_pair.py: child.py ROUNDS CAPTURE NATIVE(0 or 1).

Alternates between no recorder and a sampled recording, in one process. Prints the ns per pair of
each round. A thread waits meanwhile: the C library's allocator takes locks only where there is
another thread, and the recorder brings one along. With the native layer, modules stay patched from
the first recording on: the bare rounds are those of a process that has been recorded.
"""

import json
import sys
import threading

from pymemtrace import _core

ROUNDS, CAPTURE, NATIVE = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "1"
SIZE = 48
PASSES = 60  # each of 1,280 pairs

threading.Thread(target=threading.Event().wait, daemon=True).start()
bare, sampled = [], []
_core._pair_ns(SIZE, PASSES)
for number in range(ROUNDS * 2):
    recorded = (number + number // 2) % 2  # 0 1 1 0
    if recorded:
        _core.start(CAPTURE, argv=["pair"], force=True, native=NATIVE, sample_bytes=524288)
    (sampled if recorded else bare).append(_core._pair_ns(SIZE, PASSES))
    if recorded:
        _core.stop()
print(json.dumps({"bare": bare, "sampled": sampled}))
