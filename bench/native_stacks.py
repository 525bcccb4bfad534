"""What native stacks (--native) cost per record, and on whole workloads against memray's.

The pair is measured in one process, with some forty native frames between those of Python on the
stack, beside nothing and beside a recording without native frames. For the workloads,
`overhead.py --native` divides CPU times; here the time that --native adds to a recording is divided
by the number of allocations: what one record costs on the stacks of that program.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
    WORKLOADS,
    Failed,
    Row,
    bench_line,
    bench_venv,
    fail,
    finish,
    json_line,
    parser,
    run,
    say,
    table,
    words,
    work_folder,
)

TARGET_NS = 150.0
LEVELS = 9  # calls of Python by C: some forty native frames


def pair(venv: Path, rounds: int, cpu: int | None) -> dict[str, Any]:
    capture = work_folder("native_stacks") / "pair.pmt"
    child = [venv / "bin/python", BENCH / "children/native_stacks.py", str(LEVELS), str(rounds)]
    found: dict[str, Any] = json_line(run([*child, capture], cpu=cpu).output)
    say(str(found))
    return found


def allocations(venv: Path, capture: Path) -> int:
    command = [venv / "bin/pymemtrace", "stats", "--json", capture]
    done = subprocess.run(command, capture_output=True, check=True)
    return int(json.loads(done.stdout)["allocations"])


def workload(venv: Path, name: str, rounds: int, scale: str, cpu: int | None) -> dict[str, float]:
    capture = work_folder("native_stacks") / f"{name}.pmt"
    script = BENCH / f"workloads/{WORKLOADS[name]}.py"
    added, count = [], 0
    for number in range(rounds):
        cpu_s = []
        for more in ([], ["--native"]):
            command = [venv / "bin/pymemtrace", "run", *more, "-q", "-f", "-o", capture, script]
            cpu_s.append(float(bench_line(run(command, cpu=cpu, BENCH_SCALE=scale).output)["cpu"]))
        count = allocations(venv, capture)
        added.append((cpu_s[1] - cpu_s[0]) / count * 1e9)
        say(f"{name}, round {number + 1} of {rounds}: {cpu_s}, {count} allocations")
    capture.unlink(missing_ok=True)
    return {"allocations": count, "ns": statistics.median(added)}


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--workloads", type=words, default=list(WORKLOADS), help=" ".join(WORKLOADS))
    p.add_argument("--scale", default="0.2", help="multiplies the rounds inside a workload")
    p.add_argument("--cpu", type=int, help="the core (default: the last)")
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    venv = bench_venv(args.venv)
    try:
        stack = pair(venv, 10, args.cpu)
        each = {
            name: workload(venv, name, args.rounds, args.scale, args.cpu) for name in args.workloads
        }
    except Failed as error:
        fail(str(error))
    still = stack["native_still"] - stack["recorded_still"]
    moving = (stack["native_moving"] - stack["recorded_moving"]) / stack["events"]
    frames = f"{stack['native_frames']} native and {stack['python_frames']} Python frames"
    rows = [
        Row(f"ns that native frames add to a record, {frames}, the same stack", f"<= {TARGET_NS:g}",
            f"{still:.0f}", still <= TARGET_NS),
        Row("the same, the top level of C and Python changes every time", f"<= {TARGET_NS:g}",
            f"{moving:.0f}", moving <= TARGET_NS),
    ]  # fmt: skip
    text = table(
        ("workload", "allocations", "ns added to each"),
        [(name, f"{found['allocations']:,}", f"{found['ns']:.0f}") for name, found in each.items()],
    )
    return finish(args, text, {"pair": stack, "workloads": each}, rows)


if __name__ == "__main__":
    sys.exit(main())
