import json
import sys

depth = 0


def down():
    global depth
    depth += 1
    down()


for limit in (None, 500, 3000):
    if limit:
        sys.setrecursionlimit(limit)
    depth = 0
    try:
        down()
    except RecursionError:
        print(sys.getrecursionlimit(), depth)
print(json.loads("[" * 200 + "]" * 200) is not None)
