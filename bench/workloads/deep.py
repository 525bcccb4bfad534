"""Recursion about 100 frames deep (evaluator style) that allocates at the bottom.

Worst case for anything that walks the stack per allocation.
"""

from common import SCALE, nothing, report

DEPTH = 100

# exactness.py replaces it: moments at which there is something alive to compare
pause = nothing


class Expr:
    __slots__ = ("child", "op")

    def __init__(self, op, child):
        self.op = op
        self.child = child


def leaf(seed):
    acc = []
    for i in range(1500):
        acc.append((seed + i, str(seed * i + 1000), [i, seed]))
    pause()
    return len({s for _, s, _ in acc}) + sum(len(p) for _, _, p in acc)


def evaluate(e, env):
    if e.child is None:
        return leaf(env["seed"])
    if e.op == "neg":
        return -evaluate(e.child, env)
    return evaluate(e.child, env) + 1


def build(n):
    e = Expr("leaf", None)
    for i in range(n):
        e = Expr("neg" if i % 2 else "inc", e)
    return e


def main():
    total = 0
    expr = build(DEPTH - 5)
    for seed in range(round(7500 * SCALE)):
        total += evaluate(expr, {"seed": seed})
    return total


if __name__ == "__main__":
    report(main)
