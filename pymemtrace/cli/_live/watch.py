"""What is watched: captures that grow, come, and end; and pictures of them.

A picture is all that the screen shows at one time. It is made in the worker's thread; nobody else
touches the readers. Every number in it comes from the core.
"""

import glob
import os
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pymemtrace
from pymemtrace import _core, _symbols
from pymemtrace._core import Aggregate, Combined, Reader
from pymemtrace._types import LineRow, Site, View
from pymemtrace.cli import _format, _options, _pressure
from pymemtrace.cli import tree as tree_command

LINES = 500  # rows of a picture at most
MIN_SHARE = 0.002  # of the branches of a tree
MOST = 0.5  # of the bytes: such a branch of a tree is open
LOOK_UP_S = 5.0  # between two look-ups of native places, at least
OUTPUT_BYTES = 64 << 10  # of what a program has printed

TABS = ("sites", "tree", "threads", "where", "processes", "output")
VIEWS: tuple[View, ...] = ("leaks", "peak", "total", "temporary")
ORDERS = ("bytes", "blocks", "allocated_bytes", "temporary_bytes")


Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Wish:
    """What the screen is to show."""

    tab: str = "sites"
    view: View = "leaks"
    order: str = "bytes"
    total: bool = False  # what was allocated below a line, not by the line alone
    inverted: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    process: str | None = None  # the path of its capture; None: all together
    thread: str | None = None  # its native id
    paused: bool = False


@dataclass(frozen=True)
class Column:
    title: str
    right: bool = False  # numbers
    style: str = ""
    flexible: bool = False  # gets the room that is left
    rank: int = 0  # where there is no room, the columns of the highest rank go first; 0 stays


@dataclass(frozen=True)
class Line:
    key: Hashable  # what it is about; the cursor stays on it
    cells: tuple[str, ...]
    style: str = ""


@dataclass(frozen=True)
class Process:
    path: str
    pid: int
    info: dict[str, Any]


@dataclass
class Picture:
    wish: Wish
    processes: list[Process] = field(default_factory=list)
    threads: list[tuple[str, str]] = field(default_factory=list)  # native id, name; of the chosen
    shown: list[Process] = field(default_factory=list)  # those that the figures are of
    live_bytes: int = 0
    peak_bytes: int = 0
    rss_bytes: int = 0
    cgroup: str = ""  # its memory, where it has a limit; of one process
    duration_s: float = 0.0
    heap: list[tuple[float, int]] = field(default_factory=list)  # seconds, bytes
    rss: list[tuple[float, int]] = field(default_factory=list)  # empty for several processes
    columns: tuple[Column, ...] = ()
    lines: list[Line] = field(default_factory=list)
    tree: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    paths: _format.Paths = field(default_factory=_format.Paths)

    @property
    def running(self) -> bool:
        return any(process.info["ended"] == "running" for process in self.shown)

    @property
    def age_s(self) -> float:
        """Of the freshest figures: a process that waits for its children may flush nothing."""
        ages = (p.info["age_s"] for p in self.shown if p.info["ended"] == "running")
        return min(ages, default=0.0)


class Names:
    """Names of native frames. They are looked up beside everything else, as it takes seconds; then
    the capture is opened anew with them. Places that come later wait until looking them up has
    become a small part of the time."""

    def __init__(self) -> None:
        self.symbols: bytes | None = None
        self._found: list[_symbols.Place] = []
        self._thread: threading.Thread | None = None
        self._due = 0.0

    def are_new(self) -> bool:
        """Whether there are more of them than before."""
        if self._thread is None or self._thread.is_alive():
            return False
        self._thread = None
        self.symbols = _core.encode_symbols(self._found)
        return True

    def look_up(self, reader: Reader) -> None:
        if self._thread is None and time.monotonic() >= self._due:
            unresolved = reader.unresolved()
            if unresolved:
                self._thread = threading.Thread(target=self._run, args=(unresolved,), daemon=True)
                self._thread.start()

    def _run(self, unresolved: list[_symbols.Job]) -> None:
        began = time.monotonic()
        self._found += _symbols.look_up(unresolved)
        now = time.monotonic()
        self._due = now + max(LOOK_UP_S, (now - began) * 20)


class Tracked:
    """A capture, followed. refresh() returns whether it has changed."""

    def __init__(self, path: str, hide_interpreter: bool = False) -> None:
        self.path = path
        self.reader: Reader | None = None
        self.info: dict[str, Any] = {}
        self.problem = ""
        self._hide_interpreter = hide_interpreter
        self._names = Names()

    def refresh(self, progress: Progress | None = None) -> bool:
        if self.reader is not None and not self._names.are_new():
            try:
                self._names.look_up(self.reader)
                if not self.reader.refresh():
                    if self.info["ended"] == "running":
                        self.info["age_s"] = self.reader.info()["age_s"]
                    return False
                self.info = self.reader.info()
                return True
            except (OSError, pymemtrace.PymemtraceError):
                pass  # the writer has put a shorter file in its place, or somebody another one
        try:
            self.reader = Reader(
                self.path,
                progress=progress,
                symbols=self._names.symbols,
                hide_interpreter=self._hide_interpreter,
                follow=True,
            )
        except (OSError, pymemtrace.PymemtraceError) as error:
            changed = self.problem != str(error) or self.reader is not None
            self.problem = str(error)
            self.reader = None
            return changed
        self.problem = ""
        self.info = self.reader.info()
        return True


def is_pattern(word: str) -> bool:
    return glob.has_magic(word) and not os.path.lexists(word)


def base_of(path: str) -> str:
    """The children of the program of app.pmt write app.<pid>.pmt."""
    return path.removesuffix(".pmt")


def children_of(base: str) -> Iterator[str]:
    folder, name = os.path.split(base)
    is_child = re.compile(re.escape(name) + r"\.\d+(-\d+)?\.pmt").fullmatch
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                if is_child(entry.name):
                    yield os.path.join(folder, entry.name)
    except OSError:
        return


class Watch:
    """words: paths of captures, whose children's captures are watched as well, and patterns."""

    def __init__(
        self, words: Sequence[str], output: str | None = None, hide_interpreter: bool = False
    ) -> None:
        self._hide_interpreter = hide_interpreter
        self._words = list(words)
        self._output = output
        self._tracked: dict[str, Tracked] = {}
        self._strange: set[str] = set()  # older than what they look like children of
        self._paths = _format.Paths()
        self._files: set[str] = set()

    # --- following ---

    def refresh(self, progress: Progress | None = None) -> bool:
        """Takes in what has come. Whether anything has. progress: as for Reader."""
        changed = False
        captures = [word for word in self._words if not is_pattern(word)]
        for path in captures:
            changed |= self._track(path)
        for pattern in filter(is_pattern, self._words):
            for path in glob.glob(pattern, recursive=True):
                changed |= self._track(path)
        for tracked in self._tracked.values():
            changed |= tracked.refresh(progress)
        for path in captures:
            for child in children_of(base_of(path)):
                changed |= self._track_child(child, self._tracked[path])
        return changed

    def _track(self, path: str) -> bool:
        if path in self._tracked:
            return False
        self._tracked[path] = Tracked(path, self._hide_interpreter)
        return True

    def _track_child(self, path: str, parent: Tracked) -> bool:
        if path in self._tracked or path in self._strange or parent.reader is None:
            return False
        child = Tracked(path, self._hide_interpreter)
        child.refresh()
        if child.reader is None:
            return False  # it is just being made
        if child.info["started"] < parent.info["started"]:  # of an earlier run
            self._strange.add(path)
            return False
        self._tracked[path] = child
        return True

    @property
    def problems(self) -> list[str]:
        return [tracked.problem for tracked in self._tracked.values() if tracked.problem]

    def processes(self) -> list[Process]:
        opened = [tracked for tracked in self._tracked.values() if tracked.reader is not None]
        opened.sort(key=lambda tracked: (tracked.info["started"], tracked.path))
        return [Process(one.path, one.info["pid"], dict(one.info)) for one in opened]

    def _reader(self, path: str) -> Reader:
        return cast(Reader, self._tracked[path].reader)

    # --- pictures ---

    def picture(self, wish: Wish) -> Picture:
        picture = Picture(wish, self.processes(), notes=self.problems, paths=self._paths)
        if wish.tab == "output":
            self._show_output(picture)
        if not picture.processes:
            return picture
        chosen = [process for process in picture.processes if process.path == wish.process]
        picture.shown = chosen or picture.processes
        if len(picture.shown) == 1:
            self._sum_up_one(picture)
        else:
            self._sum_up_several(picture)
        if not self._paths_know_stdlib():
            stdlib = self._reader(picture.shown[0].path).proc().get("stdlib")
            self._paths = picture.paths = _format.Paths(stdlib)
        make = getattr(self, f"_show_{wish.tab}")
        if wish.tab != "output":
            make(picture)
        return picture

    def _paths_know_stdlib(self) -> bool:
        return bool(self._files)

    def _sum_up_one(self, picture: Picture) -> None:
        process = picture.shown[0]
        reader = self._reader(process.path)
        totals, cuts = reader.totals(), reader.timeline()
        picture.peak_bytes = totals["heap_bytes_peak"]
        picture.duration_s = process.info["duration_s"]
        picture.heap = [(cut["t_s"], cut["heap_bytes"]) for cut in cuts]
        picture.rss = [(cut["t_s"], cut["rss_bytes"]) for cut in cuts]
        if cuts:
            picture.live_bytes = cuts[-1]["heap_bytes"]
            picture.rss_bytes = cuts[-1]["rss_bytes"]
        if process.info["ended"] != "running":
            picture.live_bytes = totals["heap_bytes_end"]
            picture.rss_bytes = totals["rss_bytes_end"]
        for pressure in reader.pressure(last=1):
            picture.cgroup = _pressure.short(pressure)
        picture.threads = [
            (str(thread["native_id"]), _options.thread_text(thread))
            for thread in threads_of(reader)
        ]

    def _sum_up_several(self, picture: Picture) -> None:
        combined = self._combined(picture.shown)
        totals, moments = combined.totals(), combined.timeline()
        picture.peak_bytes = totals["heap_bytes_peak_simultaneous"]
        picture.duration_s = totals["duration_s"]
        picture.heap = [(moment["t_s"], moment["heap_bytes"]) for moment in moments]
        running = self._alive(picture.shown)
        totals = totals if running is picture.shown else self._combined(running).totals()
        picture.live_bytes = totals["heap_bytes_end"]
        picture.rss_bytes = totals["rss_bytes_end"]
        for process in running:
            for thread in threads_of(self._reader(process.path)):
                text = f"{_options.thread_text(thread)} of {process.pid}"
                picture.threads.append((str(thread["native_id"]), text))

    def _combined(self, processes: Sequence[Process]) -> Combined:
        return Combined([self._reader(process.path) for process in processes])

    @staticmethod
    def _alive(processes: list[Process]) -> list[Process]:
        """What is alive now is in the processes that run; when none does, in all, at their ends."""
        running = [process for process in processes if process.info["ended"] == "running"]
        return running or processes

    def _aggregate(self, picture: Picture) -> Aggregate | None:
        """None: the filters ask for what there is not; a note says so."""
        wish = picture.wish
        processes = self._alive(picture.shown) if wish.view == "leaks" else picture.shown
        source = (
            self._reader(processes[0].path) if len(processes) == 1 else self._combined(processes)
        )
        try:
            aggregate = source.aggregate(
                wish.view, thread=wish.thread, include=wish.include, exclude=wish.exclude
            )
        except ValueError as error:
            picture.notes.append(str(error))
            return None
        if not (aggregate.bytes or aggregate.blocks) and (wish.include or wish.exclude):
            picture.notes.append("the filter lets nothing through")
        return aggregate

    def _learn(self, files: set[str]) -> None:
        if not files <= self._files:
            self._files |= files
            self._paths.learn(files)

    def _show_sites(self, picture: Picture) -> None:
        wish = picture.wish
        aggregate = self._aggregate(picture)
        rows = [] if aggregate is None else aggregate.lines(LINES, by=wish.order, total=wish.total)
        self._learn({row["site"]["file"] for row in rows})
        picture.columns = site_columns(wish)
        picture.lines = [site_line(row, wish, self._paths) for row in rows]

    def _show_tree(self, picture: Picture) -> None:
        aggregate = self._aggregate(picture)
        picture.columns = TREE_COLUMNS
        if aggregate is None:
            return
        root = aggregate.tree(inverted=picture.wish.inverted, min_share=MIN_SHARE)
        if not picture.wish.inverted:
            tree_command.hide_machinery(root, 0)
        self._learn({node["site"]["file"] for node in tree_command.walk(root)})
        picture.tree = root

    def _show_threads(self, picture: Picture) -> None:
        wish = picture.wish
        several = len(picture.shown) > 1
        picture.columns = thread_columns(several)
        rows: list[tuple[dict[str, Any], Process]] = []
        for process in picture.shown:
            reader = self._reader(process.path)
            sums = reader.thread_sums(include=wish.include, exclude=wish.exclude)
            rows += [(row, process) for row in sums]
        number = THREAD_NUMBERS[wish.view]
        rows.sort(key=lambda pair: -pair[0][number])
        picture.lines = [
            thread_line(row, process, several, str(row["native_id"]) == wish.thread)
            for row, process in rows[:LINES]
        ]

    def _show_where(self, picture: Picture) -> None:
        picture.columns = WHERE_COLUMNS
        for process in picture.shown:
            where = self._reader(process.path).where()
            if len(picture.shown) > 1:
                text = f"process {process.pid}"
                picture.lines.append(Line(process.path, ("", "", text, ""), "bold"))
            if where is None:
                text = "not measured yet"
                picture.lines.append(Line((process.path, ""), ("", "", text, ""), "dim"))
                continue
            picture.lines += where_lines(process, where)

    def _show_processes(self, picture: Picture) -> None:
        picture.columns = PROCESS_COLUMNS
        rows = self._combined(picture.processes).totals()["processes"]
        picture.lines = [
            process_line(process, row, process.path == picture.wish.process)
            for process, row in zip(picture.processes, rows, strict=True)
        ][:LINES]

    def _show_output(self, picture: Picture) -> None:
        picture.columns = (Column("", flexible=True),)
        if self._output is None:
            return
        try:
            with open(self._output, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - OUTPUT_BYTES))
                text = file.read(OUTPUT_BYTES).decode(errors="replace")
        except OSError as error:
            picture.notes.append(f"{self._output}: {error.strerror}")
            return
        lines = text.split("\n")
        if size > OUTPUT_BYTES:
            lines[0] = f"… the rest is in {self._output}"
        if lines[-1] == "":
            lines.pop()
        first = max(0, len(lines) - LINES)
        picture.lines = [
            Line(number, (_format.clean(line.rstrip("\r").rpartition("\r")[2].expandtabs()),))
            for number, line in enumerate(lines[first:])
        ]


def threads_of(reader: Reader) -> list[dict[str, Any]]:
    """The first one first."""
    return sorted(reader.threads(), key=lambda thread: int(thread["id"]))


# --- rows -----------------------------------------------------------------------------------------

SORTED = "▾"  # behind the title of the column that the rows are sorted by


def site_columns(wish: Wish) -> tuple[Column, ...]:
    def title(text: str, is_order: bool) -> str:
        return f"{text}{SORTED}" if is_order else text

    by_bytes = wish.order == "bytes"
    return (
        Column(title("own", by_bytes and not wish.total), right=True, style="bold"),
        Column(title("total", by_bytes and wish.total), right=True, style="bold", rank=1),
        Column(title("blocks", wish.order == "blocks"), right=True, rank=2),
        Column(title("allocated", wish.order == "allocated_bytes"), right=True, rank=4),
        Column(title("temporary", wish.order == "temporary_bytes"), right=True, rank=3),
        Column("line", style="cyan", flexible=True),
    )


def site_line(row: LineRow, wish: Wish, paths: _format.Paths) -> Line:
    value = row["total"] if wish.total else row["own"]
    return Line(
        site_key(row["site"]),
        (
            _format.size(row["own"]["bytes"]),
            _format.size(row["total"]["bytes"]),
            _format.count(value["blocks"]),
            _format.size(value["allocated_bytes"]),
            _format.size(value["temporary_bytes"]),
            site_text(row["site"], paths),
        ),
    )


def site_key(site: Site) -> tuple[str, int, str]:
    return (site["file"], site["line"], site["function"])


def site_text(site: Site, paths: _format.Paths) -> str:
    place = paths.place(site)
    function = _format.clean(site["function"])
    return f"{function}  {place}" if place else function


TREE_COLUMNS = (
    Column("bytes", right=True, style="bold"),
    Column("share", right=True, rank=1),
    Column("stack", flexible=True),
)

THREAD_NUMBERS: dict[View, str] = {
    "leaks": "end_bytes",
    "peak": "peak_bytes",
    "total": "allocated_bytes",
    "temporary": "temporary_bytes",
}


def thread_columns(several: bool) -> tuple[Column, ...]:
    return (
        Column("now", right=True, style="bold"),
        Column("at peak", right=True, rank=2),
        Column("allocated", right=True, rank=1),
        Column("allocations", right=True, rank=4),
        Column("temporary", right=True, rank=3),
        Column("thread of process" if several else "thread", style="cyan", flexible=True),
    )


def temporary_text(size_bytes: int | None) -> str:
    """None: of samples it is not known."""
    return "-" if size_bytes is None else _format.size(size_bytes)


def thread_line(row: dict[str, Any], process: Process, several: bool, chosen: bool) -> Line:
    name = _options.thread_text(row) if row["id"] else "not known"
    if row["ended"]:
        name += ", ended"
    if several:
        name += f" of {process.pid}"
    return Line(
        (process.path, row["native_id"]),
        (
            _format.size(row["end_bytes"]),
            _format.size(row["peak_bytes"]),
            _format.size(row["allocated_bytes"]),
            _format.count(row["allocations"]),
            temporary_text(row["temporary_bytes"]),
            f"* {name}" if chosen else name,
        ),
        "dim" if row["ended"] else "",
    )


WHERE_COLUMNS = (
    Column("bytes", right=True, style="bold"),
    Column("share", right=True, rank=1),
    Column("part", style="cyan"),
    Column("what it is", flexible=True),
)


def where_lines(process: Process, where: dict[str, Any]) -> Iterator[Line]:
    rss = where["rss_bytes"]
    at = _format.duration(where["at_s"])
    sizes = (_format.size(rss), _format.share(1.0))
    yield Line((process.path, "rss"), (*sizes, "resident (RSS)", f"{at} after the start"))
    rest = {"name": "unattributed", "bytes": where["unattributed_bytes"], "detail": ""}
    for part in (*where["parts"], rest):
        size, share = _format.size(part["bytes"]), _format.part(part["bytes"], rss)
        yield Line((process.path, part["name"]), (size, share, part["name"], part["detail"]))
    for number, advice in enumerate(where["advice"]):
        yield Line((process.path, number), ("", "", "what could help", advice), "dim")


PROCESS_COLUMNS = (
    Column("process", right=True, style="bold"),
    Column("parent", right=True, rank=4),
    Column("now", right=True, style="bold"),
    Column("peak", right=True, rank=1),
    Column("RSS", right=True, rank=2),
    Column("inherited", right=True, rank=5),
    Column("age", right=True, rank=6),
    Column("state", rank=3),
    Column("command", style="cyan", flexible=True),
)


def process_line(process: Process, row: dict[str, Any], chosen: bool) -> Line:
    running = process.info["ended"] == "running"
    return Line(
        process.path,
        (
            f"*{process.pid}" if chosen else str(process.pid),
            str(row["parent_pid"] or ""),
            _format.size(row["heap_bytes_end"]),
            _format.size(row["heap_bytes_peak"]),
            _format.size(row["rss_bytes_end"]),
            _format.size(row["inherited_bytes"]) if row["inherited_bytes"] else "",
            _format.duration(process.info["age_s"]) if running else "",
            "running" if running else "killed" if process.info["ended"] == "killed" else "ended",
            _format.command(process.info["command"]),
        ),
        "" if running else "dim",
    )


def tree_lines(picture: Picture, opened: dict[int, bool]) -> list[Line]:
    """The branches that are open. As in `pymemtrace tree`, a frame that is the only one below its
    caller stands at the same depth. Keys are numbers that stay from picture to picture; `opened`
    says which branches are open. One that is new is if it is an only child or holds most."""
    if picture.tree is None:
        return []
    lines: list[Line] = []
    waiting = [(picture.tree, 0, 0, True)]
    while waiting:
        node, above, depth, is_only = waiting.pop()
        key = hash((above, *site_key(node["site"])))
        children = node["children"]
        is_open = opened.setdefault(key, is_only or node["share"] >= MOST)
        mark = " " if not children else "▾" if is_open else "▸"
        text = f"{' ' * depth}{mark} {_format.clean(node['site']['function'])}"
        place = picture.paths.place(node["site"])
        lines.append(
            Line(
                key,
                (
                    _format.size(node["bytes"]),
                    _format.share(node["share"]),
                    f"{text}  {place}" if place else text,
                ),
            )
        )
        if is_open:
            only = len(children) == 1
            waiting += [(child, key, depth + (not only), only) for child in reversed(children)]
    return lines


def parse_filter(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """'app.* !*/site-packages/*': what --include and --exclude would be given."""
    include, exclude = [], []
    for word in text.split():
        if word.startswith("!"):
            exclude.append(word[1:])
        else:
            include.append(word)
    return tuple(include), tuple(word for word in exclude if word)


def filter_text(wish: Wish) -> str:
    return " ".join([*wish.include, *(f"!{word}" for word in wish.exclude)])


def next_of(items: Sequence[Any], now: Any, step: int) -> Any:
    """Round and round; what is not among them stands before the first."""
    if not items:
        return now
    at = items.index(now) if now in items else -1 if step > 0 else 0
    return items[(at + step) % len(items)]
