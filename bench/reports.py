"""Time and memory of the reports on a long run: a workload with 60 million allocations and more.

The run is recorded once (its capture is kept in build/bench/reports and used again with --keep);
each report is then made several times, and the median is shown. With --peers the same for memray,
whose capture grows with every allocation: that takes minutes.
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
    bench_venv,
    fail,
    finish,
    json_line,
    parser,
    run,
    say,
    table,
    work_folder,
)

WANTED = 60_000_000
# Millions of allocations at scale 1: json 39, etl 22, django 15, trees 15, deep 90, native 24.
SCALES = {
    "json": "1.6",
    "etl": "3",
    "django": "4.6",
    "trees": "4.3",
    "deep": "0.7",
    "native": "2.6",
}
LIMIT_S, LIMIT_KIB, LIMIT_CAPTURE = 1.0, 100_000_000 >> 10, 5_000_000


def record(tool: list[str | Path], capture: Path, workload: str, scale: str, keep: bool) -> None:
    if keep and capture.exists():
        return
    say(f"recording {capture.name}")
    run(
        [*tool, "-q", "-f", "-o", capture, BENCH / f"workloads/{WORKLOADS[workload]}.py"],
        BENCH_SCALE=scale,
    )


def allocations(venv: Path, capture: Path) -> int:
    script = (
        "import json, sys; from pymemtrace import _core;"
        "print(json.dumps({'n': _core.Reader(sys.argv[1]).aggregate('total').allocations}))"
    )
    return int(json_line(run([venv / "bin/python", "-c", script, capture]).output)["n"])


def report(command: list[str | Path], rounds: int) -> dict[str, Any]:
    runs = [run(command) for _ in range(rounds)]
    return {
        "wall_s": statistics.median(r.wall for r in runs),
        "cpu_s": statistics.median(r.cpu for r in runs),
        "peak_kib": max(r.peak_kib for r in runs),
    }


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--workload", default="etl", choices=WORKLOADS)
    p.add_argument("--scale", help="of the workload (default: what makes 60 million)")
    p.add_argument("--keep", action="store_true", help="use the capture of the last time")
    p.add_argument("--peers", action="store_true", help="memray as well")
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    venv = bench_venv(args.venv)
    folder = work_folder("reports")
    tools: dict[str, list[str | Path]] = {"pymemtrace": [venv / "bin/pymemtrace"]}
    if args.peers:
        tools["memray"] = [venv / "bin/python", "-m", "memray"]
    results: dict[str, Any] = {}
    lines = []
    made = 0
    scale = args.scale or SCALES[args.workload]
    stem = f"{args.workload}-{scale}"
    try:
        for name, tool in tools.items():
            capture, page = folder / f"{stem}.{name}", folder / f"{stem}.{name}.html"
            options = ["--trace-python-allocators"] if name == "memray" else []
            record([*tool, "run", *options], capture, args.workload, scale, args.keep)
            if name == "pymemtrace":
                made = allocations(venv, capture)
            commands = {
                "summary": [*tool, "summary", capture],
                "flamegraph": [*tool, "flamegraph", "-f", "-o", page, capture],
            }
            results[name] = {"capture_bytes": capture.stat().st_size}
            lines.append((f"{name}: capture", "", "", f"{capture.stat().st_size / 1e6:.2f} MB"))
            for kind, command in commands.items():
                r = results[name][kind] = report(
                    command, args.rounds if name == "pymemtrace" else 1
                )
                lines.append((f"{name}: {kind}", f"{r['wall_s']:.2f}", f"{r['cpu_s']:.2f}",
                              f"{r['peak_kib'] / 1024:.0f} MiB"))  # fmt: skip
            page.unlink(missing_ok=True)
            if not args.keep:
                capture.unlink()
    except Failed as error:
        fail(str(error))
    rows = []
    ours, size = results["pymemtrace"], results["pymemtrace"]["capture_bytes"]
    enough = made >= WANTED
    run_text = f"{args.workload}, {made / 1e6:.0f} M allocations"
    for kind in ("summary", "flamegraph"):
        seconds, peak = ours[kind]["wall_s"], ours[kind]["peak_kib"]
        good = seconds <= LIMIT_S and peak <= LIMIT_KIB
        rows.append(Row(f"{kind}, {run_text}", "<= 1 s, <= 100 MB",
                        f"{seconds:.2f} s, {peak * 1024 / 1e6:.0f} MB",
                        good if enough else None))  # fmt: skip
    rows.append(Row(f"capture, {run_text}", "<= 5 MB", f"{size / 1e6:.2f} MB",
                    size <= LIMIT_CAPTURE if enough else None))  # fmt: skip
    text = f"{run_text}\n\n" + table(("what", "wall s", "cpu s", "size or peak"), lines)
    return finish(args, text, {"allocations": made, "reports": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
