"""ns that a malloc + free pair of 48 bytes costs more in a sampled recording.

By the interpreter's allocator: with pymalloc, samples are promoted and frees cost nothing; with
PYTHONMALLOC=malloc and under debug allocators, every free looks into the filter. In one process,
recorded and not in turn; of each the lowest of many rounds counts, because noise only adds, and
beside it the median of the differences of neighbouring rounds.
"""

import statistics
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

PROMOTED, FILTERED = 0.5, 1.0
ALLOCATORS = {"pymalloc": PROMOTED, "malloc": FILTERED, "pymalloc_debug": FILTERED}


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--pythons", type=words, default=["3.11"], help="3.11 3.15 … or `all`")
    p.add_argument("--rounds", type=int, default=200)
    p.add_argument("--native", action="store_true", help="with the native layer")
    p.add_argument("--cpu", type=int, help="the core (default: the last)")
    args = p.parse_args()
    capture = work_folder("sampled_pair") / "pair.pmt"
    results: list[dict[str, Any]] = []
    try:
        for version, python in interpreters(
            [] if args.pythons == ["all"] else args.pythons
        ).items():
            for allocator in ALLOCATORS:
                child = [python, BENCH / "children/sampled_pair.py", str(args.rounds), capture]
                done = run([*child, str(int(args.native))], cpu=args.cpu, PYTHONMALLOC=allocator)
                found = json_line(done.output)
                each = [b - a for a, b in zip(found["bare"], found["sampled"], strict=True)]
                result = {
                    "python": version, "allocator": allocator, "bare": min(found["bare"]),
                    "sampled": min(found["sampled"]),
                    "added": min(found["sampled"]) - min(found["bare"]),
                    "median": statistics.median(each),
                }  # fmt: skip
                say(f"{version}, {allocator}: {result}")
                results.append(result)
    except Failed as error:
        fail(str(error))
    capture.unlink(missing_ok=True)
    lines, rows = [], []
    for r in results:
        lines.append((f"{r['python']} {r['allocator']}", f"{r['bare']:.2f}", f"{r['sampled']:.2f}",
                      f"{r['added']:+.2f}", f"{r['median']:+.2f}"))  # fmt: skip
        target = ALLOCATORS[r["allocator"]]
        rows.append(Row(f"ns added per pair of 48 B, sampled, {r['python']}, {r['allocator']}",
                        f"<= {target}", f"{r['added']:.2f}", r["added"] <= target))  # fmt: skip
    text = table(("python, allocator", "bare", "sampled", "added", "median of pairs"), lines)
    data = {"rounds": args.rounds, "native": args.native, "pairs": results}
    return finish(args, text, data, rows)


if __name__ == "__main__":
    sys.exit(main())
