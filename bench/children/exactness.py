"""Child of exactness.py: child.py WORKLOAD EVERY POINTS FOLDER.

Starts tracemalloc(1), then the recorder, then imports and runs the workload until POINTS pauses
have been compared, one in EVERY. At each: FOLDER/<n>.pmt is the capture as it is, FOLDER/<n>.json
what tracemalloc holds in its domain 0, by line and in total.
"""

import _tracemalloc
import gc
import importlib
import json
import os
import sys
import tracemalloc

from pymemtrace import _core

WORKLOAD, EVERY, POINTS, FOLDER = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
CAPTURE = FOLDER + "/run.pmt"


class Enough(BaseException):
    """Unwinds out of the workload once all points are taken."""


class Pauses:
    def __init__(self):
        self.calls = 0
        self.taken = 0

    def __call__(self):
        self.calls += 1
        if self.calls % EVERY:
            return
        compare(self.taken)
        # tracemalloc does not trace what it makes in _get_traces(): out of the free lists with it,
        # before the program takes it up.
        gc.collect()
        self.taken += 1
        if self.taken == POINTS:
            raise Enough


def copy(source, target):
    """Without Python objects that would outlive it."""
    read = os.open(source, os.O_RDONLY)
    size = os.fstat(read).st_size
    write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    while size > 0:
        size -= os.copy_file_range(read, write, size)
    os.close(read)
    os.close(write)


def compare(number):
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    _core.flush()
    copy(CAPTURE, f"{FOLDER}/{number}.pmt")
    traces = _tracemalloc._get_traces()
    lines = {}
    other = 0
    for trace in traces:
        if trace[0] != 0:
            other += trace[1]
            continue
        top = trace[2][0]
        held = lines.setdefault(top, [0, 0])
        held[0] += trace[1]
        held[1] += 1
    del traces
    rows = [[name, line, *held] for (name, line), held in lines.items()]
    with open(f"{FOLDER}/{number}.json", "w") as file:  # noqa: PTH123
        json.dump({"total": before - other, "lines": rows}, file)


pauses = Pauses()
gc.collect()
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + "/workloads")  # noqa: PTH100, PTH120
tracemalloc.start(1)
_core.start(CAPTURE, argv=[WORKLOAD], force=True, interval_s=3600.0, native=False)
workload = importlib.import_module(WORKLOAD)
workload.pause = pauses
try:
    while True:
        workload.main()
except Enough:
    pass
_core.stop()
tracemalloc.stop()
print(json.dumps({"points": pauses.taken}))
