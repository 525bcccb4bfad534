"""Instructions that a sampled recording adds to an allocation and to a free, by callgrind.

callgrind counts the instructions of every function and the calls between them. So nothing is
subtracted from anything: what the recorder's own functions (of _core and of the preloaded library)
have executed is divided by how often they were called. The counts do not depend on the machine's
load; they depend on the compiler.

    small malloc   up to 512 bytes, by the hooks of obj and mem
    other malloc   each malloc that reaches the C library, whatever it passes on its way: the hooks
                   of obj, mem and raw, the preloaded function and what it calls. With
                   --python-only: each that reaches raw
    small free     obj and mem keep the interpreter's own function: a hook that is called counts
    sample         what a block costs that is one: stack, tables

`passed on` is what the preloaded library's functions execute themselves, of all instructions.
The share is that of all of these, reallocs, callocs and frees too, in the instructions of the
program, imports included, without the recorder's own thread.
"""

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
    WORK,
    WORKLOADS,
    Failed,
    Row,
    bench_venv,
    environment,
    fail,
    finish,
    parser,
    say,
    table,
    words,
    work_folder,
)

SMALL_TARGET, OTHER_TARGET = 6, 12
BRANCHED = (
    3  # compare, branch, jump: of a request of more than 512 bytes in the hooks of obj and mem
)
SCALES = {"django": "0.03"}
SCALE = "0.02"
HOOKS = {
    "small malloc": ["sampled_obj_malloc", "sampled_mem_malloc"],
    "passes": ["obj_pass", "mem_pass"],
    "raw": ["raw_pass", "sampled_raw_malloc"],
    "native": ["preload:malloc", "sampled_native_allocated"],
    "free": ["preload:free", "sampled_native_freeing", "sampled_raw_free"],
    "small free": ["filtered_obj_free", "filtered_mem_free"],
    "realloc": ["sampled_obj_realloc", "sampled_mem_realloc", "sampled_raw_realloc",
                "sampled_realloc", "sampled_realloc_nested", "sampled_native_reallocate",
                "preload:realloc", "native_call"],
    "calloc": ["sampled_obj_calloc", "sampled_mem_calloc", "sampled_raw_calloc", "sampled_calloc",
               "preload:calloc"],
}  # fmt: skip
# Few of these begin in raw or in the C library.
OUTER = {
    "realloc": ["sampled_obj_realloc", "sampled_mem_realloc"],
    "calloc": ["sampled_obj_calloc", "sampled_mem_calloc"],
}


@dataclass
class Profile:
    """What callgrind has counted, by function: of the recorder's, of all."""

    own: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    inclusive: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    total: int = 0

    def read(self, path: Path) -> None:
        """Adds a file (one thread), unless it is the recorder's thread."""
        text = path.read_text()
        if re.search(r"fn=\(\d+\) writer_main$", text, re.MULTILINE):
            return
        objects: dict[str, str] = {}
        functions: dict[str, str] = {}
        own_object = called_object = function = called = ""
        after_calls = False
        for line in text.splitlines():
            key, _, value = line.partition("=")
            if key in ("ob", "cob"):
                name = named(objects, value)
                called_object = name
                own_object = name if key == "ob" else own_object
            elif key == "fn":
                function, called_object = whose(own_object, named(functions, value)), own_object
            elif key == "cfn":
                called = whose(called_object, named(functions, value))
            elif key == "calls":
                self.calls[called] += int(value.split()[0])
                after_calls = True
            elif line[:1] in "0123456789+-*" and line[:1]:
                cost = int(line.split()[1]) if " " in line else 0
                if after_calls:
                    self.inclusive[called] += cost
                    called_object, after_calls = own_object, False
                else:
                    self.own[function] += cost
                    self.total += cost

    def self_of(self, what: str) -> int:
        return sum(self.own[name] for name in HOOKS[what])

    def calls_of(self, *names: str) -> int:
        return sum(self.calls[name] for name in names)


def named(known: dict[str, str], value: str) -> str:
    """`(number) name` once, `(number)` afterwards."""
    number, _, name = value.partition(" ")
    if name:
        known[number] = name
    return known.get(number, number)


def whose(library: str, function: str) -> str:
    """Functions of the recorder by their name, those of the preloaded library marked."""
    name = Path(library).name
    function = re.sub(r"'\d+$|\.(part|constprop|isra)\.\d+", "", function)
    if name.startswith("_preload"):
        return f"preload:{function}"
    return function if name.startswith("_core.") else f"other:{function}"


def profile(venv: Path, workload: str, options: list[str], scale: str) -> Profile:
    folder = work_folder("instructions")
    for old in folder.glob("callgrind.*"):
        old.unlink()
    command = [
        "valgrind", "--tool=callgrind", "--trace-children=yes", "--separate-threads=yes",
        f"--callgrind-out-file={folder}/callgrind.%p", venv / "bin/pymemtrace", "run", "-q", "-f",
        "-o", folder / "instructions.pmt", *options,
        BENCH / f"workloads/{WORKLOADS[workload]}.py",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=WORK, env=environment(BENCH_SCALE=scale), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0 or "BENCH " not in done.stdout:
        raise Failed(f"status {done.returncode}: {done.stderr[-1500:]}")
    result = Profile()
    for path in folder.glob("callgrind.*-*"):
        result.read(path)
        path.unlink()
    return result


def figures(p: Profile, native: bool) -> dict[str, Any]:
    def per(cost: int, count: int) -> float:
        return cost / count if count else 0.0

    passed = p.calls_of(*HOOKS["passes"])
    small = p.calls_of(*HOOKS["small malloc"]) - passed
    lowest = "preload:malloc" if native else "sampled_raw_malloc"
    other = p.calls_of(lowest)
    other_cost = passed * BRANCHED + p.self_of("passes") + p.self_of("raw")
    other_cost += p.self_of("native") if native else 0
    free = p.calls_of("preload:free" if native else "sampled_raw_free")
    reallocs = p.calls_of(*OUTER["realloc"])
    callocs = p.calls_of(*OUTER["calloc"])
    samples = p.calls_of("sampled_born_nopy")
    sample_cost = p.inclusive["sampled_born_nopy"] + p.inclusive["sampled_freed_nopy"]
    hooks = sum(p.self_of(what) for what in HOOKS) + sample_cost
    passed_on = sum(cost for name, cost in p.own.items() if name.startswith("preload:"))
    return {
        "small": small, "per_small": per(p.self_of("small malloc") - passed * BRANCHED, small),
        "other": other, "per_other": per(other_cost, other),
        "small_frees_seen": p.calls_of(*HOOKS["small free"]),
        "free": free, "per_free": per(p.self_of("free"), free),
        "realloc": reallocs, "per_realloc": per(p.self_of("realloc"), reallocs),
        "calloc": callocs, "per_calloc": per(p.self_of("calloc"), callocs),
        "samples": samples, "per_sample": per(sample_cost, samples),
        "passed_on": per(passed_on, p.total),
        "hooks": hooks, "total": p.total, "share": per(hooks, p.total),
    }  # fmt: skip


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--workloads", type=words, default=["etl", "json", "trees", "django"],
                   help=" ".join(WORKLOADS))  # fmt: skip
    p.add_argument("--scale", help=f"multiplies the rounds inside a workload (default: {SCALE})")
    p.add_argument("--sample", default="512K")
    p.add_argument("--venv", default=".venv-bench", help="made by bench/setup.sh")
    args = p.parse_args()
    if shutil.which("valgrind") is None:
        fail("there is no valgrind: apt-get install valgrind")
    venv = bench_venv(args.venv)
    modes = {"native": ["--sample", args.sample],
             "python only": ["--sample", args.sample, "--python-only"]}  # fmt: skip
    results: list[dict[str, Any]] = []
    try:
        for workload in args.workloads:
            scale = args.scale or SCALES.get(workload, SCALE)
            for mode, options in modes.items():
                found = figures(profile(venv, workload, options, scale), mode == "native")
                say(f"{workload}, {mode}: {found}")
                results.append({"workload": workload, "mode": mode, **found})
    except Failed as error:
        fail(str(error))
    lines = [
        (f"{r['workload']}, {r['mode']}", f"{r['small']:,}", f"{r['per_small']:.2f}",
         f"{r['other']:,}", f"{r['per_other']:.1f}", r["small_frees_seen"], f"{r['per_free']:.1f}",
         f"{r['per_realloc']:.0f}", f"{r['per_calloc']:.0f}", r["samples"],
         f"{r['per_sample']:,.0f}", f"{r['passed_on']:.2%}", f"{r['share']:.2%}")
        for r in results
    ]  # fmt: skip
    rows = []
    for mode in modes:
        of = [r for r in results if r["mode"] == mode]
        small, other = (max(r[key] for r in of) for key in ("per_small", "per_other"))
        frees = sum(r["small_frees_seen"] for r in of)
        rows += [
            Row(f"instructions per malloc up to 512 B, {mode}", f"<= {SMALL_TARGET}",
                f"{small:.2f}", round(small, 2) <= SMALL_TARGET),
            Row(f"instructions per other malloc, {mode}", f"<= {OTHER_TARGET}", f"{other:.1f}",
                other <= OTHER_TARGET),
            Row(f"instructions per small free, {mode}", "0", str(frees), frees == 0),
        ]  # fmt: skip
    heads = ("workload", "small mallocs", "each", "others", "each", "small frees", "other free",
             "realloc", "calloc", "samples", "each", "passed on", "share")  # fmt: skip
    return finish(args, table(heads, lines), {"instructions": results}, rows)


if __name__ == "__main__":
    sys.exit(main())
