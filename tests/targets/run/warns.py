import warnings


def old():
    warnings.warn("old", DeprecationWarning, stacklevel=2)
    warnings.warn("too far", UserWarning, stacklevel=9)


old()
print("x" is "x", "\d")  # noqa: F632, W605
