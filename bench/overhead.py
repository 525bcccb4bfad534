"""CPU time that recording adds to main() of each workload, beside the peers.

Rounds are interleaved (plain, A, B, C, plain, …), every run is pinned to one core, and each mode is
divided by the plain run of its own round; shown is the median of these ratios, with the lowest and
the highest. Imports, start and exit of the program are not in it (startup.py has them).

With --native, pymemtrace and memray record native stacks as well.
"""

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

MODES = ("plain", "pymemtrace", "memray", "tracemalloc")
RATIO_TARGET = {"json": 1.25, "deep": 1.5, "native": 1.3, "threads": 1.3, "pandas": 1.3}
OTHER_RATIO_TARGET = 1.35
TIMES_LOWER = {"memray": 4, "tracemalloc": 10}
TIMES_LOWER_NATIVE = {"memray": 2}


def command(mode: str, venv: Path, script: Path, capture: Path, native: bool) -> list[str | Path]:
    python = venv / "bin/python"
    more = ["--native"] if native else []
    if mode == "plain":
        return [python, script]
    if mode == "pymemtrace":
        return [venv / "bin/pymemtrace", "run", *more, "-q", "-f", "-o", capture, script]
    if mode == "memray":
        options = [*more, "--trace-python-allocators", "-q", "-f", "-o", capture]
        return [python, "-m", "memray", "run", *options, script]
    return [python, "-X", "tracemalloc=1", script]


def one(
    mode: str, venv: Path, workload: str, scale: str, cpu: int | None, native: bool
) -> dict[str, Any]:
    script = BENCH / f"workloads/{WORKLOADS[workload]}.py"
    capture = work_folder("overhead") / f"{workload}.{mode}"
    capture.unlink(missing_ok=True)
    result = run(command(mode, venv, script, capture, native), cpu=cpu, BENCH_SCALE=scale)
    line = bench_line(result.output)
    size = capture.stat().st_size if capture.exists() else 0
    capture.unlink(missing_ok=True)
    return {
        "check": line["check"],
        "cpu": float(line["cpu"]),
        "peak_kib": int(line["peak_kib"]),
        "process_peak_kib": result.peak_kib,
        "capture_bytes": size,
    }


def measure(
    venv: Path,
    workload: str,
    modes: list[str],
    rounds: int,
    scale: str,
    cpu: int | None,
    native: bool,
) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
    for number in range(rounds):
        for mode in modes:
            runs[mode].append(one(mode, venv, workload, scale, cpu, native))
            cpu_s = runs[mode][-1]["cpu"]
            say(f"{workload}, round {number + 1} of {rounds}: {mode} {cpu_s:.3f} s")
    checks = {run["check"] for each in runs.values() for run in each}
    plain = [run["cpu"] for run in runs["plain"]]
    result: dict[str, Any] = {"checks_equal": len(checks) == 1, "checks": sorted(checks)}
    for mode in modes:
        ratios = [run["cpu"] / bare for run, bare in zip(runs[mode], plain, strict=True)]
        added = [
            run["process_peak_kib"] - bare["process_peak_kib"]
            for run, bare in zip(runs[mode], runs["plain"], strict=True)
        ]
        result[mode] = {
            "cpu_s": statistics.median(run["cpu"] for run in runs[mode]),
            "ratio": statistics.median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
            "peak_added_kib": statistics.median(added),
            "capture_bytes": statistics.median(run["capture_bytes"] for run in runs[mode]),
        }
    # How much a ratio moves when nothing is different.
    result["plain_spread"] = max(plain) / min(plain)
    return result


def targets(results: dict[str, Any], native: bool) -> list[Row]:
    rows = []
    times_lower = TIMES_LOWER_NATIVE if native else TIMES_LOWER
    for name, result in results.items():
        if "pymemtrace" not in result:
            continue
        ours = result["pymemtrace"]["ratio"]
        target = RATIO_TARGET.get(name, OTHER_RATIO_TARGET)
        if not native:
            rows.append(Row(f"CPU ratio, {name}", f"<= {target}", f"{ours:.3f}", ours <= target))
        for peer, times in times_lower.items():
            if peer not in result:
                continue
            theirs = result[peer]["ratio"]
            text = "no overhead seen"
            lower = float("inf")
            if ours > 1:
                lower = (theirs - 1) / (ours - 1)
                text = f"{lower:.1f} x lower"
            text += f" ({ours:.2f}, {theirs:.2f})"
            rows.append(
                Row(f"overhead against {peer}, {name}", f">= {times} x lower", text, lower >= times)
            )
        rows.append(
            Row(f"result of {name}", "the same in all modes",
                "the same" if result["checks_equal"] else f"differs: {result['checks']}",
                result["checks_equal"])
        )  # fmt: skip
    return rows


def lines(results: dict[str, Any], modes: list[str]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, result in results.items():
        for mode in modes:
            r = result[mode]
            spread = f"{r['ratio_low']:.3f}-{r['ratio_high']:.3f}"
            if mode == "plain":
                spread = f"runs within {100 * (result['plain_spread'] - 1):.1f} %"
            size = f"{r['capture_bytes'] / 1e6:.2f}" if r["capture_bytes"] else ""
            rows.append((f"{name} {mode}", f"{r['cpu_s']:.3f}", f"{r['ratio']:.3f}", spread,
                         f"{r['peak_added_kib'] / 1024:.1f}", size))  # fmt: skip
    return rows


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--workloads", type=words, default=list(WORKLOADS), help=" ".join(WORKLOADS))
    p.add_argument("--modes", type=words, default=list(MODES), help=" ".join(MODES))
    p.add_argument("--native", action="store_true", help="with native stacks")
    p.add_argument("--scale", default="1", help="multiplies the rounds inside a workload")
    p.add_argument("--cpu", type=int, help="the core (default: the last)")
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    modes = ["plain"] + [mode for mode in args.modes if mode != "plain"]
    if args.native and "tracemalloc" in modes:
        modes.remove("tracemalloc")
    for name in modes:
        if name not in MODES:
            fail(f"there is no mode {name!r}: {' '.join(MODES)}")
    for name in args.workloads:
        if name not in WORKLOADS:
            fail(f"there is no workload {name!r}: {' '.join(WORKLOADS)}")
    venv = bench_venv(args.venv)
    results = {}
    try:
        for name in args.workloads:
            results[name] = measure(
                venv, name, modes, args.rounds, args.scale, args.cpu, args.native
            )
    except Failed as error:
        fail(str(error))
    text = table(
        ("workload", "CPU s", "ratio", "lowest-highest", "peak MiB +", "capture MB"),
        lines(results, modes),
    )
    data: dict[str, Any] = {"native": args.native}
    data |= {"rounds": args.rounds, "scale": args.scale, "workloads": results}
    return finish(args, text, data, targets(results, args.native))


if __name__ == "__main__":
    sys.exit(main())
