"""Makes very many distinct stacks, the same at each run."""

import sys


def a(n, path):
    return [str(path)] if n == 0 else a(n - 1, path // 3) if path % 3 == 0 else b(n - 1, path // 3)


def b(n, path):
    if n == 0:
        return [bytearray(600 + path % 7)]
    return a(n - 1, path // 3) if path % 3 == 1 else c(n - 1, path // 3)


def c(n, path):
    if n == 0:
        return (path, [path])
    return (
        a(n - 1, path // 3)
        if path % 3 == 0
        else b(n - 1, path // 3)
        if path % 3 == 1
        else c(n - 1, path // 3)
    )


def main(count):
    kept = []
    for path in range(count):
        kept.append(a(16, path * 7919))
        if path % 1000 == 0:
            del kept[: len(kept) // 2]
    print(len(kept))


main(int(sys.argv[1]))
