"""JSON round trips of nested documents with the C-accelerated json module.

Allocations are bursts of small objects made inside C code called from one
Python line (json scanner), plus some large strings (dumps output).
"""

import json
import random

from common import SCALE, nothing, report

# exactness.py replaces it: moments at which there is something alive to compare
pause = nothing


def doc(rnd, depth):
    if depth == 0:
        return {
            "id": rnd.randrange(10**9),
            "name": f"item-{rnd.randrange(10**6)}",
            "score": rnd.random() * 100,
            "ok": rnd.random() < 0.5,
            "note": None,
            "tags": [f"t{rnd.randrange(10**5)}" for _ in range(4)],
        }
    return {
        "meta": {"level": depth, "key": f"k{rnd.randrange(10**8)}"},
        "children": [doc(rnd, depth - 1) for _ in range(5)],
    }


def main():
    rnd = random.Random(7)
    docs = [doc(rnd, 4) for _ in range(12)]
    texts = [json.dumps(d) for d in docs]
    check = 0
    keep = []
    for i in range(round(100 * SCALE)):
        for t in texts:
            d = json.loads(t)
            if i % 5 == 0:
                keep.append(d)
            s = json.dumps(d, sort_keys=(i % 2 == 0))
            check = (check * 31 + len(s)) % 1_000_000_007
        pause()
        if len(keep) > 80:
            del keep[:40]
    return check


if __name__ == "__main__":
    report(main)
