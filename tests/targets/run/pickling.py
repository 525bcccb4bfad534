import __main__
import pickle


class Point:
    def __init__(self, x):
        self.x = x


def double(x):
    return 2 * x


data = pickle.dumps([Point(3), double])
point, function = pickle.loads(data)
print(type(point) is Point is __main__.Point, point.x, function(4), Point.__module__, data)
