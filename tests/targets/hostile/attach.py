"""Programs to attach to. The first argument names one; each says "ready", works until a file "stop"
is there, and says whether it found everything as it was."""

import asyncio
import ctypes
import os
import select
import signal
import sys
import threading
import time
import zlib


def stopping():
    return os.path.exists("stop")


def keep():
    return [bytearray(10_000) for _ in range(100)]  # KEPT


LEFT = []


def state():
    """What a program can see of itself."""
    return {
        "modules": sorted(sys.modules),
        # where it is reached within os.fork, 3.12 and later may warn of our thread, once
        "names": sorted(set(vars(sys.modules["__main__"])) - {"__warningregistry__"}),
        "threads": sorted(os.listdir("/proc/self/task")),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "handlers": [str(signal.getsignal(number)) for number in range(1, 32)],
        "exception": sys.exc_info(),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "path": list(sys.path),
        "errno": ctypes.get_errno(),
    }


def busy():
    """Computes what can be computed only if no step is lost."""
    checked = 0
    kept = []
    while not stopping():
        for _ in range(50):
            data = bytes(1000) + str(checked).encode()
            for _ in range(20):
                data = zlib.compress(zlib.decompress(zlib.compress(data)))
            while len(data) < 1000:
                data = zlib.decompress(data)
            if data != bytes(1000) + str(checked).encode():
                return False
            checked += 1
        kept = keep()
        LEFT.append(bytearray(10))  # NAMES
    return len(kept) in (0, 100)


def numbers():
    """Nothing but Python code."""
    while not stopping():
        total = 0
        for number in range(20_000):
            total += number
        if total != 199_990_000:
            return False
    return True


def sleeps(seconds):
    """Is a time out of its time?"""
    while not stopping():
        started = time.monotonic()
        time.sleep(float(seconds))
        if time.monotonic() - started < float(seconds):
            return False
    return True


def holds(seconds):
    """Waits in C with the GIL."""
    library = ctypes.PyDLL(None)
    while not stopping():
        library.usleep(int(float(seconds) * 1e6))
        time.sleep(0.05)
    return True


def reads():
    while (line := input()) != "end":
        print(line, flush=True)
    return True


def joins():
    """The main thread waits for others, which work."""
    results = []

    def work():
        results.append(numbers())

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results == [True] * 3


def waits():
    """All threads wait, for a lock and in a pipe."""
    reader, writer = os.pipe()
    got = []
    worker = threading.Thread(target=lambda: got.append(os.read(reader, 10)))
    worker.start()
    lock = threading.Lock()
    lock.acquire()
    while not stopping():
        lock.acquire(timeout=2)
    os.write(writer, b"done")
    worker.join()
    os.close(reader)
    os.close(writer)
    return got == [b"done"]


def threads():
    """Threads of all kinds: they compute, wait for locks, in system calls, for each other."""
    results = []
    lock = threading.Lock()
    condition = threading.Condition()
    reader, writer = os.pipe()
    poll = select.epoll()
    poll.register(reader, select.EPOLLIN)
    expected = zlib.crc32(bytes(100_000))

    def locks():
        while not stopping():
            with lock:
                total = sum(range(1000))
            if total != 499_500:
                return False
        return True

    def polls():
        while not stopping():
            if poll.poll(0.05):
                return False
        return True

    def conditions():
        while not stopping():
            with condition:
                condition.wait(0.02)
        return True

    def short_lived():
        while not stopping():
            done = []
            worker = threading.Thread(target=lambda: done.append(zlib.crc32(bytes(100_000))))
            worker.start()
            worker.join()
            if done != [expected]:
                return False
        return True

    kinds = [busy, numbers, locks, locks, polls, conditions, short_lived]
    workers = [threading.Thread(target=lambda kind=kind: results.append(kind())) for kind in kinds]
    for worker in workers:
        worker.start()
    well = busy()
    for worker in workers:
        worker.join()
    for number in (reader, writer):
        os.close(number)
    poll.close()
    return well and results == [True] * len(kinds)


def in_handler():
    """The main thread waits in a signal handler, which may have come at any moment."""
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    library.signal(signal.SIGUSR1, ctypes.cast(library.pause, ctypes.c_void_p))
    library.signal(signal.SIGUSR2, ctypes.cast(library.abs, ctypes.c_void_p))
    os.kill(os.getpid(), signal.SIGUSR1)  # until there is another signal
    while not stopping():
        time.sleep(0.01)
    library.signal(signal.SIGUSR1, None)
    library.signal(signal.SIGUSR2, None)
    return True


def recorded():
    """By itself."""
    import pymemtrace

    with pymemtrace.record("own.pmt"):
        return numbers()


def serves():
    """An echo server that has nothing to do for most of the time."""

    async def answer(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def serve():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            print(server.sockets[0].getsockname()[1], flush=True)
            while not stopping():
                await asyncio.sleep(1.5)

    asyncio.run(serve())
    return True


def forks():
    number = 0
    while not stopping():
        number += 1
        pid = os.fork()
        if pid == 0:
            total = sum(number for number in range(20_000))  # it comes to what was asked for, too
            os._exit(number % 100 if total == 199_990_000 else 255)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != number % 100:
            return False
    return True


def handles():
    """A signal handler that raises, all the time: every exception must arrive."""

    class Tick(Exception):
        pass

    raised, caught = 0, 0

    def handler(number, frame):
        nonlocal raised
        raised += 1
        raise Tick(raised)

    signal.signal(signal.SIGALRM, handler)
    while not stopping():
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.003)
            for number in range(100_000_000):
                number += 1
        except Tick:
            caught += 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return raised == caught > 0


def interrupted():
    """SIGINT, from itself, all the time."""
    raised, caught = 0, 0
    reader, writer = os.pipe()

    def interrupt():
        while os.read(reader, 1) == b"x":
            time.sleep(0.003)
            os.kill(os.getpid(), signal.SIGINT)

    worker = threading.Thread(target=interrupt)
    worker.start()
    while not stopping():
        try:
            raised += 1
            os.write(writer, b"x")  # no lock of threading's, which an exception could leave taken
            for number in range(100_000_000):
                number += 1
        except KeyboardInterrupt:
            caught += 1
    os.write(writer, b"-")
    worker.join()
    os.close(reader)
    os.close(writer)
    return raised == caught > 0


def other_user(uid):
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
    return busy()


PROGRAMS = (busy, numbers, sleeps, holds, reads, joins, waits, threads, in_handler, recorded,
            serves, forks, handles, interrupted, other_user)  # fmt: skip


def main(name, *words):
    program = {program.__name__: program for program in PROGRAMS}[name]
    state()  # looks up some names for the first time
    before = state()
    print("ready", flush=True)
    well = program(*words)
    for _ in range(50):  # a thread that was joined may be on its way out
        after = state()
        if after["threads"] == before["threads"]:
            break
        time.sleep(0.1)
    different = [key for key in before if before[key] != after[key]]
    print("well" if well and not different else f"{well} {different}", flush=True)
    for key in different:
        print(key, before[key], after[key], sep="\n  ", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
