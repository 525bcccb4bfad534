import atexit
import sys

events = []


def trace(frame, event, arg):
    events.append((event, frame.f_code.co_name, frame.f_lineno))
    return trace


def work():
    return 1


def show():
    sys.settrace(None)
    print(events)


atexit.register(show)
sys.settrace(trace)
work()
raise ValueError("while traced")
