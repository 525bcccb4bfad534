import inspect
import sys
import traceback


def depth():
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count


print(depth(), sys._getframe().f_back, inspect.stack())
traceback.print_stack()
try:
    sys._getframe(1)
except ValueError as error:
    print(error)
