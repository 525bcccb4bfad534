"""Allocates much, of many shapes, under limits that it or the test has set."""

import resource
import sys

if len(sys.argv) > 2:
    limit = int(sys.argv[2])
    name = getattr(resource, sys.argv[1])
    resource.setrlimit(name, (limit, resource.getrlimit(name)[1]))

kept = []
for n in range(200):
    kept.append(bytearray(1 << 20))  # KEPT
try:
    while "fill" in sys.argv:
        kept.append(bytearray(1 << 20))
except MemoryError:
    print("full", len(kept))
    kept = kept[:200]
print(len(kept))
