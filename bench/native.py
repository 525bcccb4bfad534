"""The native layer: what recording adds to malloc and free, known truth by kind, loading libraries.

Every figure is that of a process under `pymemtrace run` beside one under plain python, interleaved.
CPU ratios of whole programs are those of overhead.py (workloads native, threads, pandas).
"""

import json
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
    Failed,
    Row,
    bench_venv,
    compile_c,
    fail,
    finish,
    json_line,
    parser,
    run,
    say,
    table,
    work_folder,
)

PAIR_TARGET = 14.0
THREADS_TARGET = 1.3
TRUTH_TARGET = 0.01
LIBRARY_TARGET_MS = 1.0
LIBRARIES = 300
SOURCE = (
    "#include <stdlib.h>\nint work(int n) { void *p = malloc((size_t)n); free(p); return n; }\n"
)


def both(venv: Path, child: str, *arguments: object, capture: Path) -> tuple[Any, Any]:
    words = [BENCH / "children" / child, *map(str, arguments)]
    plain = json_line(run([venv / "bin/python", *words]).output)
    recorded = json_line(
        run([venv / "bin/pymemtrace", "run", "-q", "-f", "-o", capture, *words]).output
    )
    return plain, recorded


def pairs(venv: Path, rounds: int, capture: Path) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        plain, recorded = both(venv, "native_pair.py", 2000, capture=capture)
        for name in plain:
            found.setdefault(f"bare_{name}", []).append(plain[name])
            found.setdefault(f"recorded_{name}", []).append(recorded[name])
        say(f"pairs, round {number + 1} of {rounds}: {plain} {recorded}")
    # noise only adds: the lowest; of threads, which share cores with everything, the median
    return {
        name: statistics.median(values) if "threads" in name else min(values)
        for name, values in found.items()
    }


def truth(venv: Path, capture: Path) -> dict[str, Any]:
    _, expected = both(venv, "native_truth.py", capture=capture)
    answer = subprocess.run(
        [venv / "bin/pymemtrace", "table", "--leaks", "--json", capture],
        capture_output=True, check=True,
    )  # fmt: skip
    found: Counter[str] = Counter()
    for row in json.loads(answer.stdout)["rows"]:
        stack = [frame["function"].split(".")[0] for frame in row["stack"]]
        for kind in expected:
            if kind in stack:
                found[kind] += row["bytes"]
    return {kind: {"expected": expected[kind], "found": found[kind]} for kind in expected}


def libraries(venv: Path, rounds: int, capture: Path) -> dict[str, Any]:
    folder = work_folder("native/libraries")
    source = folder / "library.c"
    source.write_text(SOURCE)
    first = folder / "library000.so"
    compile_c("-O1", "-shared", "-fPIC", "-o", first, source)
    for number in range(1, LIBRARIES):
        shutil.copyfile(first, folder / f"library{number:03}.so")
    added = []
    for _ in range(rounds):
        plain, recorded = both(venv, "native_dlopen.py", folder, capture=capture)
        added.append([b - a for a, b in zip(plain["ms"], recorded["ms"], strict=True)])
    thirds = [statistics.median(values) for values in zip(*added, strict=True)]
    shutil.rmtree(folder)
    return {"libraries": LIBRARIES, "added_ms_by_third": thirds}


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    venv = bench_venv(args.venv)
    capture = work_folder("native") / "native.pmt"
    try:
        pair = pairs(venv, args.rounds, capture)
        kinds = truth(venv, capture)
        loaded = libraries(venv, args.rounds, capture)
    except Failed as error:
        fail(str(error))
    added = {
        name: pair[f"recorded_{name}"] - pair[f"bare_{name}"]
        for name in ("alone", "gil", "no_gil", "threads8")
    }
    ratio = added["threads8"] / PAIR_TARGET
    each = sum(loaded["added_ms_by_third"]) / loaded["libraries"]
    first, _, last = loaded["added_ms_by_third"]
    rows = [
        Row("ns added to malloc + free of 64 B, with the GIL", f"<= {PAIR_TARGET:g}",
            f"{added['gil']:.1f}", added["gil"] <= PAIR_TARGET),
        Row("the same, in a program without other threads", "measured and stated",
            f"{added['alone']:.1f}", True),
        Row("the same, without the GIL", f"<= {PAIR_TARGET:g}",
            f"{added['no_gil']:.1f}", added["no_gil"] <= PAIR_TARGET),
        Row("the same, 8 threads at once", f"<= {THREADS_TARGET} x {PAIR_TARGET:g}",
            f"{added['threads8']:.1f} ({ratio:.2f} x)", ratio <= THREADS_TARGET),
        Row("ms added per library loaded", f"<= {LIBRARY_TARGET_MS:g}", f"{each:.3f}",
            each <= LIBRARY_TARGET_MS),
        Row("ms added by the last hundred against the first", "no more than linear",
            f"{first:.1f}, {last:.1f}", last <= first + 10),
    ]  # fmt: skip
    for kind, value in kinds.items():
        error = value["found"] / value["expected"] - 1
        rows.append(
            Row(f"known live bytes, {kind}", f"within {TRUTH_TARGET:.0%}", f"{error:+.3%}",
                abs(error) <= TRUTH_TARGET)
        )  # fmt: skip
    lines = [(name, f"{pair[f'bare_{name}']:.1f}", f"{pair[f'recorded_{name}']:.1f}",
              f"{added[name]:.1f}") for name in added]  # fmt: skip
    text = table(("malloc + free, ns", "bare", "recorded", "added"), lines)
    data = {"pairs": pair, "truth": kinds, "libraries": loaded}
    return finish(args, text, data, rows)


if __name__ == "__main__":
    sys.exit(main())
