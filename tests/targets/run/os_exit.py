import os
import sys

sys.stdout.write("lost if buffered, as under python")
os._exit(4)
