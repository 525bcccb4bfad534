"""CPU time that a sampled recording adds to main() of each workload.

With the native layer (as `pymemtrace run --sample` does) and without (--python-only). Rounds are
interleaved and pinned; each mode is divided by the plain run of its own round, and the median
counts. The target is for the allocation-heavy suite as a whole: the geometric mean.

--peers: in the same rounds, at the same mean distance of samples, the memory profilers of ddtrace
and of pyroscope, alone, as children/peer.py starts them. That script imports and runs the workload
by other ways than the interpreter does, so peers are divided by a plain run of its own (`wrapped`).

The C library gives free memory at the top of its heap back, or not, by what happens to lie there
after the start: `threads` took 72,000 page faults or 2,300, and 1.45 times the CPU time, without
any profiler. So the threshold is the same, and high, in all modes.
"""

import math
import statistics
import sys
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
    PRODUCTION,
    PRODUCTION_REQUIREMENTS,
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
SAMPLE_BYTES = 512 << 10
OURS: dict[str, list[str]] = {
    "sampled": ["--sample", "512K"],
    "python only": ["--sample", "512K", "--python-only"],
}
WRAPPED, PEERS = "wrapped", ("ddtrace", "pyroscope")
MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(256 << 20), "MALLOC_TOP_PAD_": str(16 << 20)}


def one(mode: str, venv: Path, workload: str, scale: str, cpu: int | None) -> dict[str, Any]:
    script = BENCH / f"workloads/{WORKLOADS[workload]}.py"
    capture = work_folder("sampled") / f"{workload}.pmt"
    command: list[str | Path] = [venv / "bin/python", script]
    if mode in OURS:
        recorder = [venv / "bin/pymemtrace", "run", "-q", "-f", "-o", capture]
        command = [*recorder, *OURS[mode], script]
    elif mode != "plain":
        peer = [BENCH / "children/peer.py", mode, str(SAMPLE_BYTES), capture.parent]
        command = [venv / "bin/python", *peer, script]
    result = run(command, cpu=cpu, BENCH_SCALE=scale, **MALLOC)
    line = bench_line(result.output)
    size = capture.stat().st_size if capture.exists() else 0
    capture.unlink(missing_ok=True)
    for old in capture.parent.glob("ddtrace*"):
        size += old.stat().st_size
        old.unlink()
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
    p.add_argument("--peers", action="store_true", help="with ddtrace and pyroscope")
    p.add_argument("--venv", help="made by bench/setup.sh (default: .venv-bench; with --peers "
                   ".venv-production)")  # fmt: skip
    args = p.parse_args()
    if args.peers:
        venv = bench_venv(args.venv or PRODUCTION, requirements=PRODUCTION_REQUIREMENTS)
    else:
        venv = bench_venv(args.venv or ".venv-bench")
    modes = ["plain", *OURS, *((WRAPPED, *PEERS) if args.peers else ())]
    ratios: dict[str, dict[str, float]] = {mode: {} for mode in modes}
    lines = []
    same = True
    try:
        for name in args.workloads:
            runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
            for number in range(args.rounds):
                for mode in modes:
                    runs[mode].append(one(mode, venv, name, args.scale, args.cpu))
                seconds = {mode: runs[mode][-1]["cpu"] for mode in modes}
                say(f"{name}, round {number + 1} of {args.rounds}: {seconds}")
            same &= len({each["check"] for every in runs.values() for each in every}) == 1
            for mode in modes:
                base = runs[WRAPPED if mode in PEERS else "plain"]
                each = [r["cpu"] / p["cpu"] for r, p in zip(runs[mode], base, strict=True)]
                ratios[mode][name] = statistics.median(each)
                added = statistics.median(
                    r["peak_kib"] - p["peak_kib"] for r, p in zip(runs[mode], base, strict=True)
                )
                lines.append((f"{name} {mode}", f"{ratios[mode][name]:.3f}",
                              f"{min(each):.3f}-{max(each):.3f}", f"{added / 1024:.1f}",
                              runs[mode][-1]["bytes"] // 1024))  # fmt: skip
    except Failed as error:
        fail(str(error))
    rows = []
    for mode in modes[1:]:
        values = ratios[mode]
        mean = math.exp(statistics.fmean(math.log(value) for value in values.values()))
        worst = max(values, key=values.__getitem__)
        lines.append((f"geometric mean {mode}", f"{mean:.3f}", "", "", ""))
        if mode not in OURS:
            continue
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
