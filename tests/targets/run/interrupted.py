import atexit
import signal

atexit.register(print, "atexit")


def work():
    signal.raise_signal(signal.SIGINT)


work()
