"""`python -m pymemtrace`: the same as the command `pymemtrace`."""

import sys

from pymemtrace.cli import main

if __name__ == "__main__":
    sys.exit(main())
