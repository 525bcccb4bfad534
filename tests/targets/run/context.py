import contextvars
import locale
import os
import sys
import threading
import time

print(sys.exc_info(), list(contextvars.copy_context()), threading.active_count())
print(locale.setlocale(locale.LC_CTYPE), os.environ.get("LC_CTYPE"), sys.flags.utf8_mode)
print(sys.gettrace(), sys.getprofile(), sys.getswitchinterval(), os.getcwd(), os.umask(0o22))
print(os.getpgrp() == os.getpid(), time.process_time() < 60, sys.getfilesystemencoding())
