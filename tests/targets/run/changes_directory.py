import os
import sys

os.chdir("/")
print(__file__, sys.path[0], os.getcwd())
