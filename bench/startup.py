"""What recording adds to the start and the exit of a program that does nothing, `-c pass`.

The whole process is measured, interleaved with the bare interpreter: wall clock, and user plus
system time.
"""

import statistics
import sys
from pathlib import Path

from harness import Failed, Row, bench_venv, fail, finish, parser, run, table, work_folder

TARGET_MS = 100


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--cpu", type=int, help="the core (default: the last)")
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    venv = bench_venv(args.venv)
    python = venv / "bin/python"
    folder = work_folder("startup")
    program = folder / "pass.py"
    program.write_text("pass\n")
    output = ["-q", "-f", "-o"]
    commands: dict[str, list[str | Path]] = {
        "plain": [python, "-c", "pass"],
        "pymemtrace": [venv / "bin/pymemtrace", "run", *output, folder / "x.pmt", "-c", "pass"],
        "memray": [python, "-m", "memray", "run", "--trace-python-allocators", *output,
                   folder / "x.memray", program],
        "tracemalloc": [python, "-X", "tracemalloc=1", "-c", "pass"],
    }  # fmt: skip
    walls: dict[str, list[float]] = {mode: [] for mode in commands}
    cpus: dict[str, list[float]] = {mode: [] for mode in commands}
    try:
        for number in range(args.rounds + 1):
            for mode, command in commands.items():
                done = run(command, cpu=args.cpu)
                if number > 0:  # the first round fills the caches
                    walls[mode].append(1000 * done.wall)
                    cpus[mode].append(1000 * done.cpu)
    except Failed as error:
        fail(str(error))
    results, lines = {}, []
    for mode in commands:
        wall = statistics.median(w - b for w, b in zip(walls[mode], walls["plain"], strict=True))
        cpu = statistics.median(c - b for c, b in zip(cpus[mode], cpus["plain"], strict=True))
        results[mode] = {
            "wall_added_ms": wall,
            "cpu_added_ms": cpu,
            "wall_ms": statistics.median(walls[mode]),
            "wall_lowest_ms": min(walls[mode]),
            "cpu_ms": statistics.median(cpus[mode]),
        }
        lines.append((mode, f"{results[mode]['wall_ms']:.0f}", f"{min(walls[mode]):.0f}",
                      f"{results[mode]['cpu_ms']:.0f}", f"{wall:+.0f}", f"{cpu:+.0f}"))  # fmt: skip
    heads = ("-c pass", "wall ms", "lowest", "cpu ms", "wall added", "cpu added")
    ours = results["pymemtrace"]["wall_added_ms"]
    rows = [Row("start + exit added", f"<= {TARGET_MS} ms", f"{ours:.0f} ms", ours <= TARGET_MS)]
    return finish(args, table(heads, lines), {"startup": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
