import multiprocessing
import os
import sys


class Task:
    def __init__(self, n):
        self.n = n


def work(task):
    return __name__, task.n * 2, os.path.basename(__file__), sys.argv[1:]


if __name__ == "__main__":
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.map(work, [Task(1), Task(2)]))
