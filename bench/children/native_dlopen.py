"""Child of native.py: loads the libraries in a folder one by one. Prints ms for each third."""

import ctypes
import json
import sys
import time
from pathlib import Path

libraries = sorted(Path(sys.argv[1]).glob("*.so"))
third = len(libraries) // 3
times = []
for start in range(0, 3 * third, third):
    begin = time.process_time()
    for library in libraries[start : start + third]:
        assert ctypes.CDLL(str(library)).work(100) == 100
    times.append((time.process_time() - begin) * 1000)
print(json.dumps({"libraries": 3 * third, "ms": times}))
