"""Every recorded stack against a plain walk of all frames, in random programs, on each interpreter.

tests/targets/random_stacks.py runs with one seed after another, each in its own process, until
enough allocations have been compared: generators left, closed and thrown into, coroutines,
recursion, exceptions that keep frames, code that dies, callbacks from C, threads, greenlets where
there is a wheel of greenlet for the interpreter. With --native,
the stacks have native frames as well, and the plain walk looks every one of them up.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
    CHECKOUT,
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

WANTED = 10_000_000


def greenlet_folder(version: str, python: Path) -> Path:
    """A folder for PYTHONPATH with greenlet in it, or empty where it has no wheel."""
    folder = work_folder(f"tools/greenlet-{version}")
    if not (folder / "greenlet").exists() and not (folder / "none").exists():
        install = [python, "-m", "pip", "install", "-q", "--only-binary=:all:", "--no-deps"]
        result = subprocess.run(
            [*install, "--target", folder, "greenlet"], capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            say(f"{version}: without greenlets: {result.stderr.strip().splitlines()[-1]}")
            (folder / "none").touch()
    return folder


def one(
    version: str, python: Path, wanted: int, steps: int, first_seed: int, native: bool
) -> dict[str, Any]:
    path = greenlet_folder(version, python)
    child = [python, BENCH / "children/stacks.py", CHECKOUT / "tests/targets/random_stacks.py"]
    capture = work_folder("stacks") / "stacks.pmt"
    compared = different = 0
    bad_seeds = []
    seed, greenlet = first_seed, False
    more = ["native"] if native else []
    while compared < wanted:
        command = [*child, str(seed), str(steps), capture, *more]
        found = json_line(run(command, PYTHONPATH=str(path)).output)
        if found["compared"] == 0:
            raise Failed(f"{version}, seed {seed}: nothing was compared")
        compared += found["compared"]
        different += found["different"]
        greenlet = found["greenlet"]
        if found["different"]:
            bad_seeds.append(seed)
        seed += 1
    capture.unlink(missing_ok=True)
    result = {"python": version, "compared": compared, "different": different}
    return result | {"seeds": seed - first_seed, "greenlet": greenlet, "bad_seeds": bad_seeds}


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--pythons", type=words, default=[], help="3.11 3.15 … (default: all)")
    p.add_argument("--millions", type=float, default=10.0, help="comparisons per interpreter")
    p.add_argument("--native", action="store_true", help="stacks with native frames")
    p.add_argument("--steps", type=int, default=800, help="length of each random program")
    p.add_argument("--seed", type=int, default=1, help="the first seed")
    args = p.parse_args()
    results = []
    try:
        for version, python in interpreters(args.pythons).items():
            wanted = int(args.millions * 1e6)
            results.append(one(version, python, wanted, args.steps, args.seed, args.native))
            say(str(results[-1]))
    except Failed as error:
        fail(str(error))
    heads = ("python", "compared", "different", "seeds", "greenlets", "seeds that differ")
    text = table(
        heads,
        [(r["python"], f"{r['compared']:,}", r["different"], r["seeds"],
          "yes" if r["greenlet"] else "no", " ".join(map(str, r["bad_seeds"]))) for r in results],
    )  # fmt: skip
    rows = []
    for r in results:
        # Fewer comparisons can show a difference, not that there is none.
        met = False if r["different"] else True if r["compared"] >= WANTED else None
        measured = f"{r['different']} of {r['compared'] / 1e6:.1f} M"
        what = f"stacks against a full walk, {r['python']}"
        rows.append(Row(what, "0 differ in >= 10 M", measured, met))
    return finish(args, text, {"stacks": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
