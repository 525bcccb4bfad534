from __future__ import annotations

from typing import get_type_hints

x: undefined = 1  # noqa: F821


def f(a: Missing): ...  # noqa: F821


print(__annotations__ if "__annotations__" in globals() else "none", f.__annotations__)
exec("y: int = 1\nprint(eval('1 if True else 2'))")
print(get_type_hints)
