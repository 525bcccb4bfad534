"""A program that allocates at full speed for hours, recorded with samples: does anything drift?

Five threads make small objects, large ones, buffers that grow, numpy arrays (where there is numpy)
and temporaries. Every ten seconds they are stopped for a moment, and the program says what really
lives. Then it is checked that

    the capture can be read, and is not larger than --max-size;
    the estimates agree with the truth: not more of the 95 % intervals miss it than chance explains
        (once in a million soaks), none is off by more than six standard deviations, and the mean
        of the errors is not off by more than five of its own;
    the recorder's own figure does not grow, and is within its limit;
    the private memory of the process, less what the program knows to be its own, does not grow.

The first fifth of the checks is warm-up for the last two; what follows is cut into two halves, and
their medians are compared. Nothing depends on how fast the machine is: the rate is only shown.
The status is 1 if something does not hold.
"""

import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import (
    BENCH,
    CHECKOUT,
    Failed,
    Row,
    environment,
    fail,
    finish,
    parser,
    say,
    table,
    work_folder,
)

from pymemtrace import _core

OWN_LIMIT = 8 << 20
OWN_GROWTH = 1 << 20
PRIVATE_GROWTH = 8 << 20
CHANCE = 1e-6
SIGMAS_ONE, SIGMAS_MEAN = 6.0, 5.0
FULL_TURN = 1.0  # of a ring between two checks: then their samples are others


def start(python: str | Path, capture: Path, sample: int, max_size: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [python, BENCH / "children/soak.py", capture, str(sample), str(max_size)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
        cwd=capture.parent,
    )  # fmt: skip


def send(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    try:
        process.stdin.write("\n")
        process.stdin.flush()
    except OSError:
        raise Failed(f"the program has ended, status {process.wait()}") from None


def check(process: "subprocess.Popen[str]", capture: Path) -> dict[str, Any]:
    """Stops the program, compares, lets it go on."""
    send(process)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise Failed(f"the program has ended, status {process.wait()}")
    answer: dict[str, Any] = json.loads(line)
    reader = _core.Reader(str(capture))
    answer["size"] = capture.stat().st_size
    answer["estimates"] = {}
    for name, state in answer["workers"].items():
        totals = reader.aggregate("leaks", include=[f"/soak/{name}.py"]).totals
        if state["live"] > 0:
            answer["estimates"][name] = {
                "truth": state["live"], "bytes": totals["bytes"], "turns": state["turns"],
                "low": totals.get("bytes_low", 0), "high": totals.get("bytes_high", 0),
                "samples": totals.get("samples", 0),
            }  # fmt: skip
    del reader
    send(process)
    return answer


def misses_allowed(count: int) -> int:
    """The most misses of `count` 95 % intervals that are not rarer than CHANCE."""
    tail, misses = 1.0, 0
    while tail > CHANCE and misses <= count:
        tail -= math.comb(count, misses) * 0.05**misses * 0.95 ** (count - misses)
        misses += 1
    return misses


def sigma(estimate: dict[str, Any]) -> float:
    return max(1.0, (estimate["high"] - estimate["low"]) / (2 * 1.96))


def estimate_rows(checks: list[dict[str, Any]]) -> list[Row]:
    every = [
        estimate
        for each in checks
        for estimate in each["estimates"].values()
        if estimate["turns"] >= FULL_TURN
    ]
    if not every:
        return [Row("estimates against the truth", "compared", "no ring was turned once", False)]
    missed = sum(not e["low"] <= e["truth"] <= e["high"] for e in every)
    allowed = misses_allowed(len(every))
    errors = [(e["bytes"] - e["truth"]) / sigma(e) for e in every]
    worst = max(errors, key=abs)
    relative = [e["bytes"] / e["truth"] - 1 for e in every]
    spread = math.sqrt(math.fsum((sigma(e) / e["truth"]) ** 2 for e in every)) / len(every)
    mean = statistics.fmean(relative)
    return [
        Row("95 % intervals that miss the truth", f"<= {allowed} of {len(every)}",
            f"{missed} ({missed / len(every):.1%})", missed <= allowed),
        Row("the largest error", f"< {SIGMAS_ONE:.0f} sigma", f"{worst:+.1f} sigma",
            abs(worst) < SIGMAS_ONE),
        Row("mean of the errors", f"< {SIGMAS_MEAN:.0f} sigma = {SIGMAS_MEAN * spread:.2%}",
            f"{mean:+.2%}", abs(mean) < SIGMAS_MEAN * spread),
    ]  # fmt: skip


def growth(values: list[int]) -> float:
    """From one half to the next, without the warm-up."""
    values = values[max(1, len(values) // 5) :]
    half = len(values) // 2
    return statistics.median(values[-half:]) - statistics.median(values[:half])


def memory_rows(checks: list[dict[str, Any]], max_size: int) -> list[Row]:
    own = [each["own_bytes"] for each in checks]
    net = [each["private"] - sum(w["live"] for w in each["workers"].values()) for each in checks]
    size = max(each["size"] for each in checks)
    return [
        Row("recorder's own figure", f"<= {OWN_LIMIT / 2**20:.0f} MiB",
            f"{max(own) / 2**20:.2f} MiB", max(own) <= OWN_LIMIT),
        Row("its growth after warm-up", f"<= {OWN_GROWTH / 2**20:.0f} MiB",
            f"{growth(own) / 2**20:+.2f} MiB", growth(own) <= OWN_GROWTH),
        Row("growth of private memory beyond what lives", f"<= {PRIVATE_GROWTH / 2**20:.0f} MiB",
            f"{growth(net) / 2**20:+.2f} MiB", growth(net) <= PRIVATE_GROWTH),
        Row("capture", f"<= {max_size / 2**20:.0f} MiB, readable", f"{size / 2**20:.2f} MiB",
            size <= max_size),
    ]  # fmt: skip


def main() -> int:
    p = parser(__doc__)
    p.add_argument("--seconds", type=float, default=3600)
    p.add_argument("--every", type=float, default=10, help="seconds between two checks")
    p.add_argument("--sample", type=int, default=524288, help="bytes between samples")
    p.add_argument("--max-size", type=int, default=16 << 20, help="of the capture, in bytes")
    p.add_argument("--venv", default=".venv", help="with numpy, there are arrays as well")
    args = p.parse_args()
    capture = work_folder("soak") / "soak.pmt"
    capture.unlink(missing_ok=True)
    process = start(CHECKOUT / args.venv / "bin/python", capture, args.sample, args.max_size)
    checks: list[dict[str, Any]] = []
    began = time.monotonic()
    try:
        while time.monotonic() - began < args.seconds or len(checks) < 6:
            time.sleep(args.every)
            checks.append(check(process, capture))
            last, at = checks[-1], time.monotonic() - began
            done = sum(w["allocations"] for w in last["workers"].values())
            errors = " ".join(f"{name} {e['bytes'] / e['truth'] - 1:+.1%}"
                              for name, e in last["estimates"].items())  # fmt: skip
            say(f"{at:.0f} s: {done / at / 1e6:.2f} M allocations/s, own {last['own_bytes']:,}, "
                f"file {last['size']:,}; {errors}")  # fmt: skip
        seconds = time.monotonic() - began
        assert process.stdin is not None
        process.stdin.close()
        if process.wait(60) != 0:
            raise Failed(f"the program ended with status {process.returncode}")
        _core.Reader(str(capture)).totals()
    except (Failed, _core.PymemtraceError, subprocess.TimeoutExpired) as error:
        fail(str(error))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    done = sum(w["allocations"] for w in checks[-1]["workers"].values())
    rows = [*estimate_rows(checks), *memory_rows(checks, args.max_size)]
    lines = [
        (name, f"{e['truth'] / 2**20:.1f}", f"{e['bytes'] / 2**20:.1f}",
         f"{e['low'] / 2**20:.1f}-{e['high'] / 2**20:.1f}", e["samples"])
        for name, e in checks[-1]["estimates"].items()
    ]  # fmt: skip
    text = table(("last check", "lives MiB", "estimate", "95 %", "samples"), lines)
    text += f"\n\n{seconds:.0f} s, {len(checks)} checks, {done / seconds / 1e6:.2f} M allocations/s"
    finish(args, text, {"soak": {"seconds": seconds, "checks": checks}}, rows)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
