"""Boxes of processes that are killed: SIGKILL and a memory limit, at random moments.

Each victim leaks at three sites of known sizes and churns at others, tells the truth about it in
a file (what each site holds, with the time), and is killed: by SIGKILL after a random time, or by
the kernel when it reaches the limit of a control group of its own. Then its box is read: is it
whole, how old is its state, is the site that leads in truth, by more than the interval of the
estimate, the one that leads in the box?

Control groups need root, and version 1 or 2 with the memory controller; without them all victims
get SIGKILL, and the table says so.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import Row, finish, parser, say, table

import pymemtrace

LIMIT = 160 << 20
MAX_AGE_S = 5.0

VICTIM = """
import os, random, sys, time, threading
seed = int(sys.argv[1])
choose = random.Random(seed)
truth = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
held = {"cache": [], "queue": [], "index": []}
sizes = {"cache": choose.randrange(2_000, 60_000), "queue": choose.randrange(200, 5_000),
         "index": choose.randrange(20, 500)}
counts = dict.fromkeys(held, 0)

def cache(n): held["cache"].extend([bytes(sizes["cache"]) for _ in range(n)])
def queue(n): held["queue"].extend([bytes(sizes["queue"]) for _ in range(n)])
def index(n): held["index"].extend([bytes(sizes["index"]) for _ in range(n)])
def churn(): return [[bytes(100) for _ in range(50)] for _ in range(20)]

steps = {"cache": (cache, choose.randrange(1, 20)), "queue": (queue, choose.randrange(1, 200)),
         "index": (index, choose.randrange(1, 2000))}

def background():
    while True:
        churn()
        time.sleep(0.002)
for _ in range(2):
    threading.Thread(target=background, daemon=True).start()
while True:
    for name, (step, n) in steps.items():
        step(n)
        counts[name] += n
    churn()
    figures = " ".join(f"{name}={counts[name] * (sizes[name] + 33)}" for name in counts)
    os.write(truth, f"{time.time():.6f} {figures}\\n".encode())
    time.sleep(choose.random() * 0.02)
"""


@dataclass
class Group:
    """A memory control group with a limit."""

    path: Path
    version: int

    @classmethod
    def make(cls, name: str) -> "Group | None":
        for root, version in ((Path("/sys/fs/cgroup/memory"), 1), (Path("/sys/fs/cgroup"), 2)):
            if version == 2 and not (root / "cgroup.controllers").exists():
                continue
            try:
                path = root / name
                path.mkdir()
            except OSError:
                continue
            group = cls(path, version)
            try:
                if version == 1:
                    (path / "memory.limit_in_bytes").write_text(str(LIMIT))
                    swap = path / "memory.memsw.limit_in_bytes"
                    if swap.exists():
                        swap.write_text(str(LIMIT))
                else:
                    (path / "memory.max").write_text(str(LIMIT))
                    (path / "memory.swap.max").write_text("0")
                return group
            except OSError:
                path.rmdir()
        return None

    def enter(self) -> None:
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        for _ in range(100):
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.02)


@dataclass
class Result:
    kind: str
    readable: bool = False
    age_s: float = 0.0
    leads: bool | None = None  # None: none leads by more than its interval
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def last_truth(path: Path, until: float) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) != 4 or float(words[0]) > until:
            break
        found = {name: int(value) for name, value in (word.split("=") for word in words[1:])}
    return found


def examine(result: Result, box: Path, truth: Path, killed: float) -> None:
    try:
        capture = pymemtrace.open(box)
        info = capture.info()
        rows = capture.sites("leaks")
    except pymemtrace.PymemtraceError as error:
        result.why = str(error)
        return
    result.readable = info["damaged"] is None and info["ended"] == "killed"
    if not result.readable:
        result.why = f"{info['ended']}, {info['damaged']}"
    if info["last_flush"] is None:
        result.readable = False
        result.why = "no state"
        return
    at = datetime.fromisoformat(info["last_flush"]).timestamp()
    result.age_s = killed - at
    estimates = {}
    for row in rows:
        name = row["site"]["function"].split(".")[0]
        if name in ("cache", "queue", "index"):
            old = estimates.get(name, (0, 0, 0))
            estimates[name] = (
                old[0] + row["bytes"], old[1] + row["bytes_low"], old[2] + row["bytes_high"]
            )  # fmt: skip
    true = last_truth(truth, at)
    result.figures = {"true": true, "estimates": estimates}
    if len(true) < 3 or not estimates:
        return
    order = sorted(true, key=lambda name: true[name], reverse=True)
    low, high = estimates.get(order[0], (0, 0, 0))[1:]
    if true[order[0]] - true[order[1]] <= high - low:
        return
    result.leads = max(estimates, key=lambda name: estimates[name][0]) == order[0]
    if not result.leads:
        result.why = f"{order[0]} leads: {true}, box: {estimates}"


def kill_one(number: int, folder: Path, sample: str, by_limit: bool) -> Result:
    box, truth, program = folder / f"{number}.pmt", folder / f"{number}.txt", folder / "victim.py"
    program.write_text(VICTIM)
    truth.touch()
    group = Group.make(f"pymemtrace-kills-{os.getpid()}-{number}") if by_limit else None
    command = [sys.executable, "-m", "pymemtrace", "run", "-q", "--sample", sample, "-o", str(box),
               str(program), str(number), str(truth)]  # fmt: skip
    result = Result("limit" if group else "SIGKILL")
    with subprocess.Popen(
        command, cwd=folder, preexec_fn=group.enter if group else None, stderr=subprocess.PIPE
    ) as process:
        if group is None:
            time.sleep(random.Random(number).uniform(1.2, 5.0))
            process.send_signal(signal.SIGKILL)
            killed = time.time()
            process.wait()
        else:
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                result.why = "the limit did not kill it"
                process.kill()
            killed = time.time()
        assert process.stderr is not None
        error = process.stderr.read().decode(errors="replace")
    if process.returncode != -signal.SIGKILL:
        result.why = f"status {process.returncode}: {error[-300:]}"
    else:
        examine(result, box, truth, killed)
    if group is not None:
        group.remove()
    for path in (box, truth):
        path.unlink(missing_ok=True)
    return result


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--kills", type=int, default=100)
    p.add_argument("--sample", default="64K")
    args = p.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(args.kills):
            results.append(kill_one(number, Path(name), args.sample, number % 2 == 1))
            if results[-1].why:
                say(f"{number}, {results[-1].kind}: {results[-1].why}")
    lines, rows, data = [], [], {}
    for kind in sorted({result.kind for result in results}):
        some = [result for result in results if result.kind == kind]
        kills, readable = len(some), sum(result.readable for result in some)
        oldest = max(result.age_s for result in some)
        clear = sum(result.leads is not None for result in some)
        right = sum(result.leads is True for result in some)
        lines.append((kind, kills, readable, f"{oldest:.2f}", f"{right} of {clear}"))
        data[kind] = {
            "kills": kills, "readable": readable, "oldest_state_s": oldest,
            "leading_site_clear": clear, "leading_site_right": right,
        }  # fmt: skip
        rows.append(Row(f"{kind}: boxes readable", f"{kills} of {kills}", f"{readable} of {kills}",
                        readable == kills))  # fmt: skip
        rows.append(Row(f"{kind}: age of the state", f"<= {MAX_AGE_S:.0f} s", f"{oldest:.2f} s",
                        oldest <= MAX_AGE_S))  # fmt: skip
        rows.append(Row(f"{kind}: top site right where one leads", "all", f"{right} of {clear}",
                        right == clear))  # fmt: skip
    if "limit" not in data:
        rows.append(Row("kills by a memory limit", "half", "no control group can be made", None))
    heads = ("killed by", "kills", "readable", "oldest state, s", "top site right")
    return finish(args, table(heads, lines), {"kills": data}, rows)


if __name__ == "__main__":
    sys.exit(main())
