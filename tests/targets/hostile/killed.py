"""Records itself with a short interval and says what has been written, until it is killed."""

import sys

from pymemtrace import _core

_core.start(sys.argv[1], argv=sys.argv, interval_s=0.01)
kept = []
while True:
    for _ in range(50):
        kept.append(bytearray(1000))  # KEPT
        [str(n) * 3 for n in range(200)]
    print(_core.status()["cuts"], flush=True)
    if len(kept) > 5000:
        del kept[:2500]
