"""A random program of tasks that await, cancel and outlive each other, in several loops; every recorded
stack is compared with a plain walk. usage: async_random.py SEED SECONDS"""

import asyncio
import contextlib
import gc
import random
import sys
import threading
import time

from pymemtrace import _core

kept = []


async def numbers(rnd, depth):
    for number in range(rnd.randrange(3)):
        await step(rnd, depth - 1)
        yield number


async def step(rnd, depth):
    kept.append(bytearray(rnd.randrange(700)))
    if len(kept) > 500:
        del kept[: rnd.randrange(500)]
        gc.collect(0)
    match rnd.randrange(14 if depth > 0 else 3):
        case 0:
            await asyncio.sleep(0)
        case 1:
            await asyncio.sleep(rnd.random() / 1000)
        case 2:
            if rnd.random() < 0.1:
                raise KeyError(depth)
        case 3:
            await asyncio.gather(
                *(step(rnd, depth - 1) for _ in range(rnd.randrange(4))), return_exceptions=rnd.random() < 0.5
            )
        case 4:
            async with asyncio.TaskGroup() as group:
                for _ in range(rnd.randrange(3)):
                    group.create_task(step(rnd, depth - 1))
                await step(rnd, depth - 1)
        case 5:
            await asyncio.wait_for(step(rnd, depth - 1), rnd.random() / 100)
        case 6:
            task = asyncio.create_task(step(rnd, depth - 1))
            await asyncio.wait([task, asyncio.current_task()] if rnd.random() < 0.3 else [task],
                               timeout=rnd.random() / 200)  # fmt: skip
            if rnd.random() < 0.5:
                task.cancel()
        case 7:
            await asyncio.shield(step(rnd, depth - 1))
        case 8:
            async for _ in numbers(rnd, depth):
                pass
        case 9:
            await asyncio.create_task(step(rnd, depth - 1))
        case 10:
            task = asyncio.create_task(step(rnd, depth - 1))
            for _ in range(rnd.randrange(40)):  # the list of callbacks moves
                task.add_done_callback(kept.append)
            asyncio.current_task().add_done_callback(kept.append)
            await task
        case 11:
            # Not at once: a task that is cancelled awaits no longer, while the stack of this step
            # has who awaited when it began.
            others = list(asyncio.all_tasks())
            asyncio.get_running_loop().call_soon(rnd.choice(others).cancel)
            await asyncio.sleep(0)
        case 12:
            async with asyncio.timeout(rnd.random() / 100):
                await step(rnd, depth - 1)
                await step(rnd, depth - 1)
        case 13:
            await asyncio.to_thread(kept.append, bytearray(10))


async def program(rnd, until):
    while time.monotonic() < until:
        task = asyncio.create_task(step(rnd, 7))
        with contextlib.suppress(BaseException):
            await asyncio.wait([task], timeout=0.1)


def run(seed, until):
    rnd = random.Random(seed)
    while time.monotonic() < until:
        with contextlib.suppress(asyncio.CancelledError), asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(lambda *_: None)
            if sys.version_info >= (3, 12) and rnd.random() < 0.3:
                runner.get_loop().set_task_factory(asyncio.eager_task_factory)
            runner.run(program(rnd, min(until, time.monotonic() + 0.5)))


def main():
    seed, seconds = int(sys.argv[1]), float(sys.argv[2])
    _core.start("random.pmt", argv=["x"], force=True, async_parents=True)
    _core._check_stacks(True)
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=run, args=(seed * 10 + n, until)) for n in range(2)]
    for thread in threads:
        thread.start()
    run(seed * 10 + 9, until)
    for thread in threads:
        thread.join()
    compared, different = _core._check_stacks(False)
    _core.stop()
    print(compared > 1000, different)


if __name__ == "__main__":
    main()
