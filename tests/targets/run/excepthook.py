import sys
import traceback


def hook(kind, value, trace):
    print("hook", kind, value, len(traceback.extract_tb(trace)))
    frame = sys._getframe()
    while frame:
        print(frame.f_code.co_name)
        frame = frame.f_back


sys.excepthook = hook
raise ValueError("to the hook")
