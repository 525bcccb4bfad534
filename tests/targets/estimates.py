"""One workload, recorded in full once and then many times with samples: what the estimates were.

usage: estimates.py WORKLOAD ROUNDS CAPTURE [native]

Prints one JSON object: per figure, of each line and of all lines together, the truth and for each
round the estimate and its limits; and how many samples there were.
"""

import gc
import json
import random
import sys
from collections.abc import Callable
from typing import Any

from pymemtrace import _core

LINES = 6
KIB = 1024
# Objects of these kinds come from no free list: what is freed is freed.
SOURCES = {
    # 40 to 130 bytes each
    "small": ("def f(sizes):\n    return [bytes(n) for n in sizes]\n", 8 * KIB),
    # most below a kilobyte, few of megabytes
    "mixed": ("def f(sizes):\n    return [bytes(n) for n in sizes]\n", 8 * KIB),
    # lists that grow by realloc; the lists themselves are there before
    "growing": (
        "def f(pairs):\n"
        "    for grown, n in pairs:\n"
        "        for k in range(n): grown.append(None)\n",
        8 * KIB,
    ),
    # the data of arrays that are there before: a quarter of a mean to 32 means, some are certain
    "arrays": ("def f(pairs):\n    for array, n in pairs: array.__init__(n)\n", 64 * KIB),
    # of ten objects one survives
    "churn": (
        "def f(sizes):\n"
        "    kept = []\n"
        "    for number, n in enumerate(sizes):\n"
        "        it = bytes(n)\n"
        "        if number % 10 == 0: kept.append(it)\n"
        "    return kept\n",
        4 * KIB,
    ),
}
FIGURES = {
    "live bytes": ("leaks", "bytes"),
    "live blocks": ("leaks", "blocks"),
    "peak bytes": ("peak", "bytes"),
    "allocated bytes": ("total", "bytes"),
}


def sizes_of(workload: str, line: int) -> list[int]:
    chance = random.Random(f"{workload} {line}")
    if workload == "small":
        return [chance.randrange(1, 90) for _ in range(8000)]
    if workload == "mixed":
        return [int(chance.lognormvariate(5, 1.4)) for _ in range(2000)]
    if workload == "growing":
        return [int(chance.lognormvariate(7, 0.7)) for _ in range(60)]
    if workload == "arrays":
        return [int(2 ** chance.uniform(14, 21)) for _ in range(60)]
    return [chance.randrange(1, 200) for _ in range(20000)]


def argument_of(workload: str, sizes: list[int]) -> Any:
    if workload == "growing":
        return [([], n) for n in sizes]
    if workload == "arrays":
        return [(bytearray(), n) for n in sizes]
    return sizes


def path_of(line: int) -> str:
    return f"/lines/{line}.py"


def functions(source: str) -> list[Callable[[Any], Any]]:
    """The same code as so many lines of different files."""
    result = []
    for line in range(LINES):
        names: dict[str, Any] = {}
        exec(compile(source, path_of(line), "exec"), names)
        result.append(names["f"])
    return result


def record(
    capture: str, calls: list[Callable[[Any], Any]], arguments: list[Any], **options: Any
) -> dict[str, list[Any]]:
    """Per figure: of each line, then of all together: estimate, low, high, samples."""
    gc.collect()
    gc.disable()
    _core.start(capture, argv=["x"], force=True, **options)
    kept = [call(argument) for call, argument in zip(calls, arguments, strict=True)]
    _core.stop()
    gc.enable()
    del kept
    reader = _core.Reader(capture)
    found: dict[str, list[Any]] = {}
    for figure, (view, unit) in FIGURES.items():
        values = found[figure] = []
        for pattern in [*map(path_of, range(len(calls))), "/lines/*"]:
            totals = reader.aggregate(view, include=[pattern]).totals
            low, high = totals.get(f"{unit}_low", 0), totals.get(f"{unit}_high", 0)
            values.append([totals[unit], low, high, totals.get("samples", 0)])
    return found


def main() -> None:
    workload, rounds, capture = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    native = "native" in sys.argv[4:]
    source, mean = SOURCES[workload]
    sizes = [sizes_of(workload, line) for line in range(LINES)]
    calls = functions(source)

    def round_of(**options: Any) -> dict[str, list[Any]]:
        arguments = [argument_of(workload, own) for own in sizes]  # before the recording
        return record(capture, calls, arguments, native=native, **options)

    truth = [round_of() for _ in range(3)][1:]
    for figure, values in truth[0].items():
        if [value[0] for value in values] != [value[0] for value in truth[1][figure]]:
            sys.exit(f"{workload}, {figure}: two full recordings differ")
    estimates = [round_of(sample_bytes=mean) for _ in range(rounds)]
    print(json.dumps({
        "mean": mean,
        "truth": {figure: [value[0] for value in values] for figure, values in truth[0].items()},
        "rounds": {figure: [each[figure] for each in estimates] for figure in FIGURES},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
