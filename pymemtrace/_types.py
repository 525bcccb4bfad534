"""The shapes of what the C core gives and takes. Sizes are bytes, shares 0 to 1."""

from typing import Literal, NotRequired, TypedDict

View = Literal["peak", "leaks", "total", "temporary"]
ExportKind = Literal["pprof", "speedscope", "collapsed", "csv"]


class Site(TypedDict):
    """A line of code. A frame that has none, such as [folded], has no file and the line 0."""

    file: str
    line: int
    function: str  # its qualified name
    module: str
    # of a native frame: its line is 0 and its file the object where the source is not known
    kind: NotRequired[Literal["native", "inlined"]]
    symbol: NotRequired[str]  # the function again
    object: NotRequired[str]  # path of the executable or library


class SiteRow(TypedDict):
    """What a view holds of one line, or of one stack."""

    site: Site
    stack: list[Site]  # the heaviest stack of this row, innermost first
    bytes: int
    blocks: int
    share: float
    allocated_bytes: int
    allocations: int
    by_capture: NotRequired[list[int]]  # of several captures: bytes of each, in their order
    # of a sampled capture: the limits of the 95 % intervals, and what bytes and blocks rest on
    bytes_low: NotRequired[int]
    bytes_high: NotRequired[int]
    blocks_low: NotRequired[int]
    blocks_high: NotRequired[int]
    allocated_bytes_low: NotRequired[int]
    allocated_bytes_high: NotRequired[int]
    allocations_low: NotRequired[int]
    allocations_high: NotRequired[int]
    samples: NotRequired[int]


class LineValue(TypedDict):
    """What a view holds of one line, or of all that was called from it."""

    bytes: int
    blocks: int
    share: float
    allocated_bytes: int
    allocations: int
    temporary_bytes: int
    temporaries: int


class LineRow(TypedDict):
    site: Site
    own: LineValue
    total: LineValue


EventKind = Literal["alloc", "free", "realloc-alloc", "realloc-free", "reuse-alloc", "reuse-free"]
# number, t_s, kind, site id, address, size (None: a free in a site of many sizes)
Event = tuple[int, float, EventKind, int, int, int | None]
