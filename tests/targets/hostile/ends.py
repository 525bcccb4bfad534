"""Allocates what a test knows, then ends in the way that the argument names."""

import os
import signal
import sys
import time

kept = []
core = sys.modules.get("pymemtrace._core")


def allocate():
    for _ in range(100):
        kept.append(bytearray(1 << 20))  # KEPT


def churn():
    for number in range(10_000):
        str(number + 100_000)  # CHURN


def end(how):
    print("ending", how, flush=True)
    if how == "exception":
        raise ValueError("meant")
    if how == "exit":
        sys.exit(7)
    if how == "_exit":
        os._exit(9)
    if how == "abort":
        os.abort()
    if how == "segfault":
        import ctypes

        ctypes.string_at(0)
    os.kill(os.getpid(), getattr(signal, how))
    while True:
        time.sleep(0.01)


allocate()
del kept[::2]
churn()
if core:
    core.flush()
end(sys.argv[1])
