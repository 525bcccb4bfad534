"""Child of native.py: keeps a known number of bytes by each kind of memory, one kind a function.

Prints what it keeps, by function.
"""

import ctypes
import json
import mmap
import sys
import threading

MIB = 1 << 20
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.calloc.restype, libc.calloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t] * 2
keep = []


def small_objects():
    keep.append([bytes(79) for _ in range(100_000)])
    return 100_000 * (sys.getsizeof(b"") + 79) + sys.getsizeof(keep[-1])


def big_objects():
    keep.append([bytearray(MIB) for _ in range(50)])
    return 50 * MIB


def numpy_arrays():
    import numpy

    keep.append([numpy.empty(MIB, dtype="u1") for _ in range(50)])
    return 50 * MIB


def large_mallocs():
    for _ in range(800):
        libc.malloc(1 << 16)
    return 800 << 16


def small_mallocs():
    for _ in range(100_000):
        libc.malloc(200)
    return 100_000 * 200


def callocs():
    for _ in range(1000):
        libc.calloc(100, 100)
    return 10_000_000


def mappings():
    keep.append(mmap.mmap(-1, 50 * MIB))
    return 50 * MIB


def in_a_thread():
    def work():
        keep.append(bytearray(20 * MIB))
        for _ in range(1000):
            libc.malloc(5000)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return 20 * MIB + 5_000_000


def main():
    kinds = [
        small_objects,
        big_objects,
        large_mallocs,
        small_mallocs,
        callocs,
        mappings,
        in_a_thread,
    ]
    try:
        import numpy  # noqa: F401

        kinds.append(numpy_arrays)
    except ImportError:
        pass
    print(json.dumps({kind.__name__: kind() for kind in kinds}))


main()
