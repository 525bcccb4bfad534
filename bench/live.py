"""What it costs to be watched, how fresh the screen is, and what watching costs.

Through tmux, 80x24. One program does small equal pieces of work on a core of its own; `pymemtrace
live` on the other core is stopped and continued every other second. Compared are the CPU time of a
piece, the lowest of many, as noise only ever adds, and of the recorder's thread, which writes the
file that the viewer reads. Then the time from an allocation to its line on the screen; and the CPU
time of the viewer meanwhile.
"""

import os
import re
import signal
import statistics
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
    last_cpu,
    parser,
    say,
    table,
    work_folder,
)

TARGET_SHARE, TARGET_LATENCY_S, TARGET_VIEWER = 0.001, 2.0, 0.1
SOCKET = f"pymemtrace-bench-{os.getpid()}"

# Says when each piece of work began and how much CPU time of its thread it took.
WORK = """\
import array, sys, time
def piece():
    return {str(i): [i, str(i) * 3, (i, i + 1)] for i in range(1200)}
def main(seconds):
    times, costs = array.array("d"), array.array("q")
    end = time.monotonic() + seconds
    kept = [None] * 20
    number = 0
    while time.monotonic() < end:
        at, began = time.monotonic(), time.thread_time_ns()
        kept[number % 20] = piece()
        costs.append(time.thread_time_ns() - began)
        times.append(at)
        number += 1
    return times, costs
times, costs = main(float(sys.argv[1]))
for at, cost in zip(times, costs):
    print(at, cost)
"""

# A function of a new name allocates more than all before, at a moment that has nothing to do with
# the flushes; it says when.
APPEAR = """\
import random, sys, time
random.seed(7)
kept = []
for number in range(int(sys.argv[1])):
    time.sleep(1.5 + random.random())
    names = {}
    exec(f"def appears_{number}(size):\\n    return bytearray(size)", names)
    del kept[:]
    kept.append(names[f"appears_{number}"]((number + 10) << 20))
    print(number, time.time(), flush=True)
time.sleep(3)
"""


def tmux(*words: object) -> str:
    done = subprocess.run(
        ["tmux", "-L", SOCKET, *map(str, words)], capture_output=True, text=True, check=False
    )
    return done.stdout


@contextmanager
def viewer(venv: Path, capture: Path) -> Iterator[int]:
    """Gives its process id. Not that of the pane: tmux continues what it finds stopped."""
    until(capture.exists, "the capture")
    cpu = min(os.sched_getaffinity(0))
    tmux("-f", "/dev/null", "new-session", "-d", "-x", 80, "-y", 24,
         f"taskset -c {cpu} {venv}/bin/pymemtrace live {capture}; true")  # fmt: skip
    try:
        until(lambda: "1Sites" in tmux("capture-pane", "-p"), "the viewer")
        pane = tmux("list-panes", "-F", "#{pane_pid}").strip()
        yield int(Path(f"/proc/{pane}/task/{pane}/children").read_text().split()[0])
    finally:
        tmux("kill-server")


def until(condition: object, what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            raise Failed(f"{what} did not come: {tmux('capture-pane', '-p')}")
        time.sleep(0.02)


def start(venv: Path, capture: Path, script: str, *words: object) -> "subprocess.Popen[str]":
    capture.unlink(missing_ok=True)
    program = capture.with_suffix(".py")
    program.write_text(script)
    return subprocess.Popen(
        ["taskset", "-c", str(last_cpu()), venv / "bin/pymemtrace", "run", "-q", "-f",
         "-o", capture, program, *map(str, words)],
        stdout=subprocess.PIPE, text=True, env=environment(), cwd=capture.parent,
    )  # fmt: skip


WINDOW_S, EDGE_S = 1.0, 0.15


def schedule_ns(pid: int) -> int:
    """CPU time of all threads but the first: the recorder's."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if task.name != str(pid):
            total += int((task / "schedstat").read_text().split()[0])
    return total


class Compared:
    """Pieces of work and writer's time, while watched and while the viewer stood still."""

    def __init__(self) -> None:
        self.pieces: dict[bool, list[int]] = {True: [], False: []}
        self.writer_ns: dict[bool, list[int]] = {True: [], False: []}

    def piece(self, watched: bool) -> float:
        """The tenth part of the pieces that took least, its mean: in ns."""
        costs = sorted(self.pieces[watched])
        return statistics.fmean(costs[: max(1, len(costs) // 10)])

    def writer(self, watched: bool) -> float:
        return statistics.median(self.writer_ns[watched])

    @property
    def added(self) -> float:
        return self.piece(True) / self.piece(False) - 1

    @property
    def writer_added(self) -> float:
        """In shares of a CPU."""
        return (self.writer(True) - self.writer(False)) / 1e9 / WINDOW_S


def compare(venv: Path, folder: Path, seconds: int) -> Compared:
    process = start(venv, folder / "work.pmt", WORK, seconds + 2)
    windows: list[tuple[float, float, bool]] = []
    result = Compared()
    with viewer(venv, folder / "work.pmt") as pid:
        target = process.pid
        watched = True
        while len(windows) < seconds / WINDOW_S and process.poll() is None:
            watched = not watched
            os.kill(pid, signal.SIGCONT if watched else signal.SIGSTOP)
            began, writer = time.monotonic(), schedule_ns(target)
            time.sleep(WINDOW_S)
            result.writer_ns[watched].append(schedule_ns(target) - writer)
            windows.append((began + EDGE_S, time.monotonic() - 0.01, watched))
        os.kill(pid, signal.SIGCONT)
        output = process.communicate()[0]
    at = 0
    for line in output.splitlines():
        when, cost = line.split()
        while at < len(windows) and float(when) > windows[at][1]:
            at += 1
        if at < len(windows) and float(when) >= windows[at][0]:
            result.pieces[windows[at][2]].append(int(cost))
    return result


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latencies(venv: Path, folder: Path, count: int) -> tuple[list[float], float]:
    """Seconds from the allocation to the screen; the viewer's share of a CPU meanwhile."""
    process = start(venv, folder / "appear.pmt", APPEAR, count)
    assert process.stdout is not None
    seen: dict[int, float] = {}
    with viewer(venv, folder / "appear.pmt") as pid:
        cpu, began = cpu_of(pid), time.monotonic()
        while process.poll() is None:
            for name in re.findall(r"appears_(\d+)", tmux("capture-pane", "-p")):
                seen.setdefault(int(name), time.time())
            time.sleep(0.02)
        share = (cpu_of(pid) - cpu) / (time.monotonic() - began)
    told = dict(line.split() for line in process.stdout.read().splitlines())
    missing = [number for number in told if int(number) not in seen]
    if missing:
        raise Failed(f"not seen: {missing}")
    return [seen[int(number)] - float(at) for number, at in told.items()], share


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--seconds", type=int, default=60, help="of work, watched every other one")
    p.add_argument("--appearances", type=int, default=15)
    p.add_argument("--venv", default=".venv", help="has the package and textual")
    args = p.parse_args()
    venv, folder = CHECKOUT / args.venv, work_folder("live")
    try:
        say(f"{args.seconds} s of work")
        compared = compare(venv, folder, args.seconds)
        say("appearances")
        times, share = latencies(venv, folder, args.appearances)
    except Failed as error:
        fail(str(error))
    lines = [
        ("a piece of work, viewer stopped", f"{compared.piece(False) / 1000:.2f} us"),
        ("watched", f"{compared.piece(True) / 1000:.2f} us"),
        ("added", f"{compared.added:+.3%}"),
        ("recorder's thread, viewer stopped", f"{compared.writer(False) / 1e6:.2f} ms a second"),
        ("watched", f"{compared.writer(True) / 1e6:.2f} ms a second"),
        ("added, of a CPU", f"{compared.writer_added:+.3%}"),
        ("allocation to screen, median", f"{statistics.median(times):.2f} s"),
        ("longest", f"{max(times):.2f} s"),
        ("viewer's share of a CPU", f"{share:.1%}"),
    ]
    added = compared.added + compared.writer_added
    data = {
        "piece_ns": [compared.piece(False), compared.piece(True)],
        "writer_ns": [compared.writer(False), compared.writer(True)],
        "latency_s": times,
        "viewer_share": share,
    }
    rows = [
        Row("CPU of a watched program", f"<= +{TARGET_SHARE:.1%}", f"{added:+.3%}",
            added <= TARGET_SHARE),
        Row("allocation to screen", f"<= {TARGET_LATENCY_S:.0f} s", f"{max(times):.2f} s at most",
            max(times) <= TARGET_LATENCY_S),
        Row("viewer's CPU", f"<= {TARGET_VIEWER:.0%}", f"{share:.1%}", share <= TARGET_VIEWER),
    ]  # fmt: skip
    return finish(args, table(("live", ""), lines), {"live": data}, rows)


if __name__ == "__main__":
    sys.exit(main())
