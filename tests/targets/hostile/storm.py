"""Threads that allocate with and without the GIL, fork, load libraries, and start and stop recordings, all at once.

usage: storm.py SECONDS LIBRARY FOLDER [stop-python|stop-native|stop-sampled]. Says that it is done; anything else, or silence, is a failure.
"""

import _ctypes
import ctypes
import os
import random
import shutil
import sys
import threading
import time

SECONDS, LIBRARY, FOLDER = float(sys.argv[1]), sys.argv[2], sys.argv[3]
WHAT = "".join(sys.argv[4:])
libc = ctypes.CDLL(None)
VOID, SIZE = ctypes.c_void_p, ctypes.c_size_t
for name, result, arguments in (
    ("malloc", VOID, [SIZE]), ("realloc", VOID, [VOID, SIZE]), ("free", None, [VOID]),
):  # fmt: skip
    function = getattr(libc, name)
    function.restype, function.argtypes = result, arguments
worker = ctypes.CDLL(LIBRARY)
worker.storm.argtypes, worker.storm.restype = [ctypes.c_uint, ctypes.c_uint], ctypes.c_ulong
deadline = time.monotonic() + SECONDS
failures = []


def until_the_end(work):
    def run():
        rng = random.Random(threading.get_ident())
        try:
            while time.monotonic() < deadline:
                work(rng)
        except BaseException as error:
            failures.append(f"{work.__name__}: {error!r}")
            raise

    return run


def objects(rng):
    kept = [bytes(rng.randrange(2000)) for _ in range(rng.randrange(500))]
    del kept[:: rng.randrange(1, 4)]


def native(rng):  # ctypes gives the GIL up around each call
    blocks = [libc.malloc(rng.randrange(1, 3000)) for _ in range(50)]
    blocks = [libc.realloc(block, rng.randrange(1, 3000)) for block in blocks]
    for block in blocks:
        libc.free(block)


def native_without_python(rng):  # threads of the library's own allocate, and free each other's blocks
    assert worker.storm(4, 20_000) == 4 * 20_000


def forks(rng):
    child = os.fork()
    if child == 0:
        kept = [bytes(100) for _ in range(1000)]
        os._exit(len(kept) % 256 if rng.random() < 0.5 else 232)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1000 % 256
    time.sleep(0.002)


def libraries(rng):
    copy = f"{FOLDER}/copy{rng.randrange(1 << 40)}.so"
    shutil.copyfile(LIBRARY, copy)
    handle = ctypes.CDLL(copy)
    assert handle.storm(2, 100) == 200
    os.unlink(copy)
    if rng.random() < 0.5:  # another will stand at its addresses
        _ctypes.dlclose(handle._handle)
    time.sleep(0.01)


def threads(rng):
    started = [threading.Thread(target=objects, args=(random.Random(k),)) for k in range(8)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def recordings(rng):
    from pymemtrace import _core

    if _core.is_recording():
        _core.flush()
        if WHAT:
            _core.stop()
    elif WHAT:
        more = {"stop-native": {"native_traces": True}, "stop-sampled": {"sample_bytes": 8192}}
        _core.start(
            f"{FOLDER}/storm.pmt", argv=["storm"], force=True, **more.get(WHAT, {})
        )
    time.sleep(0.01 + 0.05 * rng.random())


def main():
    kinds = [objects, native, native, native_without_python, forks, libraries, threads, recordings]
    running = [threading.Thread(target=until_the_end(kind), daemon=True) for kind in kinds]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(SECONDS + 60)
        if thread.is_alive():
            failures.append("a thread hangs")
    print(*(failures or ["done"]), flush=True)


main()
