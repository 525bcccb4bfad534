"""Memory of a sampled recording, by the size of the heap: it must not grow with it.

Private memory of a program that builds a heap and replaces parts of it, recorded, less that of the
same program alone (/proc/self/smaps_rollup, all of Private). One run each, in turn, fixed hashes;
the median of the rounds. The recorder's own figure (status()["own_bytes"]) stands beside it.
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
    words,
    work_folder,
)

LIMIT = 8 << 20
MODES = ("sampled", "python only")


def available_mb() -> int:
    with open("/proc/meminfo") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("MemAv")) // 1000


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--megabytes", type=words, default=["10", "100", "1000", "4000"])
    p.add_argument("--kinds", type=words, default=["small", "mixed"])
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    python = bench_venv(args.venv) / "bin/python"
    capture = work_folder("sampled_memory") / "memory.pmt"
    results: list[dict[str, Any]] = []
    try:
        for kind in args.kinds:
            for size in map(int, args.megabytes):
                if size * 2 > available_mb():
                    say(f"{size} MB: left out, the machine has {available_mb()} MB free")
                    continue
                found: dict[str, list[dict[str, Any]]] = {m: [] for m in ("plain", *MODES)}
                for _ in range(args.rounds):
                    for mode, runs in found.items():
                        child = [python, BENCH / "children/sampled_memory.py", mode, str(size)]
                        runs.append(json_line(run([*child, kind, capture]).output))
                for mode in MODES:
                    added = [r["private"] - p["private"]
                             for r, p in zip(found[mode], found["plain"], strict=True)]  # fmt: skip
                    results.append({
                        "kind": kind, "megabytes": size, "mode": mode,
                        "blocks": found["plain"][0]["blocks"],
                        "added": statistics.median(added),
                        "own_bytes": max(r["own_bytes"] for r in found[mode]),
                    })  # fmt: skip
                    say(json.dumps(results[-1]))
    except Failed as error:
        fail(str(error))
    capture.unlink(missing_ok=True)
    lines = [
        (f"{r['megabytes']:,} MB, {r['kind']}, {r['mode']}", f"{r['blocks']:,}",
         f"{r['added'] / 2**20:.1f}", f"{r['own_bytes'] / 2**20:.1f}")
        for r in results
    ]  # fmt: skip
    rows = []
    for mode in MODES:
        worst = max((r for r in results if r["mode"] == mode), key=lambda r: r["added"])
        rows.append(Row(f"memory of a sampled recording, {mode}, the most",
                        f"<= {LIMIT / 2**20:.0f} MiB at any heap size",
                        f"{worst['added'] / 2**20:.1f} MiB ({worst['megabytes']:,} MB)",
                        worst["added"] <= LIMIT))  # fmt: skip
    text = table(("heap", "blocks", "private +MiB", "own figure MiB"), lines)
    return finish(args, text, {"memory": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
