"""CPU time that a sampled recording adds to main() of each workload.

With the native layer (as `pymemtrace run --sample` does) and without (--python-only). Rounds are
interleaved and pinned; each mode is divided by the plain run of its own round, and the median
counts. The target is for the allocation-heavy suite as a whole: the geometric mean.
"""

import math
import statistics
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
    parser,
    run,
    say,
    table,
    words,
    work_folder,
)

MEAN_TARGET, WORST_TARGET = 1.03, 1.06
MODES: dict[str, list[str]] = {
    "plain": [],
    "sampled": ["--sample", "512K"],
    "python only": ["--sample", "512K", "--python-only"],
}


def one(mode: str, venv: Path, workload: str, scale: str, cpu: int | None) -> dict[str, Any]:
    script = BENCH / f"workloads/{WORKLOADS[workload]}.py"
    capture = work_folder("sampled") / f"{workload}.pmt"
    command: list[str | Path] = [venv / "bin/python", script]
    if mode != "plain":
        recorder = [venv / "bin/pymemtrace", "run", "-q", "-f", "-o", capture]
        command = [*recorder, *MODES[mode], script]
    result = run(command, cpu=cpu, BENCH_SCALE=scale)
    line = bench_line(result.output)
    size = capture.stat().st_size if capture.exists() else 0
    capture.unlink(missing_ok=True)
    return {
        "check": line["check"], "cpu": float(line["cpu"]), "peak_kib": result.peak_kib,
        "bytes": size,
    }  # fmt: skip


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--workloads", type=words, default=list(WORKLOADS), help=" ".join(WORKLOADS))
    p.add_argument("--scale", default="0.5", help="multiplies the rounds inside a workload")
    p.add_argument("--cpu", type=int, help="the core (default: the last)")
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    venv = bench_venv(args.venv)
    ratios: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
    lines = []
    same = True
    try:
        for name in args.workloads:
            runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
            for number in range(args.rounds):
                for mode in MODES:
                    runs[mode].append(one(mode, venv, name, args.scale, args.cpu))
                seconds = {mode: runs[mode][-1]["cpu"] for mode in MODES}
                say(f"{name}, round {number + 1} of {args.rounds}: {seconds}")
            same &= len({each["check"] for every in runs.values() for each in every}) == 1
            for mode in MODES:
                each = [r["cpu"] / p["cpu"] for r, p in zip(runs[mode], runs["plain"], strict=True)]
                ratios[mode][name] = statistics.median(each)
                added = statistics.median(
                    r["peak_kib"] - p["peak_kib"]
                    for r, p in zip(runs[mode], runs["plain"], strict=True)
                )
                lines.append((f"{name} {mode}", f"{ratios[mode][name]:.3f}",
                              f"{min(each):.3f}-{max(each):.3f}", f"{added / 1024:.1f}",
                              runs[mode][-1]["bytes"] // 1024))  # fmt: skip
    except Failed as error:
        fail(str(error))
    rows = []
    for mode in list(MODES)[1:]:
        values = ratios[mode]
        mean = math.exp(statistics.fmean(math.log(value) for value in values.values()))
        worst = max(values, key=values.__getitem__)
        rows.append(Row(f"CPU, {mode}: geometric mean", f"<= {MEAN_TARGET}", f"{mean:.3f}",
                        mean <= MEAN_TARGET))  # fmt: skip
        rows.append(Row(f"CPU, {mode}: worst", f"<= {WORST_TARGET}",
                        f"{values[worst]:.3f} ({worst})",
                        values[worst] <= WORST_TARGET))  # fmt: skip
    rows.append(Row("results of the programs", "the same", "the same" if same else "differ", same))
    text = table(("workload", "ratio", "lowest-highest", "peak MiB +", "capture KiB"), lines)
    return finish(args, text, {"ratios": ratios}, rows)


if __name__ == "__main__":
    sys.exit(main())
