"""`pymemtrace.record`: recording a part of a program, from within."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from pymemtrace import _core

P = ParamSpec("P")
R = TypeVar("R")


class record:
    """Records the allocations of this process into a capture; context manager and decorator.

        with pymemtrace.record("job.pmt") as rec:
            for number, batch in enumerate(batches):
                work(batch)
                rec.mark(f"batch {number}")

        @pymemtrace.record("job-{n}.pmt")
        def job(): ...

    Every block that is allocated while the recording is on counts, by whatever thread. Blocks from
    before are not known; freeing them is counted, not blamed. Exceptions pass through, and what
    was recorded up to them is in the capture.

    path: the capture. `{pid}` in it becomes the process id and `{n}` the number of the recording
        that this object makes: 1, 2, 3 and so on. It is made absolute when the object is made.
    force: overwrite an existing file.
    events: keep the log of every single event as well.
    max_memory_bytes, max_size_bytes: limits of the recorder's memory and of the file, in bytes;
        0 is the default limit.
    temporaries: a block is temporary if it is freed within this many further allocations of its
        thread; 1 to 255.
    interval_s: seconds between two writes to the file; 0.01 to 3600.
    native: also what goes past Python's allocators (malloc, mmap). Every object that is loaded is
        made to call us instead of the C library, once and for good; pointers to malloc that the
        program has fetched before are not seen, libraries loaded later within interval_s.
    native_traces: the stacks contain the frames of C and C++ functions, too, between those of
        Python. They are named when the capture is read, or by `pymemtrace symbolize`.
    async_parents: the stacks of asyncio's tasks contain the frames of the tasks that await them,
        between those of the event loop and their own.
    sample_bytes: record samples only, one per so many bytes that are allocated, on average; figures
        are estimates then. 1024 to 2**40; 0 records everything. 524288 is a good start.

    Entering raises CaptureExistsError if the file exists (without force), UnsupportedError if this
    interpreter cannot be recorded, PymemtraceError if the process is being recorded already,
    OSError if the file cannot be written, ValueError for a value out of range (making the object
    does, too).

    As a decorator it records every call anew, so the second call needs `force=True` (each call
    overwrites the capture of the one before) or `{n}` in the path (each call has its own). It takes
    functions and coroutine functions. A generator function is refused with TypeError: its body runs
    in pieces, between which other code runs; use `with` inside it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        events: bool = False,
        max_memory_bytes: int = 0,
        max_size_bytes: int = 0,
        temporaries: int = 1,
        interval_s: float = 1.0,
        native: bool = True,
        native_traces: bool = False,
        async_parents: bool = False,
        sample_bytes: int = 0,
    ) -> None:
        if max_memory_bytes < 0 or max_size_bytes < 0:
            raise ValueError("max_memory_bytes and max_size_bytes must not be negative")
        self._template = os.path.abspath(os.fspath(path))
        self._options: dict[str, Any] = {
            "force": force,
            "events": events,
            "max_memory_bytes": max_memory_bytes,
            "max_size_bytes": max_size_bytes,
            "temporaries": temporaries,
            "interval_s": interval_s,
            "native": native,
            "native_traces": native_traces,
            "async_parents": async_parents,
            "sample_bytes": sample_bytes,
        }
        self._count = 0
        self._active = False
        self.path = ""

    def __enter__(self) -> Self:
        if _core.is_recording():
            raise _core.PymemtraceError(
                "this process is being recorded already: end that recording first"
            )
        number = self._count + 1
        path = self._template.replace("{pid}", str(os.getpid())).replace("{n}", str(number))
        _core.start(path, argv=sys.orig_argv, **self._options)
        self._count = number
        self._active = True
        self.path = path
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the recording before the block does. Does nothing if it has ended."""
        if self._active:
            self._active = False
            _core.stop()

    def mark(self, label: str) -> int:
        """Ends the current epoch under this label and returns its number, counted from 1.

        An epoch is a stretch of the recording, such as a batch or a request; captures say for each
        what was allocated in it and what of that was alive at the end. Raises PymemtraceError if
        this recording is not on.
        """
        self._require_active()
        return _core.mark(label)

    def flush(self) -> None:
        """Writes what happened up to now. Raises PymemtraceError if this recording is not on."""
        self._require_active()
        _core.flush()

    def status(self) -> dict[str, Any]:
        """Figures of the recording, in bytes: live_bytes, peak_bytes, file_bytes, own_bytes ..."""
        return _core.status()

    def _require_active(self) -> None:
        if not self._active:
            raise _core.PymemtraceError(
                "this recording is not on: use it inside its `with` block or decorated function"
            )

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator: record with `with` inside it instead"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def record_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return record_coroutine  # type: ignore[return-value]

        @functools.wraps(function)
        def record_call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return record_call
