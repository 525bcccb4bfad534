"""Random programs whose stacks are hard to follow: run with a seed and a number of steps.

Generators left half-way, closed and thrown into, coroutines, recursion, exceptions that keep frames, code
that is made by exec and dies, callbacks from C, finalisers, threads, greenlets where they are installed.
"""

import asyncio
import gc
import json
import random
import re
import sys
import threading
from collections.abc import Generator
from typing import Any

try:
    import greenlet
except ImportError:
    greenlet = None

graveyard: list[str] = []


class Finalised:
    def __init__(self) -> None:
        self.data = {"a": [1.5]}
        self.me = self

    def __del__(self) -> None:
        graveyard.append(str(len(graveyard)) * 3)
        del graveyard[:-100]


def recurse(depth: int, kind: int) -> Any:
    here = [depth]
    if depth == 0:
        return {"bottom": here, "x": (depth, str(kind) * 5)}
    if depth % 3 == 0:
        below = recurse(depth - 1, kind)
    elif depth % 3 == 1:
        below = (lambda d: recurse(d - 1, kind))(depth)
    else:
        below = [recurse(depth - 1, kind) for _ in range(1)]
    return [below, (depth, here)]


def numbers(limit: int) -> Generator[Any, Any, Any]:
    try:
        for i in range(limit):
            got = yield [i, (i + 1000,)]
            if got:
                yield from numbers(limit // 2)
    except ValueError as error:
        yield {"thrown": str(error)}
    finally:
        graveyard.append("closed" * 2)


async def task(n: int) -> list[Any]:
    await asyncio.sleep(0)
    values = [str(i) + "!" for i in range(n)]
    await asyncio.sleep(0)
    if n > 3:
        values.extend(await asyncio.gather(task(n // 2), task(n // 3)))
    async for value in stream(n % 5):
        values.append(value)
    return values


async def stream(n: int) -> Any:
    for i in range(n):
        await asyncio.sleep(0)
        yield {"i": float(i)}


def made_by_exec(r: random.Random) -> Any:
    variant = r.randrange(6)
    source = f"def f(a):\n{' ' * (variant + 1)}return [a, a + 1000, str(a) * {variant}]\nz = [f(i) for i in range(20)]\n"
    namespace: dict[str, Any] = {}
    exec(compile(source, f"<made {variant % 3}>", "exec"), namespace)
    return namespace["z"] if variant % 2 else namespace["f"](1)


def failing(depth: int) -> Any:
    return failing(depth - 1) + [depth] if depth else [1 // 0]


def kept_exception(depth: int) -> BaseException:
    try:
        failing(depth)
    except ZeroDivisionError as error:
        return error
    raise AssertionError


def play_greenlets(r: random.Random) -> Any:
    results: list[Any] = []

    def body(level: int) -> None:
        for i in range(r.randrange(1, 6)):
            results.append([level, i, (str(i),)])
            if level and r.random() < 0.5:
                greenlet.greenlet(body).switch(level - 1)
            greenlet.getcurrent().parent.switch(i)
            results.append({"back": recurse(r.randrange(5), i)})

    lets = [greenlet.greenlet(body) for _ in range(3)]
    for _ in range(30):
        one = r.choice(lets)
        if not one.dead:
            one.switch(2)
    return results


def steps(seed: int, count: int) -> list[Any]:
    r = random.Random(seed)
    kept: list[Any] = []
    running: list[Any] = []
    for _ in range(count):
        kind = r.randrange(18)
        if kind == 0:
            kept.append(recurse(r.choice([1, 5, 30, 120, 500]), kind))
        elif kind == 1:
            one = numbers(20)
            running.append(one)
            kept.append(next(one))
        elif kind == 2 and running:
            one = r.choice(running)
            for _ in range(10):
                try:
                    kept.append(one.send(r.random() < 0.2))
                except (StopIteration, TypeError):
                    break
        elif kind == 3:
            kept.append(made_by_exec(r))
        elif kind == 4:
            kept.append(re.sub(r"\w+", lambda m: m.group(0) * 2 + str([1.5]), "ab cd ef " * 5))
        elif kind == 5:
            kept.append(json.loads(json.dumps({"a": list(range(1000, 1050)), "b": {"c": 1.5}})))
        elif kind == 6:
            grown: list[int] = []
            for j in range(1000):
                grown.append(j + 1000)
            kept.append(grown)
        elif kind == 7:
            kept.append(Finalised())
        elif kind == 8:
            kept.append(kept_exception(r.randrange(40)))
        elif kind == 9:
            kept = kept[len(kept) // 2 :]
        elif kind == 10:
            kept.append(sorted((str(x) for x in range(50)), key=lambda s: (s[::-1],)))
        elif kind == 11:
            kept.append(bytearray(r.randrange(1, 100_000)))
        elif kind == 12:
            gc.collect(0)
        elif kind == 13 and running:
            one = running.pop(r.randrange(len(running)))
            try:
                one.throw(ValueError("v")) if r.random() < 0.5 else one.close()
            except (ValueError, StopIteration):
                pass
        elif kind == 14 and r.random() < 0.1:
            kept.append(sys._getframe())
        elif kind == 15:
            kept.append([float(i) for i in range(50)] + [(i, i) for i in range(20)])
        elif kind == 16 and r.random() < 0.2 and threading.current_thread() is threading.main_thread():
            kept.append(asyncio.run(task(r.randrange(30))))
        elif kind == 17 and greenlet is not None:
            kept.append(play_greenlets(r))
    return kept


def main(seed: int, count: int) -> None:
    sys.setswitchinterval(0.0005)
    sys.setrecursionlimit(20_000)
    threads = [threading.Thread(target=steps, args=(seed * 10 + i, count)) for i in range(3)]
    for thread in threads:
        thread.start()
    steps(seed, count)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
