"""`pymemtrace.open` and `open_many`: reading captures from Python."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pymemtrace import _core
from pymemtrace._types import Event, ExportKind, SiteRow, View

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped, unused-ignore]

T = TypeVar("T")


class Rows(list[T]):
    """A list of dictionaries that pandas can take."""

    def to_dataframe(self) -> "pandas.DataFrame":
        """The rows as a pandas.DataFrame.

        A site becomes the columns file, line, function and module; a stack stays one column, a list
        of sites, innermost first. Raises ImportError where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe() needs pandas: pip install pandas") from error
        return pandas.DataFrame([_flat(row) for row in self])


def _flat(row: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "site":
            flat |= value
        else:
            flat[name] = value
    return flat


class _Views:
    """What Capture and MergedCapture make of their aggregate()."""

    def aggregate(self, *args: Any, **filters: Any) -> _core.Aggregate:
        raise NotImplementedError

    def sites(
        self,
        view: View = "peak",
        *,
        limit: int | None = None,
        native: bool = False,
        **filters: Any,
    ) -> Rows[SiteRow]:
        """One row per line that allocated, the heaviest first; filters as in aggregate().

        A row has site, stack (the heaviest one that ends there), bytes and blocks of the view,
        share (of the view's bytes, 0 to 1), allocated_bytes and allocations; of several captures
        also by_capture. Of a sampled capture, bytes, blocks, allocated_bytes and allocations are
        estimates, and bytes_low, bytes_high and so on the limits of their 95 % intervals; samples
        is the number of samples that bytes and blocks rest on.

        native: one row per innermost frame, which may be native. Else what native functions
            allocate counts for the line of Python that called them.
        """
        return Rows(self.aggregate(view, **filters).sites(limit, native=native))

    def stacks(
        self, view: View = "peak", *, limit: int | None = None, **filters: Any
    ) -> Rows[SiteRow]:
        """One row per distinct stack, the heaviest first; otherwise as sites()."""
        return Rows(self.aggregate(view, **filters).stacks(limit))

    def tree(
        self, view: View = "peak", *, inverted: bool = False, min_share: float = 0.0, **filters: Any
    ) -> dict[str, Any]:
        """The stacks as a tree of site, bytes, blocks, share, children, of several captures also
        by_capture, of a sampled one also limits and samples as in sites(); filters as in
        aggregate().

        inverted: callers below callees. min_share: leave out nodes with less of the bytes (0 to 1).
        """
        return self.aggregate(view, **filters).tree(inverted=inverted, min_share=min_share)

    def export(
        self,
        kind: ExportKind,
        view: View = "peak",
        *,
        inverted: bool = False,
        full_paths: bool = False,
        **filters: Any,
    ) -> bytes:
        """The stacks for another program: pprof (before gzip), speedscope, collapsed or csv.

        full_paths: name the files of collapsed stacks instead of their modules.
        """
        aggregate = self.aggregate(view, **filters)
        return aggregate.export(kind, inverted=inverted, full_paths=full_paths)


class Capture(_Views):
    """A capture, read up to its last complete flush. `pymemtrace.open` makes it.

    Sizes are bytes; names that end in `_s` are seconds, counted from the start of the recording
    where they name a moment; instants are ISO 8601 texts with zone. A capture that is still being
    written is read once, as it was: open it again for what came since.
    """

    def __init__(self, reader: _core.Reader) -> None:
        self._reader = reader

    @property
    def path(self) -> str:
        return self._reader.path

    def __repr__(self) -> str:
        return f"<pymemtrace.Capture {self.path!r}>"

    def info(self) -> dict[str, Any]:
        """What ran and how it ended: path, pid, command, python, mode, started, duration_s, ended
        ("normal", "killed" or "running"), age_s, dropped, folded, stopped, torn, damaged. Of a
        sampled capture also sample_bytes, the mean distance of samples at the start, and
        sample_bytes_now, at the end."""
        return self._reader.info()

    def process(self) -> dict[str, Any]:
        """All facts about the process and its host that the capture holds."""
        return self._reader.proc()

    def totals(self) -> dict[str, Any]:
        """Figures of the whole run: heap_bytes_peak, peak_t_s, heap_bytes_end, allocated_bytes,
        allocations, frees, rss_bytes_peak and more. Of a sampled capture also limits, as in
        sites(): heap_bytes_peak_low and so on."""
        return self._reader.totals()

    def threads(self) -> Rows[dict[str, Any]]:
        """One row per thread: id, native_id, python_id, name, birth_s, ended, interpreter."""
        return Rows(self._reader.threads())

    def timeline(self) -> Rows[dict[str, Any]]:
        """One row per flush: t_s, heap_bytes, rss_bytes, and counters since the start."""
        return Rows(self._reader.timeline())

    def epochs(self) -> Rows[dict[str, Any]]:
        """One row per epoch: start_s, end_s, its label if a mark ended it, what was allocated in
        it, and what of that was alive at the end (live_bytes, live_blocks)."""
        return Rows(self._reader.epochs())

    def marks(self) -> Rows[dict[str, Any]]:
        """One row per mark: epoch (that it ended), t_s, label."""
        return Rows(self._reader.marks())

    def stats(self, **filters: Any) -> dict[str, Any]:
        """Allocations by size, by domain and by thread; how many epochs freed blocks lived.

        Of a sampled capture with limits, as in sites(); temporaries are None: not known.
        Filters as in aggregate(). With one, sizes over 512 B are one class: their sizes are known
        for the whole run only.
        """
        return self._reader.stats(**filters)

    def where(self, at_s: float | None = None) -> dict[str, Any] | None:
        """How the resident memory was made up, at the last measurement or the last one not behind
        at_s: at, at_s, rss_bytes, parts (name, bytes, detail; the largest first),
        unattributed_bytes, requested_bytes (live blocks), dominating, advice. None if the capture
        holds no measurement."""
        return self._reader.where(at_s)

    def where_timeline(self) -> Rows[dict[str, Any]]:
        """One row per measurement: t_s, rss_bytes, requested_bytes, unattributed_bytes, parts (by
        name, in bytes)."""
        return Rows(self._reader.where_timeline())

    def event_log(self) -> dict[str, int] | None:
        """What there is of an event log, None without one: events (that happened), logged (of
        these), complete (no event below this number is missing)."""
        return self._reader.event_log()

    def events(self) -> Iterator[Event]:
        """The events of the log, in order: (number, t_s, kind, site id, address, size).

        kind: "alloc" or "free"; a realloc is "realloc-free", "realloc-alloc", one after the other;
            so is an object that is taken from a free list and so belongs to another site:
            "reuse-free", "reuse-alloc".
        size: bytes; None for a free in a site of many sizes.

        Raises ValueError if there is no log. The file is read meanwhile.
        """
        return self._reader.events()

    def replay(self, stop: int | None = None) -> dict[str, Any]:
        """The heap after the first `stop` events of the log (None: all, or up to its first gap).

        events (that were replayed), allocations, frees, allocated_bytes, live_bytes, live_blocks,
        peak_bytes, peak_t_s, peak_stop (replay(peak_stop) is the heap at its highest point),
        unmatched (frees of blocks that the log does not know, 0), and sites: what is alive by site
        id, as (blocks, bytes). Raises ValueError if there is no log.
        """
        return self._reader.replay(stop)

    def site(self, site_id: int) -> dict[str, Any]:
        """What a site id of the log stands for: site, stack, size (None: any over 512), domain,
        thread. Raises IndexError if there is no such site."""
        return self._reader.site(site_id)

    def aggregate(
        self,
        view: View = "peak",
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        thread: str | None = None,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
    ) -> _core.Aggregate:
        """The values of a view, summed over what the filters let through.

        view: "peak", what was alive at the highest point; "leaks", what was alive at the end;
            "total", what was allocated; "temporary", what was freed at once.
        start_s, end_s: a time window, in seconds; whole flushes.
        thread: a name or a native id.
        include, exclude: patterns (`*`, `?`, `[...]`) on a frame's file or the last parts of its
            path, its module (`__main__` is the program's main file), or a package that the module
            is in; of a native frame also on its library. A stack stays if any frame matches an
            include pattern, and goes if its innermost line of Python, or a native function that
            this has called, matches an exclude pattern.

        Raises ValueError for an unknown view or thread and for an impossible window.
        """
        return self._reader.aggregate(
            view,
            start_s=start_s,
            end_s=end_s,
            thread=thread,
            include=tuple(include),
            exclude=tuple(exclude),
        )


class MergedCapture(_Views):
    """Several captures as one: the processes of one program. `pymemtrace.open_many` makes it.

    Stacks of the same frames are one stack, whichever process they are of, and sums and rows are
    those of all processes. Rows say who holds how much: `by_capture`, the bytes of each capture in
    the order of `captures`. The peak is the sum of each process' own peak; these are not
    simultaneous. Moments count from the start of the process that started first.
    """

    def __init__(self, captures: Sequence[Capture], *, with_inherited: bool = False) -> None:
        self.captures = list(captures)
        self._combined = _core.Combined(
            [capture._reader for capture in self.captures], with_inherited=with_inherited
        )

    @property
    def paths(self) -> list[str]:
        return [capture.path for capture in self.captures]

    def __repr__(self) -> str:
        return f"<pymemtrace.MergedCapture of {len(self.captures)} captures>"

    def info(self) -> Rows[dict[str, Any]]:
        """Capture.info() of each."""
        return Rows(self._combined.info())

    def totals(self) -> dict[str, Any]:
        """Sums over all processes, as in Capture.totals(), and heap_bytes_peak_simultaneous, the
        highest sum of the heaps at one time, with peak_simultaneous_time; started, duration_s;
        inherited_bytes, what was left out because a fork had handed it down."""
        totals = self._combined.totals()
        del totals["processes"]
        return totals

    def processes(self) -> Rows[dict[str, Any]]:
        """One row per capture: pid, parent_pid, and its part in totals()."""
        return Rows(self._combined.totals()["processes"])

    def timeline(self) -> Rows[dict[str, Any]]:
        """The sum of the heaps over time: t_s, time, heap_bytes, processes (that ran)."""
        return Rows(self._combined.timeline())

    def stats(self, **filters: Any) -> dict[str, Any]:
        """Sums of Capture.stats(); `by_thread` has the threads of all, with their pid."""
        return self._combined.stats(**filters)

    def aggregate(
        self,
        view: View = "peak",
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        thread: str | None = None,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        by_process: bool = False,
    ) -> _core.Aggregate:
        """The values of a view over all processes; arguments as in Capture.aggregate().

        by_process: stacks of different processes stay apart, on a frame for each process.

        Raises ValueError if the window or the thread is in none of the captures.
        """
        return self._combined.aggregate(
            view,
            start_s=start_s,
            end_s=end_s,
            thread=thread,
            include=tuple(include),
            exclude=tuple(exclude),
            by_process=by_process,
        )


def open_many(
    paths: Iterable[str | os.PathLike[str]],
    *,
    with_inherited: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> MergedCapture:
    """Reads the captures of several processes as one.

    with_inherited: count the blocks that a process has from its parent by fork in both; else they
        count where they were allocated.
    progress: as in open(), for each capture.

    Raises what open() raises, for the first that fails, and ValueError without a path.
    """
    captures = [open(path, progress=progress) for path in paths]
    return MergedCapture(captures, with_inherited=with_inherited)


def open(
    path: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> Capture:
    """Reads a capture.

    progress: called now and then while a large capture is read, with the bytes read and the size.

    Raises CaptureError if the file is no capture, is of a newer version, or is damaged so that
    nothing can be read; OSError if it cannot be opened. A capture whose end is torn or damaged
    opens, and info() says so.

    Native functions that have no names yet are looked up, and their names kept in the capture if it
    can be written and its program has ended.
    """
    reader = _core.Reader(os.fspath(path), progress=progress)
    if reader.unresolved():
        from pymemtrace._symbols import resolve

        reader = resolve(reader.path, reader=reader, progress=progress).reader
    return Capture(reader)


__all__: Sequence[str] = ["Capture", "MergedCapture", "Rows", "open", "open_many"]
