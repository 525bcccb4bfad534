import sys

print(sorted(set(sys.modules) - {"pymemtrace", "pymemtrace._core"}))
