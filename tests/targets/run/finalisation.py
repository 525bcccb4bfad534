import sys


class Last:
    def __init__(self, name):
        self.name = name

    def __del__(self):
        print("gone", self.name, sys is not None and sys.is_finalizing())


in_globals = Last("global")
cycle = Last("cycle")
cycle.self = cycle


def generator():
    try:
        yield
    finally:
        print("generator closed")


suspended = generator()
next(suspended)
