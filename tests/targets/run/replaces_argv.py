import sys

sys.argv = ["other"]
sys.argv[:] = []
del sys.argv
sys.path[:] = []
del sys.modules["__main__"]
print("still here")
