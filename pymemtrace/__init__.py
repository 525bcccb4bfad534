"""Records every allocation of a Python program and says where the memory went."""

from pymemtrace._core import (
    CaptureError,
    CaptureExistsError,
    PymemtraceError,
    UnsupportedError,
)
from pymemtrace._core import version as __version__

__all__ = [
    "CaptureError",
    "CaptureExistsError",
    "PymemtraceError",
    "UnsupportedError",
    "__version__",
]
