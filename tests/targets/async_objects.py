"""Prints how many objects there are and how often they are referred to, at many moments of a program of
tasks that await each other."""

import asyncio
import gc
import sys

kept = []


def look(*objects):
    print(
        len(gc.get_objects()), sys.getallocatedblocks() if len(sys.argv) > 1 else "",
        gc.get_count()[1:], *(sys.getrefcount(object) for object in objects),
    )  # fmt: skip


async def worker(n):
    me = asyncio.current_task()
    await asyncio.sleep(0)
    kept.append(bytearray(n))
    look(me, me.get_coro(), parents[0], parents[0].get_coro(), asyncio.get_running_loop())
    await asyncio.sleep(0)
    kept.append(bytearray(n))


parents = []


async def parent(n):
    parents.insert(0, asyncio.current_task())
    if n % 4 == 0:
        await asyncio.gather(worker(n), worker(n))
    elif n % 4 == 1:
        await asyncio.wait_for(asyncio.create_task(worker(n)), 60)
    elif n % 4 == 2:
        await asyncio.shield(worker(n))
    else:
        async with asyncio.TaskGroup() as group:
            group.create_task(worker(n))
            group.create_task(parent(n - 2))


gc.disable()
for number in range(16):
    asyncio.run(parent(number))
