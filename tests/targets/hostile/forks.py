"""Forks in the way that the argument names. A child that shows in the capture has the line CHILD."""

import multiprocessing
import os
import sys
import threading
import time


def allocate_in_child():
    kept = []
    for _ in range(200):
        kept.append(bytearray(100_000))  # CHILD
        [str(n) for n in range(100)]
    return len(kept)


def allocate_in_parent():
    return [bytearray(10_000) for _ in range(100)]  # PARENT


def wait_for(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def simple(how):
    before = allocate_in_parent()
    pid = os.fork()
    if pid == 0:
        n = allocate_in_child()
        if how == "_exit":
            os._exit(n % 100)
        sys.exit(3)
    status = wait_for(pid)
    print("child", status, len(before + allocate_in_parent()))


def many():
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            [bytearray(n * 10) for n in range(100)]

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        pid = os.fork()
        if pid == 0:
            allocate_in_child()
            os._exit(0)
        assert wait_for(pid) == 0
    stop.set()
    for thread in threads:
        thread.join()
    print("done")


def loop():
    kept = []
    for _ in range(200):
        kept.append(bytearray(10_000))  # LOOP
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert wait_for(pid) == 0
    print("done", len(kept))


def in_thread():
    thread = threading.Thread(target=simple, args=("_exit",))
    thread.start()
    kept = []
    while thread.is_alive():
        kept = [bytearray(n) for n in range(500)]
    thread.join()
    print(len(kept) in (0, 500))


def worker(n):
    return allocate_in_child() + n


def pool(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as workers:
        print(sorted(workers.map(worker, range(4))))


def daemon():
    """A double fork with all descriptors closed; the grandchild writes its files."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.dup2(write, 2)
        os.closerange(3, 4096)
        files = [os.open(f"daemon.{n}", os.O_CREAT | os.O_RDWR, 0o600) for n in range(100)]
        for turn in range(15):
            allocate_in_child()
            for fd in files:
                os.write(fd, b"daemon")
            time.sleep(0.1)
        os.write(2, b"finished")
        os._exit(0)
    os.close(write)
    wait_for(pid)
    print(os.read(read, 100))


def closes():
    """This process itself closes all descriptors and takes their numbers."""
    kept = [bytearray(10_000) for _ in range(100)]
    os.closerange(3, 4096)
    first = os.open("mine", os.O_CREAT | os.O_RDWR, 0o600)
    files = [os.dup(first) for _ in range(1000)]
    for turn in range(13):
        kept.extend(bytearray(10_000) for _ in range(10))  # AFTER
        os.pwrite(files[turn], b"mine", 0)
        time.sleep(0.1)
    os.closerange(3, 4096)
    print(len(kept), first)


def in_atexit():
    import atexit

    @atexit.register
    def late():
        pid = os.fork()
        if pid == 0:
            allocate_in_child()
            os._exit(0)
        print("late", wait_for(pid), flush=True)

    print("main", flush=True)


def execs():
    if "again" in sys.argv:
        print("second", sys.argv[1:])
        return
    kept = allocate_in_parent()
    core = sys.modules.get("pymemtrace._core")
    if core:
        core.flush()
    print("first", len(kept), flush=True)
    os.execv(sys.executable, [sys.executable, *sys.argv, "again"])


def restarts():
    """The child starts a recording of its own."""
    from pymemtrace import _core

    kept = allocate_in_parent()
    pid = os.fork()
    if pid == 0:
        _core.start("child.pmt", argv=["child"])
        more = [allocate_in_child(), bytearray(12_345)]
        held = [bytearray(50_000) for _ in range(100)]  # HELD
        del kept
        _core.stop()
        os._exit(len(more) + len(held))
    print(wait_for(pid), len(kept))


if __name__ == "__main__":
    what = sys.argv[1]
    if what in ("exit", "_exit"):
        simple(what)
    elif what in ("fork", "spawn", "forkserver"):
        pool(what)
    else:
        globals()[what]()
