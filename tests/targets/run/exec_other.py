import os
import sys

os.execv(sys.executable, [sys.executable, "-c", "import sys; print('other', sys.argv)", "x"])
