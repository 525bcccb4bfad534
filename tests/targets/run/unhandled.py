import atexit
import sys


def state():
    print(sys.last_type, sys.last_value, sys.last_traceback.tb_frame.f_back)
    print(getattr(sys, "last_exc", None), "__file__" in globals(), "__cached__" in globals())


atexit.register(state)


def inner():
    raise LookupError("inner")


def outer():
    try:
        inner()
    except LookupError as error:
        raise RuntimeError("outer") from error


outer()
