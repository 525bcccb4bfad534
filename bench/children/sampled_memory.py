"""Child of sampled_memory.py: child.py MODE MEGABYTES KIND CAPTURE. Prints its private memory.

A heap of so many MB: `small` is objects of 100 bytes, `mixed` is three quarters of the bytes in
blocks of 100 bytes to 20 KB and one in arrays of a megabyte. Then a tenth of it is replaced, over
and over, until some writes have happened.
"""

import json
import sys
import time
from random import Random

from pymemtrace import _core

MODE, MEGABYTES, KIND, CAPTURE = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def private():
    total = 0
    with open("/proc/self/smaps_rollup") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("Private_"):
                total += int(line.split()[1]) << 10
    return total


def sizes(chance, total):
    """The same sizes whatever the mode."""
    done = 0
    while done < total:
        if KIND == "small":
            size = 67
        elif chance.random() < 0.9:
            size = int(chance.lognormvariate(6, 1.2))
        else:
            size = chance.choice(
                (5_000, 20_000, 20_000, 1_000_000 if chance.random() < 0.01 else 100)
            )
        yield size
        done += size + 33


if MODE == "sampled":
    _core.start(CAPTURE, argv=["memory"], force=True, sample_bytes=524288)
elif MODE == "python only":
    _core.start(CAPTURE, argv=["memory"], force=True, sample_bytes=524288, native=False)
chance = Random(7)
kept = [bytes(size) for size in sizes(chance, MEGABYTES * 1_000_000)]
blocks = len(kept)
part = max(1, blocks // 10)
for at in range(0, min(blocks, 5 * part), part):
    for number in range(at, min(at + part, blocks)):
        kept[number] = bytes(len(kept[number]))
time.sleep(2.5)
answer = {"blocks": blocks, "private": private(), "own_bytes": 0}
if MODE != "plain":
    _core.flush()
    answer["private"] = private()
    answer["own_bytes"] = _core.status()["own_bytes"]
    _core.stop()
print(json.dumps(answer))
