"""Child of memory.py: child.py MODE WHAT N CAPTURE. Prints by how many bytes it grew.

WHAT is `live` (N live objects of 48 bytes), `leaves` or `binary` (N distinct stacks that allocate,
in a tree of calls that has ten or two branches at each level), `idle`.
"""

import json
import sys
import time
import tracemalloc
from itertools import repeat

from pymemtrace import _core

MODE, WHAT, N, CAPTURE = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
BRANCHES = 10 if WHAT == "leaves" else 2

# One line, so one call site, per branch. Only the last level allocates, and keeps nothing.
source = (
    "def call(level):\n if not level:\n  bytes(15)\n  return\n" + " call(level - 1)\n" * BRANCHES
)
names = {}
exec(compile(source, "<tree of calls>", "exec"), names)


def memory(field):
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))


def levels(stacks):
    count = 1
    while BRANCHES**count < stacks:
        count += 1
    return count


before = memory("VmRSS")
if MODE == "pymemtrace":
    _core.start(CAPTURE, argv=["memory"], force=True)
elif MODE.startswith("tracemalloc"):
    tracemalloc.start(int(MODE.removeprefix("tracemalloc")))
started = memory("VmRSS")
kept, stacks = [], 0
if WHAT == "live":
    kept = list(map(bytes, repeat(15, N)))  # 33 bytes of header and 15
elif WHAT == "idle":
    time.sleep(2.5)  # two cuts
else:
    stacks = BRANCHES ** levels(N)
    names["call"](levels(N))
    if MODE == "pymemtrace":
        _core.flush()
answer = {"grown": memory("VmRSS") - before, "started": started - before, "stacks": stacks}
answer["peak"] = memory("VmHWM") - before
if MODE == "pymemtrace":
    answer["own_bytes"] = _core.status()["own_bytes"]
    _core.stop()
print(json.dumps(answer))
