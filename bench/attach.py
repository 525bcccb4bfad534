"""What a process feels of `pymemtrace attach` and `detach`: for how long it stands still.

The process counts the time on a core of its own, with no, some and many other threads that wait;
the command runs on the others. "held": what the command measures, from before the first thread is
asked to stop until the last one was let go (`--verbose`). "longest gap": what the main thread of
the process itself sees between two looks at the clock, the call of our code included. "without":
the same where nobody attaches.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time

from harness import Row, fail, finish, last_cpu, parser, say, table, work_folder

# Times of gaps of more than 20 us, as the monotonic clock gives them, which all processes share.
PROGRAM = """\
import json, os, sys, threading, time
os.sched_setaffinity(0, {int(sys.argv[1])})
for _ in range(int(sys.argv[2])):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
gaps = []
print("ready", flush=True)
clock = time.perf_counter
last = clock()
while not os.path.exists("stop"):
    for _ in range(20_000):
        now = clock()
        if now - last > 20e-6:
            gaps.append((last, now))
        last = now
    last = clock()
print(json.dumps(gaps), flush=True)
os._exit(0)
"""
MODES = {"sampled": [], "full": ["--full"]}
METHODS = ("remote-exec", "ptrace")


def command(what: str, pid: int, method: str, cpu: int, *words: str) -> tuple[float, float, float]:
    """Start, end, and the seconds for which the process was held."""
    others = sorted(os.sched_getaffinity(0) - {cpu}) or [cpu]
    begun = time.perf_counter()
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, others)), sys.executable, "-P", "-m", "pymemtrace",
         what, str(pid), "-v", "--method", method, *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        fail(f"{what} failed: {done.stderr}")
    held = re.findall(r"stood still for ([\d.]+) us", done.stderr)
    return begun, time.perf_counter(), sum(map(float, held)) / 1e6


def measure(method: str, mode: str, threads: int, rounds: int, cpu: int) -> dict[str, float]:
    folder = work_folder("attach")
    stop = folder / "stop"
    stop.unlink(missing_ok=True)
    (folder / "x.pmt").unlink(missing_ok=True)
    with subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, str(cpu), str(threads)], cwd=folder, text=True,
        stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        spans: dict[str, list[tuple[float, float, float]]] = {"attach": [], "detach": [], "no": []}
        try:
            for _ in range(rounds):
                output = ["-f", "-q", "-o", str(folder / "x.pmt"), *MODES[mode]]
                spans["attach"].append(command("attach", process.pid, method, cpu, *output))
                spans["detach"].append(command("detach", process.pid, method, cpu, "-q"))
                begun = time.perf_counter()
                time.sleep(0.3)
                spans["no"].append((begun, time.perf_counter(), 0.0))
        finally:
            stop.touch()
        gaps = json.loads(process.stdout.readline())
    result = {}
    for what, found in spans.items():
        longest = [
            max((end - start for start, end in gaps if begun <= end <= over), default=0.0)
            for begun, over, _ in found
        ]
        result[f"{what}_gap_us"] = 1e6 * statistics.median(longest)
        result[f"{what}_gap_min_us"] = 1e6 * min(longest)
        result[f"{what}_gap_max_us"] = 1e6 * max(longest)
        held = [held for *_, held in found]
        result[f"{what}_held_us"] = 1e6 * statistics.median(held)
        result[f"{what}_held_min_us"] = 1e6 * min(held)
        result[f"{what}_held_max_us"] = 1e6 * max(held)
    return result


def spread(result: dict[str, float], name: str) -> str:
    return " / ".join(f"{result[f'{name}_{part}us']:,.0f}" for part in ("min_", "", "max_"))


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--cpu", type=int, default=last_cpu(), help="the core of the process")
    p.add_argument("--threads", default="0,8,100", help="that wait, beside the main thread")
    args = p.parse_args()
    results, lines = {}, []
    for method in METHODS:
        if method == "remote-exec" and sys.version_info < (3, 14):
            continue
        for threads in map(int, args.threads.split(",")):
            for mode in MODES:
                say(f"{method}, {mode}, {threads} more threads")
                r = measure(method, mode, threads, args.rounds, args.cpu)
                results[f"{method}/{mode}/{threads}"] = r
                lines.append(
                    (f"{method}, {mode}, {threads}",
                     *(spread(r, f"{what}_{kind}")
                       for what in ("attach", "detach") for kind in ("held", "gap")),
                     spread(r, "no_gap"))
                )  # fmt: skip
    heads = ("us: lowest / median / highest", "attach held", "longest gap", "detach held",
             "longest gap", "without")  # fmt: skip
    worst = max(r["attach_held_us"] for r in results.values())
    rows = [Row("attach", "held for less than 10 ms (median)", f"{worst:,.0f} us", worst < 10_000)]
    return finish(args, table(heads, lines), {"attach": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
