import os

if pid := os.fork():
    print("child's status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    raise ValueError("in the child")
