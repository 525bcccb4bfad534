"""binary-trees (Benchmarks Game): worst case for the cost per allocation."""

from common import SCALE, nothing, report

# exactness.py replaces it: moments at which there is something alive to compare
pause = nothing


class Node:
    __slots__ = ("left", "right")

    def __init__(self, left, right):
        self.left = left
        self.right = right


def make(depth):
    if depth == 0:
        return Node(None, None)
    depth -= 1
    return Node(make(depth), make(depth))


def count(node):
    if node.left is None:
        return 1
    return 1 + count(node.left) + count(node.right)


def main():
    max_depth = 15
    total = count(make(max_depth + 1))
    long_lived = make(max_depth)
    for depth in range(4, max_depth + 1, 4):
        for _ in range(round(SCALE * (1 << (max_depth - depth + 6)))):
            tree = make(depth)
            pause()
            total += count(tree)
    return total + count(long_lived)


if __name__ == "__main__":
    report(main)
