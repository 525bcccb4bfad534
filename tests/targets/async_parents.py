"""Tasks that await each other in the ways that asyncio has. Every scenario keeps one block of a size of
its own and prints its name and the size; a comment names a line. usage: async_parents.py [LOOP]"""

import asyncio
import contextlib
import functools
import itertools
import sys
import threading
import types

kept = [None] * 4000  # which does not grow
slots = itertools.count()
caught = []


def keep(size):
    kept[next(slots)] = bytearray(size)  # keep


async def worker(size):
    await asyncio.sleep(0)
    keep(size)  # worker


async def failing(size):
    await asyncio.sleep(0.001)
    keep(size)  # failing
    raise KeyError(size)


# --- one level -----------------------------------------------------------------------------------


async def by_await(size):
    await asyncio.create_task(worker(size))  # by_await


async def by_gather(size):
    await asyncio.gather(asyncio.sleep(0), worker(size))  # by_gather


async def by_gather_of_gathers(size):
    await asyncio.gather(  # by_gather_of_gathers
        asyncio.sleep(0), asyncio.gather(asyncio.gather(worker(size)), asyncio.sleep(0))
    )


async def by_wait(size):
    await asyncio.wait([asyncio.create_task(worker(size))])  # by_wait


async def by_wait_for(size):
    await asyncio.wait_for(asyncio.create_task(worker(size)), 60)  # by_wait_for


async def by_wait_for_coroutine(size):
    await asyncio.wait_for(worker(size), 60)  # by_wait_for_coroutine


async def by_timeout(size):
    async with asyncio.timeout(60):
        await asyncio.create_task(worker(size))  # by_timeout


async def by_shield(size):
    await asyncio.shield(worker(size))  # by_shield


async def by_group(size):
    async with asyncio.TaskGroup() as group:  # by_group
        group.create_task(worker(size))
        group.create_task(asyncio.sleep(0))


async def by_future(size):
    """A future that a task completes is not awaited by the task's parents."""
    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(worker(size))
    task.add_done_callback(lambda _: future.set_result(1))
    await future


# --- several levels ------------------------------------------------------------------------------


async def inner(size):
    await by_gather(size)  # inner


async def three_levels(size):
    async with asyncio.TaskGroup() as group:  # three_levels
        group.create_task(by_task_of_task(size))


async def by_task_of_task(size):
    await asyncio.wait_for(asyncio.create_task(inner(size)), 60)  # by_task_of_task


class Awaitable:
    def __init__(self, task):
        self.task = task

    def __await__(self):
        return (yield from self.task)  # awaitable


@types.coroutine
def generator_based(task):
    return (yield from Awaitable(task).__await__())  # generator_based


async def by_generators(size):
    await generator_based(asyncio.create_task(worker(size)))  # by_generators


async def numbers(size):
    yield 1
    await asyncio.create_task(worker(size))  # numbers
    yield 2


async def by_async_generator(size):
    async for _ in numbers(size):  # by_async_generator
        pass


@contextlib.asynccontextmanager
async def opened(size):
    yield size
    await asyncio.create_task(worker(size))  # opened


async def by_context_manager(size):
    async with opened(size):  # by_context_manager
        pass


# --- nobody, or somebody who goes away ----------------------------------------------------------


async def forgotten(size):
    task = asyncio.create_task(worker(size))
    while not task.done():
        await asyncio.sleep(0)


async def cancelled(size):
    async def parent():
        await asyncio.shield(task)

    task = asyncio.create_task(failing(size))
    waiting = asyncio.create_task(parent())
    await asyncio.sleep(0)
    waiting.cancel()
    while not task.done():
        await asyncio.sleep(0)
    caught.append(task.exception())


async def finished(size):
    async def parent():
        return asyncio.gather(task)

    task = asyncio.create_task(failing(size))
    gathered = await asyncio.create_task(parent())
    while not gathered.done():
        await asyncio.sleep(0)
    caught.append(gathered.exception())


async def raising(size):
    try:
        await asyncio.gather(failing(size))  # raising
    except KeyError as error:
        caught.append(error)


async def second(task):
    await task


async def two_parents(size):
    task = asyncio.create_task(worker(size))
    other = asyncio.create_task(second(task))
    await task  # two_parents
    await other


async def circle(size):
    async def one():
        await asyncio.wait([two_, child], return_when=asyncio.FIRST_COMPLETED)  # one

    async def two():
        await asyncio.wait([one_])  # two

    child = asyncio.create_task(failing(size))
    two_ = asyncio.create_task(two())
    one_ = asyncio.create_task(one())
    await two_  # circle
    caught.append(child.exception())


# --- others -----------------------------------------------------------------------------------------


async def many(size):
    await asyncio.gather(*(worker(size) for _ in range(3000)))  # many


class OwnTask(asyncio.Task):
    pass


async def subclass(size):
    asyncio.get_running_loop().set_task_factory(
        lambda loop, coro, **kwargs: OwnTask(coro, loop=loop, **kwargs)
    )
    await asyncio.create_task(worker(size))  # subclass


async def in_a_thread(size):
    """The thread runs a loop of its own; who waits for it is not its tasks' parent."""
    await asyncio.to_thread(lambda: asyncio.run(by_gather(size)))  # in_a_thread


async def executor(size):
    await asyncio.to_thread(keep, size)


async def eager_child(size):
    keep(size)  # eager_child


async def eager_body(size):
    await asyncio.sleep(0)
    async with asyncio.TaskGroup() as group:
        group.create_task(eager_child(size))  # eager_body


async def eager(size):
    if sys.version_info < (3, 12) or len(sys.argv) > 1:
        return
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    await asyncio.gather(eager_body(size))  # eager


async def repeated(size):
    """One task, awaited at another line in each step."""
    steps = asyncio.Queue()

    async def stepping():
        for step in range(2):
            await steps.get()
            kept[next(slots)] = bytearray(size + 1 - step)  # stepping

    task = asyncio.create_task(stepping())
    await asyncio.sleep(0)
    steps.put_nowait(1)
    await asyncio.wait([task], timeout=0.01)  # repeated_first
    steps.put_nowait(1)
    await task  # repeated


async def handler(scenario, size):
    await scenario(size)  # handler


SCENARIOS = (
    by_await, by_gather, by_gather_of_gathers, by_wait, by_wait_for, by_wait_for_coroutine, by_timeout,
    by_shield, by_group, by_future, three_levels, by_generators, by_async_generator, by_context_manager,
    forgotten, cancelled, finished, raising, two_parents, circle, many, subclass, in_a_thread, executor,
    eager, repeated,
)  # fmt: skip


def run(scenario, size, **how):
    if len(sys.argv) > 1:
        import uvloop

        how["loop_factory"] = uvloop.new_event_loop
    with asyncio.Runner(**how) as runner:
        runner.run(handler(scenario, size))


def main():
    for number, scenario in enumerate(SCENARIOS):
        size = 20_000 + 100 * number
        run(scenario, size)
        print(scenario.__name__, size)
    run(by_gather, 90_000, debug=True)
    print("debug", 90_000)
    thread = threading.Thread(target=run, args=(by_group, 90_100))
    thread.start()
    thread.join()
    print("thread", 90_100)
    run(functools.partial(by_await), 90_200)
    print("again", 90_200)
    print(next(slots), caught)


if __name__ == "__main__":
    main()
