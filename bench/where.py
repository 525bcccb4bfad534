"""Where the resident memory is: what of it stays unattributed, at every moment that was measured.

Six different programs are recorded; each capture is then asked for all its moments. "ms" is how
long measuring took; the targets hold its sum against the length of the run.
"""

import sys
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
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
    words,
    work_folder,
)

SCENES = ("objects", "arrays", "threads", "texts", "native", "imports")
UNATTRIBUTED_LIMIT = 0.03
TIME_LIMIT = 0.01

READ = """
import json, sys, pymemtrace
capture = pymemtrace.open(sys.argv[1])
print(json.dumps({"moments": capture.where_timeline(), "s": capture.info()["duration_s"]}))
"""


def measure(python: Path, scene: str, seconds: float, options: list[str]) -> dict[str, Any]:
    capture = work_folder("where") / f"{scene}.pmt"
    command = [python, "-m", "pymemtrace", "run", *options, "-f", "-o", capture]
    run([*command, BENCH / "children/where.py", scene, str(seconds)])
    answer: dict[str, Any] = json_line(run([python, "-c", READ, capture]).output)
    capture.unlink()
    return {"scene": scene, **answer}


def moment_lines(result: dict[str, Any]) -> list[tuple[str, ...]]:
    lines = []
    for moment in result["moments"]:
        rss, rest = moment["rss_bytes"], moment["unattributed_bytes"]
        parts = sorted(moment["parts"].items(), key=lambda part: -part[1])[:2]
        lines.append(
            (
                f"{result['scene']}, {moment['t_s']:.1f} s",
                f"{rss / 2**20:.1f}",
                f"{(rss - rest) / 2**20:.1f}",
                f"{100 * rest / rss:.2f} %",
                f"{1000 * moment['took_s']:.1f}",
                ", ".join(f"{name} {size / 2**20:.0f}" for name, size in parts),
            )
        )
    return lines


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--seconds", type=float, default=8, help="how long each program runs")
    p.add_argument("--scenes", type=words, default=list(SCENES), help=" ".join(SCENES))
    p.add_argument("--python-only", action="store_true", help="record without the native layer")
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    python = bench_venv(args.venv) / "bin/python"
    results = []
    lines: list[tuple[str, ...]] = []
    rows = []
    try:
        for scene in args.scenes:
            say(f"{scene} …")
            options = ["--python-only"] if args.python_only else []
            result = measure(python, scene, args.seconds, options)
            if not result["moments"]:
                raise Failed(f"{scene}: no moment was measured")
            results.append(result)
            lines += moment_lines(result)
            worst = max(m["unattributed_bytes"] / m["rss_bytes"] for m in result["moments"])
            took = sum(m["took_s"] for m in result["moments"]) / result["s"]
            rows.append(
                Row(f"unattributed, {scene}", f"<= {UNATTRIBUTED_LIMIT:.0%} at every moment",
                    f"{worst:.2%} of {len(result['moments'])} moments at worst",
                    worst <= UNATTRIBUTED_LIMIT)
            )  # fmt: skip
            rows.append(
                Row(f"time, {scene}", f"<= {TIME_LIMIT:.0%}", f"{took:.2%}", took <= TIME_LIMIT)
            )
    except Failed as error:
        fail(str(error))
    heads = ("moment", "rss MiB", "attributed", "unattributed", "ms", "largest parts, MiB")
    return finish(args, table(heads, lines), {"where": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
