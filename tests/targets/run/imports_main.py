import __main__
import importlib.util
import inspect
import runpy
import sys

print(__main__.__file__ == __file__, __main__.__spec__, inspect.getsourcefile(inspect.currentframe()))
print(inspect.getsource(sys.modules["__main__"])[:15])
print(runpy.run_path(__file__, {"nested": True}, "nested") if __name__ == "__main__" else __name__)
print(importlib.util.find_spec("json").name)
try:
    print(importlib.util.find_spec("__main__"))
except ValueError as error:
    print(error)
