"""Objects out of CPython's free lists: what one line drops, the next line's object is made of.

For exactness.py: an observer that only sees allocations blames the lines marked `dropped`.
"""

from common import SCALE, nothing, report

# exactness.py replaces it: moments at which there is something alive to compare
pause = nothing


def tuples(kept, a, b):
    for i in range(len(kept)):
        dropped = (a, b)
        del dropped
        kept[i] = (b, a)


def floats(kept, x):
    for i in range(len(kept)):
        dropped = x + i
        del dropped
        kept[i] = x * i


def lists(kept):
    for i in range(len(kept)):
        dropped = []
        del dropped
        kept[i] = []


def dicts(kept):
    for i in range(len(kept)):
        dropped = {}
        del dropped
        kept[i] = {}


def main():
    total = 0
    for _ in range(round(10 * SCALE)):
        kept = [[None] * 20_000 for _ in range(4)]
        tuples(kept[0], 1000, 2000)
        floats(kept[1], 1.5)
        lists(kept[2])
        dicts(kept[3])
        pause()
        total += sum(len(each) for each in kept)
    return total


if __name__ == "__main__":
    report(main)
