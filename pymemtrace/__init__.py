"""Records every allocation of a Python program and says where the memory went."""

# Only _core is imported here: this package is in the process that it records, and what it imports
# costs that program start-up time. Everything else comes when it is first asked for.
from pymemtrace._core import (
    CaptureError,
    CaptureExistsError,
    PymemtraceError,
    UnsupportedError,
)
from pymemtrace._core import version as __version__

TYPE_CHECKING = False  # as in typing, which is not to be imported here
if TYPE_CHECKING:
    from pymemtrace._capture import Capture, MergedCapture, Rows, open, open_many
    from pymemtrace._recording import record
    from pymemtrace._sampling import sampling, toggle_sampling_on

__all__ = [
    "Capture",
    "CaptureError",
    "CaptureExistsError",
    "MergedCapture",
    "PymemtraceError",
    "Rows",
    "UnsupportedError",
    "__version__",
    "open",
    "open_many",
    "record",
    "sampling",
    "toggle_sampling_on",
]

_LAZY = {
    "Capture": "pymemtrace._capture",
    "MergedCapture": "pymemtrace._capture",
    "Rows": "pymemtrace._capture",
    "open": "pymemtrace._capture",
    "open_many": "pymemtrace._capture",
    "record": "pymemtrace._recording",
    "sampling": "pymemtrace._sampling",
    "toggle_sampling_on": "pymemtrace._sampling",
}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'pymemtrace' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _warn_of_namesake() -> None:
    """Another project is called pymemtrace too and installs files into the same folder."""
    import os

    # A file of theirs that we do not have; one stat() is all that this costs.
    if os.path.exists(os.path.join(__path__[0], "trace_malloc.py")):
        import warnings

        try:
            warnings.warn(
                "the distribution 'pymemtrace', another project, has installed files over "
                "'pymemtrace-profiler': uninstall both, then install pymemtrace-profiler",
                RuntimeWarning,
                stacklevel=3,
            )
        except RuntimeWarning:
            pass  # -W error is meant for the program, which this must not end


_warn_of_namesake()
