import signal
import sys

try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("caught")
    sys.exit(130)
