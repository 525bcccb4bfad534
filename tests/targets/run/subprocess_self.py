import os
import subprocess
import sys

code = "import sys, os; print(sys.modules.keys() & {'argparse', 'atexit'}, sorted(os.environ))"
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
print(sorted(os.environ))
