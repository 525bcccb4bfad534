"""Programs of unusual shape; the argument names one. Each prints what it must print without us, too."""

import atexit
import gc
import signal
import sys
import threading
import time

core = sys.modules.get("pymemtrace._core")


def held_at(depth):
    if depth == 0:
        return [bytearray(10_000) for _ in range(10)]  # DEEP
    return held_at(depth - 1)


def recursion_error():
    def endless(n):
        return [n, endless(n + 1)]

    try:
        endless(0)
    except RecursionError as error:
        print(type(error).__name__)


def recursion(depth):
    sys.setrecursionlimit(depth + 200)
    threading.stack_size(512 << 20)
    kept = []
    thread = threading.Thread(target=lambda: kept.append(held_at(depth)))
    thread.start()
    thread.join()
    if core:
        core.flush()
    print(len(kept[0]))



def recursion_10000():
    recursion(10_000)


def recursion_100000():
    recursion(100_000)


def exec_equal():
    total = 0
    for n in range(20_000):
        names = {}
        exec("def f(a):\n    return [a, str(a) * 3]\nz = f(1000)", names)
        total += len(names["z"][1])
    print(total)


def exec_distinct():
    total = 0
    for n in range(20_000):
        names = {}
        exec(compile(f"def f{n}(a):\n    return [a, str(a) * 3]\nz = f{n}({n})", f"<made {n}>", "exec"), names)
        total += len(names["z"])
    print(total)


def threads_2000():
    global done
    done = []

    def work(n):
        done.append([str(n), bytearray(2000)])  # THREADS

    for n in range(2000):
        thread = threading.Thread(target=work, args=(n,))
        thread.start()
        if n % 4 == 3:
            thread.join()
    while len(done) < 2000:
        time.sleep(0.001)
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()
    print(len(done))


def daemon_threads():
    def forever():
        while True:
            [bytearray(n) for n in range(100)]

    for _ in range(4):
        threading.Thread(target=forever, daemon=True).start()
    time.sleep(0.1)
    print("leaving")


def raw_threads():
    import bz2
    import lzma
    import zlib

    data = bytes(range(256)) * 500
    out = []

    def work(n):
        for _ in range(2):
            for module in (zlib, bz2, lzma):
                squeezed = module.compress(data)
                out.append(module.decompress(squeezed) == data)
            list(map(str, range(1000)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(out), all(out))


class Late:
    def __init__(self, n):
        self.n = n
        self.me = self

    def __del__(self):
        kept = [bytearray(self.n) for _ in range(10)]
        print("del", self.n, len(kept))


def generator(n):
    try:
        while True:
            yield bytearray(n)
    finally:
        print("closed", n, len([bytearray(n) for _ in range(10)]))


async def coroutine(n):
    try:
        await Sleeping()
    finally:
        print("coroutine", n)


class Sleeping:
    def __await__(self):
        yield 1


def finalisation():
    global late, running, waiting
    late = [Late(n) for n in (10, 20)]
    running = generator(1000)
    next(running)
    waiting = coroutine(1)
    waiting.send(None)
    atexit.register(lambda: print("atexit", len([bytearray(100) for _ in range(1000)])))
    print("main")


def freeze():
    gc.freeze()
    kept = [[n] for n in range(100_000)]
    gc.unfreeze()
    gc.collect()
    print(len(kept))


def switching():
    sys.setswitchinterval(1e-6)
    kept = []

    def work(n):
        mine = []
        for i in range(3000):
            mine.append(bytearray(1000))  # SWITCHING
            [str(i + 1000), (i, n)]
        kept.append(mine)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(map(len, kept)))


def handlers():
    hits = []

    def handle(number, frame):
        hits.append([str(len(hits)), frame.f_lineno, bytearray(600)])
        if len(hits) > 100:
            del hits[:50]

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    kept = []
    for n in range(200_000):
        kept.append(str(n) + "x")
        if len(kept) > 1000:
            kept.clear()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(len(hits) > 0)


def tracing():
    events = []

    def profile(frame, event, arg):
        events.append(event)
        if len(events) > 1000:
            events.clear()

    def trace(frame, event, arg):
        return trace

    threading.setprofile(profile)
    sys.setprofile(profile)
    sys.settrace(trace)
    kept = [bytearray(10_000) for _ in range(100)]  # TRACING
    held = held_at(50)
    thread = threading.Thread(target=held_at, args=(20,))
    thread.start()
    thread.join()
    got = sys.getprofile() is profile, sys.gettrace() is trace
    sys.settrace(None)
    sys.setprofile(None)
    print(got, len(kept), len(held), len(events) > 0)


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def writers():
    """Our threads. One that has been waited for can disappear from the list at any moment."""
    import os

    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                names.append(file.read())
        except OSError:
            pass
    return names.count("pymemtrace\n")


def restarts():
    """Recording started and stopped many times while threads allocate."""
    import os
    import zlib

    from pymemtrace import _core

    stop = threading.Event()
    data = bytes(100_000)

    def busy():
        kept = []
        while not stop.is_set():
            kept.append([bytearray(700), str(len(kept))])
            zlib.compress(data)
            if len(kept) > 100:
                kept.clear()

    def brief():
        while not stop.is_set():
            thread = threading.Thread(target=lambda: bytearray(1000))
            thread.start()
            thread.join()

    threads = [threading.Thread(target=busy) for _ in range(3)] + [threading.Thread(target=brief)]
    for thread in threads:
        thread.start()
    before = None
    for turn in range(100):
        _core.start(f"{turn % 5}.pmt", argv=["x"], force=True)
        kept = [bytearray(1000) for _ in range(100)]
        time.sleep(0.005)
        _core.stop()
        if turn == 9:
            gc.collect()
            before = rss(), writers(), len(os.listdir("/proc/self/fd"))
    gc.collect()
    after = rss(), writers(), len(os.listdir("/proc/self/fd"))
    stop.set()
    for thread in threads:
        thread.join()
    print(after[0] - before[0] < 4 << 20, after[0] - before[0], file=sys.stderr)
    # the threads' own arenas come and go by up to 3 MiB; 64 KiB lost per turn would be 5.8
    print(after[0] - before[0] < 4 << 20, after[1] + before[1], after[2] - before[2])


def gives_back():
    from pymemtrace import _core

    _core.start("first.pmt", argv=["x"])
    _core.stop()
    start = rss()
    _core.start("second.pmt", argv=["x"])
    kept = [(str(n), [n]) for n in range(200_000)]
    names = {}
    for n in range(3000):
        exec(compile(f"def f{n}(a):\n    return [a, str(a) * 3]\nz = f{n}({n})", f"<made {n}>", "exec"), names)
    during = rss()
    held = rss()
    _core.stop()
    freed = held - rss()
    print(freed > 3_000_000, len(kept), file=sys.stderr)
    names.clear()
    del kept
    gc.collect()
    print(freed > 3_000_000, rss() - start < 45 << 20)


def in_interpreter(code, how):
    """Runs code in subinterpreters, three at a time in threads where they have their own GIL."""
    errors = []

    def work():
        try:
            if how == "concurrent":
                from concurrent import interpreters

                one = interpreters.create()
                one.exec(code)
                one.close()
            else:
                import _xxsubinterpreters as interpreters

                one = interpreters.create()
                interpreters.run_string(one, code)
                interpreters.destroy(one)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")

    if how == "concurrent" or sys.version_info >= (3, 12):
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            kept = [[bytearray(n * 10), str(n)] for n in range(200)]  # BESIDE
        for thread in threads:
            thread.join()
    else:
        work()
    return errors


def interpreters(code=None):
    if code is None:
        code = "kept = []\nfor n in range(20000):\n    kept.append([str(n), bytearray(n % 700)])\n    if n % 1000 == 0: kept.clear()\n"
    try:
        from concurrent import interpreters as found  # noqa: F401

        how = "concurrent"
    except ImportError:
        try:
            import _xxsubinterpreters  # noqa: F401

            how = "xx"
        except ImportError:
            import _interpreters  # 3.13: the same module by another name

            sys.modules["_xxsubinterpreters"] = _interpreters
            how = "xx"
    global before
    before = [bytearray(10_000) for _ in range(100)]  # BEFORE
    errors = in_interpreter(code, how)
    after = [bytearray(10_000) for _ in range(100)] 
    print(len(before + after), errors)


def interpreter_import():
    """Recording cannot be started in a subinterpreter, and says so."""
    interpreters(
        "try:\n"
        "    from pymemtrace import _core\n"
        "    _core.start('sub.pmt', argv=['x'])\n"
        "except ImportError:\n"
        "    pass\n"
        "except Exception as error:\n"
        "    assert 'main interpreter' in str(error), error\n"
        "else:\n"
        "    raise RuntimeError('recording')\n"
    )


globals()[sys.argv[1]]()
