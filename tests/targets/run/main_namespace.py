import sys

names = list(globals())
main = sys.modules["__main__"]
print(names, type(main), vars(main) is globals())
for name in names:
    value = globals()[name]
    print(name, value.__name__ if isinstance(value, type(sys)) else value)
