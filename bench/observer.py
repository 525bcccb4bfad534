"""Allocations that a program itself makes, recorded against not recorded.

alloccount/ counts every call that reaches Python's allocators, below the recorder's hooks: what the
program asks for and what a recorder would ask for on top. Runs alternate: plain, recorded, plain,
recorded. Hashes and addresses are fixed, so that two plain runs do the same; that they do is shown.
"""

import sys
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
    WORKLOADS,
    Failed,
    Row,
    alloccount,
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

CALLS = ("malloc", "calloc", "realloc")


def calls(part: dict[str, dict[str, int]]) -> int:
    return sum(domain[kind] for domain in part.values() for kind in CALLS)


def one(venv: Path, workload: str, modes: list[str], rounds: int, scale: str) -> dict[str, Any]:
    python = venv / "bin/python"
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
    capture = work_folder("observer") / "observer.capture"
    for number in range(rounds + 1):
        for mode in modes:
            capture.unlink(missing_ok=True)
            command = [python, BENCH / "children/observer.py", mode, alloccount(python)]
            command += [WORKLOADS[workload], capture]
            done = run(command, fixed_addresses=True, BENCH_SCALE=scale)
            if number > 0:  # the first round compiles what it imports
                runs[mode].append(json_line(done.output))
    capture.unlink(missing_ok=True)
    result: dict[str, Any] = {
        "checks": sorted({r["check"] for each in runs.values() for r in each})
    }
    for mode in modes:
        result[mode] = {
            "main": [calls(r["main"]) for r in runs[mode]],
            "imports": [calls(r["imports"]) for r in runs[mode]],
            "domains": runs[mode][0]["main"],
        }
    return result


def distance(these: list[int], those: list[int]) -> int:
    """0 where two sets of runs have a count in common, else how far they are apart."""
    return min((a - b for a in these for b in those), key=abs)


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--workloads", type=words, default=list(WORKLOADS), help=" ".join(WORKLOADS))
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--scale", default="0.2")
    p.add_argument("--peers", action="store_true", help="memray as well")
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    venv = bench_venv(args.venv)
    modes = ["plain", "pymemtrace", *(["memray"] if args.peers else [])]
    results, lines, rows = {}, [], []
    try:
        for name in args.workloads:
            r = results[name] = one(venv, name, modes, args.rounds, args.scale)
            say(f"{name}: {r['plain']['main']} {r['pymemtrace']['main']}")
            plain = r["plain"]["main"]
            for mode in modes:
                mine = r[mode]["main"]
                lines.append((f"{name} {mode}", f"{mine[0]:,}", f"{max(mine) - min(mine):,}",
                              f"{distance(mine, plain):+,}",
                              f"{distance(r[mode]['imports'], r['plain']['imports']):+,}",
                              f"{100 * (mine[0] / plain[0] - 1):+.3f}"))  # fmt: skip
            added = distance(r["pymemtrace"]["main"], plain)
            text = f"{added:+,} of {plain[0]:,}"
            if max(plain) != min(plain):
                text += f" (plain runs: {max(plain) - min(plain):,} apart)"
            rows.append(Row(f"allocations of {name}, recorded - not", "0", text, added == 0))
    except Failed as error:
        fail(str(error))
    heads = ("workload", "calls in main()", "between runs", "added", "added in imports", "%")
    data = {"scale": args.scale, "workloads": results}
    return finish(args, table(heads, lines), data, rows)


if __name__ == "__main__":
    sys.exit(main())
