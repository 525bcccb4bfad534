import sys

print(repr(sys.stdin.read()), sys.stdin.encoding, sys.stdout.encoding, sys.stdout.line_buffering)
