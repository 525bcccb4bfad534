"""Makes every kind of event that a log can have; the argument is a seed. Prints nothing."""

import os
import random
import sys
import threading
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import random_stacks


def without_the_gil(rounds):
    """zlib takes its window in the middle of inflate(), where CPython has let go of the GIL."""
    packed = zlib.compress(os.urandom(200_000))
    for _ in range(rounds):
        one = zlib.decompressobj()
        sizes = [len(one.decompress(packed, 1000))]
        while one.unconsumed_tail:
            sizes.append(len(one.decompress(one.unconsumed_tail, 70_000)))
        assert sum(sizes) == 200_000


def large_blocks(r):
    kept = []
    for _ in range(200):
        one = bytearray(r.randrange(400, 50_000))
        one.extend(bytes(r.randrange(100_000)))  # realloc
        if r.random() < 0.3:
            kept.append(one)
    return kept


def free_lists(r):
    """Tuples, floats and lists that die and come back elsewhere without an allocation."""
    kept = []
    for i in range(3000):
        temporary = (i, r)
        floats = [i * 0.5, i * 0.25]
        del temporary
        kept.append((r, i))
        if len(kept) > 500:
            del kept[r.randrange(500)]
        del floats
    return kept


def main():
    seed = int(sys.argv[1])
    r = random.Random(seed)
    threads = [threading.Thread(target=without_the_gil, args=(40,)) for _ in range(3)]
    for one in threads:
        one.start()
    kept = [random_stacks.steps(seed, 150), large_blocks(r), free_lists(r)]
    for one in threads:
        one.join()
    return kept


if __name__ == "__main__":
    kept = main()
