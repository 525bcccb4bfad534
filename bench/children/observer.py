"""Child of observer.py: child.py MODE FOLDER_OF_ALLOCCOUNT WORKLOAD CAPTURE."""

import gc
import importlib
import json
import os
import sys

MODE, COUNTER, WORKLOAD, CAPTURE = sys.argv[1:]
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
sys.path[:0] = [COUNTER, os.path.dirname(HERE) + "/workloads"]  # noqa: PTH120

import alloccount  # noqa: E402

# Imported in every mode, so that they all start from the same interpreter.
from pymemtrace import _core  # noqa: E402

if MODE == "memray":
    import memray
alloccount.install()
if MODE == "pymemtrace":
    _core.start(CAPTURE, argv=[WORKLOAD], force=True)
elif MODE == "memray":
    tracker = memray.Tracker(CAPTURE, trace_python_allocators=True)
    tracker.__enter__()
gc.collect()  # what starting left in free lists would be allocations saved
started = alloccount.counts()
workload = importlib.import_module(WORKLOAD)
imported = alloccount.counts()
check = workload.main()
after = alloccount.counts()
if MODE == "pymemtrace":
    _core.stop()
elif MODE == "memray":
    tracker.__exit__(None, None, None)


def difference(a, b):
    return {domain: {kind: a[domain][kind] - b[domain][kind] for kind in a[domain]} for domain in a}


print(
    json.dumps(
        {
            "check": check,
            "main": difference(after, imported),
            "imports": difference(imported, started),
        }
    )
)
