def f(a: int) -> str: ...


print(f.__annotations__, f.__code__.co_flags, __debug__)
assert __debug__, "under -O"
