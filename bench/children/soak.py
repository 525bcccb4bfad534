"""Child of soak.py: soak.py CAPTURE SAMPLE_BYTES MAX_SIZE. Allocates until it is told to end.

One thread per kind of allocation; all but the last keep what they make in a ring, whose oldest
objects are replaced, so that what lives is always the same. For each line on standard input the
threads stop, a line of JSON says what there is, and the next line on standard input lets them go
on; at the end of the input the program ends.
"""

import gc
import json
import random
import sys
import threading

import pymemtrace

CAPTURE, SAMPLE, MAX_SIZE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
LIVE = 32 << 20  # bytes in each ring

# Each in a file of its own, by which its estimates are found. ring[at:...] has as many slots.
SOURCES = {
    "small": "def f(ring, at, sizes): ring[at:at + len(sizes)] = map(bytes, sizes)\n",
    "large": "def f(ring, at, sizes): ring[at:at + len(sizes)] = map(bytes, sizes)\n",
    "growing": (
        "def f(ring, at, sizes):\n"
        "    for n in sizes:\n"
        "        it = bytearray()\n"
        "        for k in range(6): it += bytes(n)\n"
        "        ring[at] = it\n"
        "        at += 1\n"
    ),
    "numpy": (
        "from numpy import ones\n"
        "def f(ring, at, sizes):\n"
        "    for n in sizes:\n"
        "        ring[at] = ones(n)\n"
        "        at += 1\n"
    ),
    "churn": "def f(ring, at, sizes): [[n, (n, at)] for n in sizes]\n",
}


def size_of(name, chance):
    if name == "small":
        return chance.randrange(16, 470)
    if name == "large":
        return int(2 ** chance.uniform(11, 17))
    if name == "growing":
        return int(2 ** chance.uniform(6, 11))
    return chance.randrange(2_000, 12_000)  # doubles


class Worker(threading.Thread):
    def __init__(self, name, function):
        super().__init__(name=name, daemon=True)
        chance = random.Random(name)
        self.function = function
        self.ring = []
        self.allocations = self.turned = self.at = 0
        # of every batch: how many objects, and how many allocations each of them is
        self.batch = {"small": 1000, "large": 20, "growing": 20, "numpy": 10, "churn": 1000}[name]
        self.each = {"small": 1, "large": 1, "growing": 10, "numpy": 2, "churn": 3}[name]
        if name == "churn":
            self.sizes = list(range(1000, 2000))
            return
        total, self.sizes = 0, []
        while total < LIVE or len(self.sizes) % self.batch:
            self.sizes.append(size_of(name, chance))
            total += self.sizes[-1] * {"growing": 6, "numpy": 8}.get(name, 1)
        self.ring = [None] * len(self.sizes)

    def run(self):
        while True:
            if pausing.is_set():
                idle.wait()
                going_on.wait()
            sizes = self.sizes[self.at : self.at + self.batch]
            self.function(self.ring, self.at, sizes)
            self.allocations += self.batch * self.each
            self.turned += self.batch
            self.at = (self.at + self.batch) % len(self.sizes)

    def state(self):
        turns, self.turned = self.turned / len(self.sizes), 0
        live = sum(sys.getsizeof(it) for it in self.ring if it is not None)
        return {"live": live, "turns": turns, "allocations": self.allocations}


def private():
    total = 0
    with open("/proc/self/smaps_rollup") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("Private_"):
                total += int(line.split()[1]) << 10
    return total


def compiled():
    found = {}
    for name, source in SOURCES.items():
        names = {}
        try:
            exec(compile(source, f"/soak/{name}.py", "exec"), names)
        except ImportError:
            continue  # no numpy here
        found[name] = names["f"]
    return found


pausing = threading.Event()
workers = [Worker(name, function) for name, function in compiled().items()]
idle = threading.Barrier(len(workers) + 1)
going_on = threading.Barrier(len(workers) + 1)
with pymemtrace.record(
    CAPTURE, force=True, sample_bytes=SAMPLE, max_size_bytes=MAX_SIZE
) as recording:
    for worker in workers:
        worker.start()
    for _ in sys.stdin:
        pausing.set()
        idle.wait()
        gc.collect()
        recording.flush()
        status = recording.status()
        answer = {worker.name: worker.state() for worker in workers}
        print(json.dumps({
            "workers": answer, "private": private(), "own_bytes": status["own_bytes"],
            "file_bytes": status["file_bytes"], "cuts": status["cuts"],
        }), flush=True)  # fmt: skip
        if not sys.stdin.readline():
            break
        pausing.clear()
        going_on.wait()
