"""Children made in the way that the first argument names. A child keeps KEPT, has INHERITED from its
parent, and lives long enough to be worth a capture."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time


def inherit():
    return [bytearray(10_000) for _ in range(100)]  # INHERITED


def keep():
    kept = [bytearray(20_000) for _ in range(100)]  # KEPT
    time.sleep(0.05)
    return kept


def wait_for(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forks(end):
    inherited = inherit()
    pid = os.fork()
    if pid == 0:
        kept = keep()
        del inherited[:50]
        if end == "exit":
            sys.exit(3)
        if end == "_exit":
            os._exit(len(kept))
        if end == "c_exit":
            ctypes.CDLL(None)._Exit(5)
        if end == "returns":
            return
        time.sleep(1.3)  # one flush comes
        os.kill(os.getpid(), signal.SIGKILL)
    print(wait_for(pid), len(inherited))


def still():
    inherited = inherit()
    pid = os.fork()
    if pid == 0:
        time.sleep(0.05)
        os._exit(0)
    print(wait_for(pid), len(inherited))


def nested():
    inherited = inherit()
    pids = []
    pid = os.fork()
    if pid == 0:
        pid = os.fork()  # before it has a capture
        kept = keep()
        status = 0 if pid == 0 else wait_for(pid)
        os._exit(len(kept) + status // 100)
    pids.append(wait_for(pid))
    pid = os.fork()
    if pid == 0:
        first = keep()
        pid = os.fork()  # when it has one
        if pid == 0:
            kept = keep()
            del first
            os._exit(len(kept))
        os._exit(wait_for(pid))
    pids.append(wait_for(pid))
    print(pids, len(inherited))


def thread():
    """A fork from a thread while others allocate with the GIL and without it."""
    stop = threading.Event()
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]

    def with_gil():
        while not stop.is_set():
            [bytearray(n * 10) for n in range(100)]

    def without_gil():
        while not stop.is_set():
            blocks = [libc.malloc(n) for n in range(1, 600, 7)]
            for block in blocks:
                libc.free(block)

    def fork():
        statuses = set()
        for turn in range(30):
            pid = os.fork()
            if pid == 0:
                kept = [bytearray(20_000) for _ in range(100)]
                time.sleep(0.03 if turn % 3 == 0 else 0)
                os._exit(len(kept))
            statuses.add(wait_for(pid))
        print(statuses)

    threads = [threading.Thread(target=f) for f in (with_gil, without_gil, without_gil)]
    for t in threads:
        t.start()
    forker = threading.Thread(target=fork)
    forker.start()
    forker.join()
    stop.set()
    for t in threads:
        t.join()


def work(number):
    return len(keep()) + number


def pool(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as workers:
        print(sorted(workers.map(work, range(4))))
        workers.close()
        workers.join()


def executor(method):
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as workers:
        print(sorted(workers.map(work, range(4))))


def process(method):
    child = multiprocessing.get_context(method).Process(target=keep)
    child.start()
    child.join()
    print(child.exitcode)


CODE = (
    "import os, sys, time\n"
    "kept = [bytearray(20_000) for _ in range(100)]\n"
    "print(sorted(v for v in os.environ if 'PYMEM' in v or 'PRELOAD' in v), sys.argv, "
    "sys.orig_argv[1:], sys.path[:1], sys.flags.isolated, __name__, flush=True)\n"
    "sys.exit(len(kept))\n"
)


def run(*words, **how):
    done = subprocess.run(words, capture_output=True, text=True, **how)
    print(done.returncode, done.stdout, done.stderr)


def executes(how):
    python = sys.executable
    if how == "plain":
        run(python, "-c", CODE, "a", "-b")
    elif how == "empty":
        run(python, "-c", CODE, env={})
    elif how == "isolated":
        run(python, "-I", "-c", CODE)
    elif how == "ignoring":
        run(python, "-E", "-c", CODE)
    elif how == "bare":
        run(python, "-S", "-s", "-c", CODE)
    elif how == "stdin":
        run(python, "-", input=CODE)
    elif how == "module":
        run(python, "-m", "child_module", "x")
    elif how == "script":
        run("./script.py", "x")
    elif how == "shell":
        run("./script.py x", shell=True)
    elif how == "by_env":
        run("./by_env.py", "x", env={"PATH": os.path.dirname(python) + ":/bin:/usr/bin"})
    elif how == "preexec":
        run(python, "-c", CODE, preexec_fn=lambda: None)
    elif how == "preloaded":
        run(python, "-c", CODE, env={"LD_PRELOAD": "libm.so.6"})
    elif how == "spawn":
        pid = os.posix_spawn(python, [python, "-c", CODE], {"ONE": "1"})
        print(wait_for(pid))
    elif how == "spawnp":
        pid = os.posix_spawnp("python", ["python", "-c", CODE], os.environ)
        print(wait_for(pid))
    elif how == "fork_exec":
        pid = os.fork()
        if pid == 0:
            os.execve(python, [python, "-c", CODE], {})
        print(wait_for(pid))
    elif how == "late_exec":
        pid = os.fork()
        if pid == 0:
            keep()
            os.execlp("python", "python", "-c", CODE)
        print(wait_for(pid))
    elif how == "itself":
        sys.stdout.flush()
        os.execv(python, [python, "-c", CODE])


def others():
    """Programs that are no Python see what they should see."""
    show = "tr '\\0' '\\n' < /proc/self/environ | grep -c PYMEM; env | grep -e PYMEM -e PRELOAD"
    run("/usr/bin/printenv")
    run("sh", "-c", "env; echo; " + show)
    run("/bin/sh", "-c", "env | sort", env={"ONLY": "this"})
    sys.stdout.flush()
    os.system("env | grep -e PYMEM -e PRELOAD")
    print(os.popen("env | grep -e PYMEM -e PRELOAD").read())


def failing():
    """What exec refuses leaves the process recording."""
    before = inherit()
    for path in ("/no/such/program", "/tmp", __file__):
        try:
            os.execv(path, [path])
        except OSError as error:
            print(error.errno)
    try:
        subprocess.run(["/no/such/program"])
    except OSError as error:
        print(error.errno)
    kept = keep()
    time.sleep(1.2)
    print(len(before) + len(kept))


def daemon():
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.closerange(0, 4096)
        kept = keep()
        for n in range(100):
            os.open(f"daemon.{n}", os.O_CREAT | os.O_RDWR, 0o600)
        time.sleep(1.2)
        for n in range(100):
            os.write(n, b"daemon")
        more = keep()
        os.open("daemon.done", os.O_CREAT | os.O_RDWR, 0o600)
        os._exit(len(kept) + len(more))
    print(wait_for(pid))


def quick():
    for turn in range(200):
        pid = os.fork()
        if pid == 0:
            [bytearray(100) for _ in range(100)]
            os._exit(turn % 100)
        assert wait_for(pid) == turn % 100
    print("done")


def read_only():
    """The child may not write where its capture belongs."""
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        kept = keep()
        time.sleep(1.1)
        pid = os.fork()
        if pid == 0:
            os._exit(len(kept))
        os._exit(wait_for(pid) + 1)
    print(wait_for(pid))


def chroot():
    os.mkdir("empty")
    pid = os.fork()
    if pid == 0:
        os.chroot("empty")
        os.chdir("/")
        kept = keep()
        os._exit(len(kept))
    print(wait_for(pid), os.listdir("empty"))


def descriptors():
    """A child has no descriptor that it would not have without us."""
    pid = os.fork()
    if pid == 0:
        print(sorted(os.listdir("/proc/self/fd")), flush=True)
        os._exit(0)
    wait_for(pid)
    # but for its own capture
    run(sys.executable, "-c", "import os; print(sorted({*os.listdir('/proc/self/fd')} - {'900'}))")
    run("ls", "/proc/self/fd")


def threads_of_child():
    """From 3.12 on, a fork warns of threads: not of ours, in a child either."""
    pid = os.fork()
    if pid == 0:
        keep()
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        os._exit(wait_for(pid))
    print(wait_for(pid))


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    globals()[what](*rest)
