"""Time to look 10,000 native addresses up: from a capture without names to one that has them.

The capture is made up: each of its stacks is one address, chosen at random within the functions of
the interpreter, of libc and of numpy (where it is installed). What is timed is what the first
report does: look up, append to the capture, read it again. The files are in the page cache.
"""

import importlib.util
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import BENCH, Row, fail, finish, parser, say, table, work_folder

sys.path.insert(0, str(BENCH.parent / "tests/py"))

from capture_builder import CaptureBuilder
from capture_builder import Row as CaptureRow

from pymemtrace import _core, _symbols

ADDRESSES = 10_000
TARGET_S = 1.0


def mapped(*names: str) -> Path | None:
    """The object of this process whose file name starts with the first of these that is there."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = [Path("/" + line.partition("/")[2]) for line in lines if "/" in line]
    fitting = (path for name in names for path in paths if path.name.startswith(name))
    return next(fitting, None)


def numpy_object() -> Path | None:
    """The largest extension module of numpy, of this environment or of that of the benchmarks."""
    spec = importlib.util.find_spec("numpy")
    folders = [Path(spec.origin).parent] if spec is not None and spec.origin else []
    folders += BENCH.parent.glob(".venv-bench/lib/python*/site-packages/numpy")
    found = [path for folder in folders for path in folder.rglob("*.so")]
    return max(found, key=lambda path: path.stat().st_size, default=None)


def functions(path: Path) -> list[int]:
    """Addresses of functions, of the symbol table or else the dynamic one."""
    for options in ([], ["-D"]):
        done = subprocess.run(
            ["nm", "--defined-only", *options, path], capture_output=True, text=True, check=False
        )
        lines = [line.split() for line in done.stdout.splitlines()]
        found = {int(words[0], 16) for words in lines if words[1] in "tTwWi"}
        if len(found) > 1:
            return sorted(found)
    return []


def addresses(path: Path, count: int) -> list[int]:
    """Different ones, random but the same every time."""
    rng = random.Random(1)
    starts = functions(path)
    if len(starts) * 50 < count:
        fail(f"{path} has {len(starts)} functions only")
    chosen: set[int] = set()
    while len(chosen) < count:
        start = rng.choice(starts)
        chosen.add(start + rng.randrange(1, 100))
    return sorted(chosen)


def write(path: Path, places: list[tuple[Path, int]]) -> None:
    builder = CaptureBuilder()
    sites = [builder.site(builder.native(0, str(file), at), 100) for file, at in places]
    builder.cut(10**9, [CaptureRow(site, 0, 1, 0) for site in sites])
    builder.end(10**9)
    builder.write(path)


def measure(path: Path, places: list[tuple[Path, int]], rounds: int) -> dict[str, Any]:
    times = []
    for _ in range(rounds + 1):
        write(path, places)
        reader = _core.Reader(str(path))
        start = time.perf_counter()
        result = _symbols.resolve(str(path), reader=reader)
        times.append(time.perf_counter() - start)
        if not result.stored:
            fail(f"{path}: nothing was stored: {result.remarks}")
    times = times[1:]  # the first one reads the files
    return {
        "addresses": result.places,
        "named": result.named,
        "s": statistics.median(times),
        "lowest_s": min(times),
        "highest_s": max(times),
    }


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    os.environ.pop("DEBUGINFOD_URLS", None)
    objects = {
        "the interpreter": mapped("libpython", "python"),
        "libc": mapped("libc.so", "libc-"),
        "numpy": numpy_object(),
    }
    found = {name: path.resolve() for name, path in objects.items() if path is not None}
    path = work_folder("symbols") / "symbols.pmt"
    results: dict[str, Any] = {}
    mixed: list[tuple[Path, int]] = []
    for name, file in found.items():
        chosen = addresses(file, ADDRESSES)
        results[name] = measure(path, [(file, at) for at in chosen], args.rounds)
        say(f"{name}, {file}: {results[name]['s']:.3f} s")
        share = len(mixed) + ADDRESSES // len(found)
        mixed += [(file, at) for at in random.Random(2).sample(chosen, share - len(mixed))]
    results["all together"] = measure(path, mixed, args.rounds)
    path.unlink(missing_ok=True)
    lines = [
        (name, r["addresses"], r["named"], f"{r['s']:.3f}", f"{r['lowest_s']:.3f}",
         f"{r['highest_s']:.3f}")
        for name, r in results.items()
    ]  # fmt: skip
    rows = [
        Row(f"s to look {r['addresses']:,} addresses up, {name}", f"<= {TARGET_S:g}",
            f"{r['s']:.2f}", r["s"] <= TARGET_S)
        for name, r in results.items()
    ]  # fmt: skip
    text = table(("object", "addresses", "named", "s", "lowest", "highest"), lines)
    return finish(args, text, {"rounds": args.rounds, "objects": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
