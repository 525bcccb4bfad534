"""Replaces or wraps the allocators in the way that the argument names; KEPT is what must be seen."""

import ctypes
import sys
import tracemalloc

core = sys.modules.get("pymemtrace._core")


def hold(count=100):
    return [bytearray(10_000) for _ in range(count)]  # KEPT


def after(count=100):
    return [bytearray(10_000) for _ in range(count)]  # AFTER


def plain():
    global kept
    kept = hold() + after()
    print(len(kept))


def tracemalloc_inside():
    """Started and stopped several times while we record."""
    global kept
    kept = []
    for turn in range(5):
        tracemalloc.start(1 + turn)
        kept += hold(20)
        seen = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        kept += after(20)
        print(seen > 200_000)
    print(len(kept))


def tracemalloc_before():
    """Was running before us (PYTHONTRACEMALLOC), stops while we record, and starts again."""
    global kept
    print(tracemalloc.is_tracing())
    kept = hold()
    print(tracemalloc.get_traced_memory()[0] > 1_000_000)
    tracemalloc.stop()
    kept += after()
    del kept[50:150]
    tracemalloc.start(3)
    kept += after(10)
    print(tracemalloc.get_traced_memory()[0] > 100_000)
    tracemalloc.stop()
    print(len(kept))


class Allocator(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]


def replaced():
    """Another hook is put on top and taken off again: here, what is on top, by another context."""
    global kept
    get, put = ctypes.pythonapi.PyMem_GetAllocator, ctypes.pythonapi.PyMem_SetAllocator
    get.restype = put.restype = None
    kept = hold(50)
    for domain in (1, 2):
        now = Allocator()
        get(domain, ctypes.byref(now))
        put(domain, ctypes.byref(now))
    kept += hold(50)
    kept += after()
    print(len(kept))


def restored_below():
    """A hook from before us takes itself off by putting back what it found: ours go with it."""
    import restorer

    global kept
    kept = hold()
    restorer.off()
    kept += after(100)
    if core:
        core.flush()
    kept += [bytearray(20_000) for _ in range(100)]  # AGAIN
    print(len(kept), restorer.calls() > 100)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
