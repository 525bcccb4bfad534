"""Does something to the capture, or to the limits it is written under, while it is recorded."""

import os
import resource
import signal
import sys
import time

core = sys.modules.get("pymemtrace._core")
what = sys.argv[1]
capture = sys.argv[2] if len(sys.argv) > 2 else None


def pause():
    """Long enough for a cut."""
    if core:
        core.flush()
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        [bytearray(1000) for _ in range(100)]
        time.sleep(0.01)


kept = [bytearray(10_000) for _ in range(100)]  # BEFORE
pause()
if what == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    size = os.stat(capture).st_size if core else 10_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
elif what == "fill" and core:
    with open(os.path.dirname(capture) + "/filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
elif what == "unlink" and core:
    os.unlink(capture)
elif what == "symlink" and core:
    os.unlink(capture)
    os.symlink("precious", capture)
    os.closerange(3, 4096)
elif what == "rmtree" and core:
    import shutil

    shutil.rmtree(os.path.dirname(capture))
elif what == "truncate" and core:
    os.truncate(capture, 0)
elif what == "closed":
    os.closerange(3, 4096)
kept += [bytearray(20_000) for _ in range(100)]  # AFTER
# Names that are new, so that there is much to write.
for n in range(200):
    names = {}
    exec(compile(f"def f{n}():\n    return [bytearray(100)]\nz = f{n}()", f"<made {n} {'x' * 100}>", "exec"), names)
    kept.append(names)
pause()
if what == "fill" and core and "again" in sys.argv:
    os.unlink(os.path.dirname(capture) + "/filler")
    pause()
print("ran", len(kept))
sys.exit(5)
