import atexit
import sys
import threading
import time

atexit.register(print, "registered first")
atexit.register(print, "registered second")


def wait():
    threading.main_thread().join(0.2)
    time.sleep(0.1)
    print("thread ends", "__file__" in globals(), flush=True)


threading.Thread(target=wait).start()
atexit.register(lambda: print("namespace", sorted(n for n in globals() if n[0] != "_")))
print("main ends", atexit._ncallbacks(), flush=True)
sys.stdout.flush()
