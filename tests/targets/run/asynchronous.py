import asyncio
import sys


async def main():
    frame, names = sys._getframe(), []
    while frame:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    print(names)
    await asyncio.sleep(0)
    raise RuntimeError("in a task")


asyncio.run(main())
