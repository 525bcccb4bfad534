"""What the workloads share: the scale, the pause, and the line that they print."""

import os
import time
from collections.abc import Callable

# Multiplies the number of rounds, not the live heap.
SCALE = float(os.environ.get("BENCH_SCALE", "1"))


def nothing() -> None:
    """What a pause is in a plain run."""


def report(main: Callable[[], int]) -> None:
    """Runs main() and prints its result, and its time without imports, start and exit."""
    wall, cpu = time.perf_counter(), time.process_time()
    check = main()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    with open("/proc/self/status") as status:  # noqa: PTH123  pathlib is an import of some size
        peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    print(f"BENCH check={check} inner={wall:.4f} cpu={cpu:.4f} peak_kib={peak}", flush=True)
