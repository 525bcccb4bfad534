"""What it costs to be watched by `pymemtrace watch`, and what watching costs per process.

As in live.py: one program does small equal pieces of work on a core of its own, and the watcher on
the other core, with metrics, rules and five looks a second, is stopped and continued every other
second. Compared are the CPU time of a piece and that of the recorder's thread. How far every other
second without the watcher differs from the rest without it says what is noise.

Then some programs that allocate a little run at once, and the CPU time of the watcher is divided by
their number: with a look every second and with one every five, as is the default.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import (
    CHECKOUT,
    Failed,
    Row,
    environment,
    fail,
    finish,
    parser,
    say,
    table,
    work_folder,
)
from live import EDGE_S, WINDOW_S, WORK, Compared, cpu_of, schedule_ns, start

TARGET_SHARE, TARGET_WATCHER = 0.001, 0.002

RULES = """\
[[rules]]
name = "growth"
kind = "growth"
metric = "heap"
above = "10TiB/min"
window = "1m"
[[rules]]
name = "exhaustion"
kind = "exhaustion"
within = "1s"
window = "1m"
[[rules]]
name = "site"
kind = "threshold"
metric = "site"
site = "*piece*"
above = "10TiB"
[[rules]]
name = "death"
kind = "death"
actions = ["none"]
[actions.none]
kind = "log"
file = "/dev/null"
"""

# Many lines that hold something, a little of it new all the time.
STEADY = """\
import sys, time
names = {}
exec("\\n".join(f"def f{i}(): return bytearray({100 + i})" for i in range(300)), names)
kept = [names[f"f{i}"]() for i in range(300)]
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for i in range(300):
        kept[i] = names[f"f{i}"]()
    time.sleep(0.1)
"""


@contextmanager
def watcher(venv: Path, folder: Path, interval: float) -> Iterator[int]:
    """Gives its process id, when it watches."""
    (folder / "rules.toml").write_text(RULES)
    cpu = min(os.sched_getaffinity(0))
    process = subprocess.Popen(
        ["taskset", "-c", str(cpu), venv / "bin/pymemtrace", "watch", folder, "--metrics", "0",
         "--rules", folder / "rules.toml", "--interval", str(interval)],
        stderr=subprocess.PIPE, text=True, env=environment(), cwd=folder,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        while "watching" not in (line := process.stderr.readline()):
            if not line:
                raise Failed("the watcher did not start")
        yield process.pid
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.communicate()


def compare(venv: Path, folder: Path, seconds: int) -> tuple[Compared, Compared]:
    """The second is noise: no window of it was watched."""
    process = start(venv, folder / "work.pmt", WORK, seconds + 2)
    windows: list[tuple[float, float, bool]] = []
    result, noise = Compared(), Compared()
    with watcher(venv, folder, 0.2) as pid:
        watched = True
        while len(windows) < seconds / WINDOW_S and process.poll() is None:
            watched = not watched
            os.kill(pid, signal.SIGCONT if watched else signal.SIGSTOP)
            began, writer = time.monotonic(), schedule_ns(process.pid)
            time.sleep(WINDOW_S)
            result.writer_ns[watched].append(schedule_ns(process.pid) - writer)
            windows.append((began + EDGE_S, time.monotonic() - 0.01, watched))
        os.kill(pid, signal.SIGCONT)
        output = process.communicate()[0]
    for line in output.splitlines():
        when, cost = line.split()
        for number, (began, ended, watched) in enumerate(windows):
            if began <= float(when) <= ended:
                result.pieces[watched].append(int(cost))
                if not watched:
                    noise.pieces[number % 4 == 0].append(int(cost))
                break
    return result, noise


def shares(venv: Path, folder: Path, count: int, seconds: int, interval: float) -> float:
    """Of a CPU, per process."""
    processes = [start(venv, folder / f"steady{n}.pmt", STEADY, seconds + 4) for n in range(count)]
    time.sleep(2.0)
    with watcher(venv, folder, interval) as pid:
        cpu, began = cpu_of(pid), time.monotonic()
        time.sleep(seconds)
        share = (cpu_of(pid) - cpu) / (time.monotonic() - began)
    for process in processes:
        process.communicate()
    return share / count


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--seconds", type=int, default=30, help="of each measurement")
    p.add_argument("--processes", type=int, default=8)
    p.add_argument("--venv", default=".venv", help="has the package and prometheus_client")
    args = p.parse_args()
    venv, folder = CHECKOUT / args.venv, work_folder("watch")
    for old in folder.glob("*.pmt"):
        old.unlink()
    try:
        say(f"{args.seconds} s of work")
        compared, noise = compare(venv, folder, args.seconds)
        each = {}
        for interval in (1.0, 5.0):
            say(f"{args.processes} processes, a look every {interval:.0f} s")
            each[interval] = shares(venv, folder, args.processes, args.seconds, interval)
    except Failed as error:
        fail(str(error))
    added = compared.added + compared.writer_added
    lines = [
        ("a piece of work, watcher stopped", f"{compared.piece(False) / 1000:.2f} us"),
        ("watched", f"{compared.piece(True) / 1000:.2f} us"),
        ("added", f"{compared.added:+.3%}"),
        ("noise", f"{noise.added:+.3%}"),
        ("recorder's thread, watcher stopped", f"{compared.writer(False) / 1e6:.2f} ms a second"),
        ("watched", f"{compared.writer(True) / 1e6:.2f} ms a second"),
        ("added, of a CPU", f"{compared.writer_added:+.3%}"),
        ("watcher per process, every 1 s, of a CPU", f"{each[1.0]:.2%}"),
        ("watcher per process, every 5 s, of a CPU", f"{each[5.0]:.2%}"),
    ]
    data = {
        "piece_ns": [compared.piece(False), compared.piece(True)],
        "noise": noise.added,
        "writer_ns": [compared.writer(False), compared.writer(True)],
        "watcher_share": each,
    }
    rows = [
        Row("CPU of a watched program", f"<= +{TARGET_SHARE:.1%}", f"{added:+.3%}",
            added <= TARGET_SHARE),
        Row("watcher's CPU per process", f"<= {TARGET_WATCHER:.1%}", f"{each[5.0]:.2%}",
            each[5.0] <= TARGET_WATCHER),
    ]  # fmt: skip
    return finish(args, table(("watch", ""), lines), {"watch": data}, rows)


if __name__ == "__main__":
    sys.exit(main())
