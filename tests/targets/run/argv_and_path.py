import sys

print(sys.argv, sys.path[0], len(sys.path))
print(sys.orig_argv[1:], sys.executable, sys.prefix)
print(sys.flags, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode)
