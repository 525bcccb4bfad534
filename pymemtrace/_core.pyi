"""The C core: recording (start/stop/mark) and reading (Reader, Combined, Aggregate).

Sizes are bytes, `*_s` are seconds, `*_ns` nanoseconds. Everything that a report shows is
computed behind this interface.
"""

import builtins
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pymemtrace._types import Event, ExportKind, LineRow, SiteRow, View

version: str

class PymemtraceError(Exception): ...
class UnsupportedError(PymemtraceError): ...  # not possible here (interpreter, rights): exit code 4
class CaptureError(PymemtraceError): ...  # unreadable or damaged input: exit code 3
class CaptureExistsError(PymemtraceError): ...  # would overwrite: exit code 2

# --- recording ------------------------------------------------------------------------------------

def start(
    path: str,
    *,
    argv: Sequence[str],
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
    box_bytes: int = 0,
    max_overhead_ppm: int = 0,
    follow: str | None = None,
    base: str | None = None,
    parent: int = 0,
    generation: int = 0,
    duration_s: float = 0.0,
    attached: int = -1,
) -> None: ...
def stop() -> None: ...
def mark(label: str) -> int: ...
def main_returned(raised: bool = False, /) -> None: ...
def run_main(
    kind: str, what: str, fd: int = -1, note: str | None = None, base: str | None = None
) -> int: ...
def is_recording() -> bool: ...
def is_preloaded() -> bool: ...
def order_sampling(what: int | str, /) -> None: ...
def status() -> dict[str, Any]: ...
def flush() -> None: ...
def self_test() -> list[dict[str, Any]]: ...
def raise_soon(exception: BaseException, /) -> None: ...
def attend(folder: str, /) -> None: ...  # in a process that was reached (cli/_control.py)
def _check_stacks(on: bool) -> tuple[int, int]: ...  # (compared, different) so far
def _pair_ns(size: int = 48, rounds: int = 600) -> float: ...
def _malloc_pair_ns(
    size: int = 64, rounds: int = 600, threads: int = 1, with_gil: bool = True
) -> float: ...
def where_process(pid: int, /) -> dict[str, Any]: ...  # as Reader.where, from outside

# --- another process, from outside: (address, expected or None, bytes or None) --------------------

def attach_layout() -> dict[str, int]: ...  # offsets in the interpreter's structures

# seconds that it stood still; None: something was not as expected, nothing was changed
def attach_exchange(
    pid: int, parts: tuple[tuple[int, bytes | None, bytes | None], ...], timeout_s: float, /
) -> float | None: ...
def attach_divert(
    pid: int,
    waiting: tuple[int, int, int, int],  # thread, system call, stack, the instruction behind
    to: int,
    argument: int,
    parts: tuple[tuple[int, bytes | None, bytes | None], ...],
    timeout_s: float,
    /,
) -> float | None: ...

# --- reading --------------------------------------------------------------------------------------

# the bytes of SYMB: object, offset, and frames (function, file, line), the innermost first
def encode_symbols(places: list[tuple[bytes, int, list[tuple[bytes, bytes, int]]]], /) -> bytes: ...

# status, reason, ns since the epoch of the last cut, cuts, live bytes, whether it is of fixed size,
# the bytes of PROC; None: it is no capture, or one that cannot be read
def read_head(fd: int, /) -> tuple[int, int, int, int, int, bool, builtins.bytes] | None: ...

class Reader:
    """A capture, read up to its last complete cut.

    `progress(done_bytes, total_bytes)` is called now and then while a large capture is read.

    follow: refresh() takes in what was appended since; only one thread at a time may use it then.
    """

    path: str
    def __init__(
        self,
        path: str,
        *,
        progress: Callable[[int, int], None] | None = None,
        follow: bool = False,
        symbols: builtins.bytes | None = None,  # of encode_symbols, as if the capture held them
        ignore_symbols: bool = False,  # those that the capture holds
        hide_interpreter: bool = False,  # leave out the interpreter's native frames
    ) -> None: ...
    # Whether there was anything new. PymemtraceError, OSError: it cannot go on; open the path anew.
    def refresh(self) -> bool: ...
    def info(self) -> dict[str, Any]: ...  # the `captures[]` object of json.md
    def proc(self) -> dict[str, Any]: ...  # all facts of the PROC chunk
    def totals(self) -> dict[str, Any]: ...
    def threads(self) -> list[dict[str, Any]]: ...
    def timeline(self) -> list[dict[str, Any]]: ...
    def marks(self) -> list[dict[str, Any]]: ...
    def epochs(self) -> list[dict[str, Any]]: ...
    def site(self, site_id: int, /) -> dict[str, Any]: ...  # site, stack, size, domain, thread
    def event_log(self) -> dict[str, int] | None: ...  # events, logged, complete; None: no log
    def events(self) -> Iterator[Event]: ...
    def replay(self, stop: int | None = None) -> dict[str, Any]: ...
    # native places without symbols, by object: path, build id, offsets
    def unresolved(self) -> list[tuple[builtins.bytes, builtins.bytes, list[int]]]: ...
    # whether encode_symbols' bytes could be appended to the capture
    def append_symbols(self, symbols: builtins.bytes, /) -> bool: ...
    # resident memory at the last measurement (not behind at_s): at, at_s, rss_bytes, parts, …
    def where(self, at_s: float | None = None) -> dict[str, Any] | None: ...
    def where_timeline(self) -> list[dict[str, Any]]: ...
    def pressure(self, *, last: int | None = None) -> list[dict[str, Any]]: ...
    def stats(  # size histogram, by domain, by thread, lifetimes
        self,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        thread: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        with_inherited: bool = True,
    ) -> dict[str, Any]: ...
    def thread_sums(  # by_thread of stats(), alone
        self,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        thread: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        with_inherited: bool = True,
    ) -> list[dict[str, Any]]: ...
    def aggregate(
        self,
        view: View = "peak",
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        thread: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        with_inherited: bool = True,
    ) -> Aggregate: ...

class Combined:
    """Several captures as one. Times count from the start of the capture that started first.

    Blocks that a fork has handed down count where they were allocated, unless with_inherited.
    """

    readers: tuple[Reader, ...]
    def __init__(self, readers: Iterable[Reader], *, with_inherited: bool = False) -> None: ...
    def info(self) -> list[dict[str, Any]]: ...
    def totals(self) -> dict[str, Any]: ...
    def timeline(self) -> list[dict[str, Any]]: ...
    def stats(
        self,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        thread: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> dict[str, Any]: ...
    def aggregate(
        self,
        view: View = "peak",
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        thread: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        by_process: bool = False,
    ) -> Aggregate: ...

class Aggregate:
    """A view of a capture, or of several: values per stack, summed over what the filters let
    through."""

    view: str
    by_capture: list[int]  # bytes of the view, in the order of the captures
    # start_s, end_s: the whole flushes that were used; of several captures whose flushes are not at
    # the same times, what was asked for
    window: dict[str, float]
    bytes: int
    blocks: int
    allocated_bytes: int
    allocations: int
    # these four; of samples also bytes_low, bytes_high and so on, 95 % intervals, and samples
    totals: dict[str, int]
    # merged by the line that is blamed, or by the innermost frame, native ones too
    def sites(self, limit: int | None = None, *, native: bool = False) -> list[SiteRow]: ...
    def stacks(self, limit: int | None = None) -> list[SiteRow]: ...  # one row per distinct stack
    # the first lines by a number of `own`, what they allocated themselves, or `total`, with callees
    def lines(self, limit: int, *, by: str = "bytes", total: bool = False) -> list[LineRow]: ...
    def tree(
        self, *, inverted: bool = False, max_depth: int = 0, min_share: float = 0.0
    ) -> dict[str, Any]: ...
    # the container of docs/flame-data.md, before compression
    def flame(self, *, inverted: bool = False, title: str = "") -> builtins.bytes: ...
    def export(
        self, kind: ExportKind, *, inverted: bool = False, full_paths: bool = False
    ) -> builtins.bytes: ...
