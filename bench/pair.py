"""ns that a malloc + free pair of 48 bytes costs more while it is recorded, by stack depth.

In one process per interpreter and depth, the recorder is started and stopped in turn with nothing
and with tracemalloc(1); of each the lowest of many rounds counts, because noise only adds.
"""

import sys
from typing import Any

from harness import (
    BENCH,
    Failed,
    Row,
    fail,
    finish,
    interpreters,
    json_line,
    parser,
    run,
    say,
    table,
    words,
    work_folder,
)

TARGETS = {("3.11", 2): 8, ("3.11", 30): 18, ("3.15", 2): 10, ("3.15", 30): 22}


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--pythons", type=words, default=[], help="3.11 3.15 … (default: all)")
    p.add_argument("--depths", type=words, default=["2", "30", "100"])
    p.add_argument("--rounds", type=int, default=40)
    p.add_argument("--cpu", type=int, help="the core (default: the last)")
    args = p.parse_args()
    capture = work_folder("pair") / "pair.pmt"
    results: list[dict[str, Any]] = []
    try:
        for version, python in interpreters(args.pythons).items():
            for depth in args.depths:
                child = [python, BENCH / "children/pair.py", depth, str(args.rounds), capture]
                found = json_line(run(child, cpu=args.cpu).output)
                say(f"{version}, depth {depth}: {found}")
                results.append({"python": version, "depth": int(depth), **found})
    except Failed as error:
        fail(str(error))
    capture.unlink(missing_ok=True)
    lines, rows = [], []
    for r in results:
        added, theirs = r["pymemtrace"] - r["bare"], r["tracemalloc"] - r["bare"]
        r["added"], r["added_tracemalloc"] = added, theirs
        lines.append((r["python"], r["depth"], f"{r['bare']:.2f}", f"{r['pymemtrace']:.2f}",
                      f"{added:.2f}", f"{theirs:.0f}"))  # fmt: skip
        target = TARGETS.get((r["python"], r["depth"]))
        if target is not None:
            what = f"ns added per pair of 48 B, {r['python']}, depth {r['depth']}"
            rows.append(Row(what, f"<= {target}", f"{added:.1f}", added <= target))
    text = table(("python", "depth", "bare", "recorded", "added", "tracemalloc adds"), lines)
    return finish(args, text, {"rounds": args.rounds, "pairs": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
