import os
import sys

pid = os.fork()
if pid:
    print("child's status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    sys.stdout.write("child\n")
