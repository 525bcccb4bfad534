import atexit
import signal

atexit.register(lambda: signal.raise_signal(signal.SIGINT))
