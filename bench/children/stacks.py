"""Child of stacks.py: child.py PROGRAM SEED STEPS CAPTURE [native].

PROGRAM has main(seed, steps).
"""

import importlib.util
import json
import sys

from pymemtrace import _core

PROGRAM, SEED, STEPS, CAPTURE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

spec = importlib.util.spec_from_file_location("program", PROGRAM)
program = importlib.util.module_from_spec(spec)
_core.start(CAPTURE, argv=["stacks"], force=True, native_traces="native" in sys.argv)
_core._check_stacks(True)
spec.loader.exec_module(program)
program.main(SEED, STEPS)
compared, different = _core._check_stacks(False)
_core.stop()
greenlet = getattr(program, "greenlet", None)
print(json.dumps({"compared": compared, "different": different, "greenlet": greenlet is not None}))
