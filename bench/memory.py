"""Memory of the recorder: per live object, per distinct stack, and the fixed part.

Each figure is the growth of the resident set of a program while it does something, less the growth
of the same program without a recorder. tracemalloc keeps whole stacks only when it is told how
deep they are, so it gets 25 frames for the stacks.
"""

import json
import statistics
import sys
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
    work_folder,
)

OBJECTS = 3_000_000
OBJECT_BYTES = 48
SCENES = (
    ("live", OBJECTS, ("pymemtrace", "tracemalloc1")),
    ("leaves", 100_000, ("pymemtrace", "tracemalloc25")),
    ("leaves", 1_000_000, ("pymemtrace", "tracemalloc25")),
    ("binary", 100_000, ("pymemtrace", "tracemalloc25")),
    ("idle", 0, ("pymemtrace", "tracemalloc1")),
)
# The target: a quarter of the traced small-object bytes, so much per distinct stack, a fixed part.
SMALL_LIMIT = 0.25
STACK_LIMIT = 100
FIXED_LIMIT = 10 << 20


def scene_name(result: dict[str, Any]) -> str:
    if result["what"] == "live":
        return f"{result['number']:,} live objects of {OBJECT_BYTES} B"
    if result["what"] == "idle":
        return "idle"
    branches = "ten" if result["what"] == "leaves" else "two"
    return f"{result['stacks']:,} stacks, {branches} branches"


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    python = bench_venv(args.venv) / "bin/python"
    capture = work_folder("memory") / "memory.pmt"
    results: list[dict[str, Any]] = []
    try:
        for what, number, modes in SCENES:
            found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in ("plain", *modes)}
            for _ in range(args.rounds):
                for mode, runs in found.items():
                    child = [python, BENCH / "children/memory.py", mode, what, str(number), capture]
                    runs.append(json_line(run(child).output))
            plain = statistics.median(r["grown"] for r in found["plain"])
            for mode in modes:
                added = statistics.median(r["grown"] for r in found[mode]) - plain
                peak = statistics.median(r["peak"] for r in found[mode])
                peak -= statistics.median(r["peak"] for r in found["plain"])
                results.append({
                    "what": what, "number": number, "mode": mode, "added": added, "peak": peak,
                    "stacks": found[mode][0]["stacks"],
                    "own_bytes": found[mode][-1].get("own_bytes"),
                })  # fmt: skip
                say(json.dumps(results[-1]))
    except Failed as error:
        fail(str(error))
    capture.unlink(missing_ok=True)
    idle = {r["mode"]: r["added"] for r in results if r["what"] == "idle"}
    lines, rows = [], []
    for r in results:
        what, per = scene_name(r), r["number"] if r["what"] == "live" else r["stacks"]
        each = (r["added"] - idle.get(r["mode"], 0)) / per if per else 0.0
        added, peak = f"{r['added'] / 2**20:.1f}", f"{r['peak'] / 2**20:.1f}"
        each_text = f"{each:.1f}" if per else ""
        lines.append((f"{what}: {r['mode']}", added, peak, each_text))
        if r["mode"] != "pymemtrace":
            continue
        limit = FIXED_LIMIT + r["stacks"] * STACK_LIMIT
        if r["what"] == "live":
            limit += r["number"] * OBJECT_BYTES * SMALL_LIMIT
        text = f"{added} MiB" + (f" ({each_text} B each)" if per else "")
        target = f"<= {limit / 2**20:.1f} MiB"
        rows.append(Row(f"memory, {what}", target, text, r["added"] <= limit))
    text = table(("what", "added MiB", "peak +MiB", "B each"), lines)
    return finish(args, text, {"memory": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
