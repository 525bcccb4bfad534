"""Writes captures, from docs/format.md alone: what the reader in C is checked against.

`CaptureBuilder` puts the pieces of a file together; `Simulation` makes up allocations, writes their
cuts with it, and remembers every block, so that a test can say what a report must show.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

MASK = (1 << 64) - 1

# --- XXH3-64, seed 0 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) -----------

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _fold(a: int, b: int) -> int:
    product = a * b
    return (product ^ product >> 64) & MASK


def _mix16(data: bytes, at: int, secret: int) -> int:
    return _fold(
        _u64(data, at) ^ _u64(SECRET, secret), _u64(data, at + 8) ^ _u64(SECRET, secret + 8)
    )


def _avalanche(h: int) -> int:
    h &= MASK
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & MASK
    return h ^ h >> 32


def _avalanche_64(h: int) -> int:
    h ^= h >> 33
    h = h * P64_2 & MASK
    h ^= h >> 29
    h = h * P64_3 & MASK
    return h ^ h >> 32


def _rotate(h: int, n: int) -> int:
    return (h << n | h >> (64 - n)) & MASK


def _short(data: bytes) -> int:
    n = len(data)
    if n == 0:
        return _avalanche_64(_u64(SECRET, 56) ^ _u64(SECRET, 64))
    if n <= 3:
        combined = data[0] << 16 | data[n >> 1] << 24 | data[n - 1] | n << 8
        return _avalanche_64(combined ^ _u32(SECRET, 0) ^ _u32(SECRET, 4))
    if n <= 8:
        value = _u32(data, n - 4) + (_u32(data, 0) << 32)
        h = value ^ _u64(SECRET, 8) ^ _u64(SECRET, 16)
        h ^= _rotate(h, 49) ^ _rotate(h, 24)
        h = h * 0x9FB21C651E98DF25 & MASK
        h ^= (h >> 35) + n
        h = h * 0x9FB21C651E98DF25 & MASK
        return h ^ h >> 28
    low = _u64(data, 0) ^ _u64(SECRET, 24) ^ _u64(SECRET, 32)
    high = _u64(data, n - 8) ^ _u64(SECRET, 40) ^ _u64(SECRET, 48)
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    return _avalanche(n + swapped + high + _fold(low, high))


def _medium(data: bytes) -> int:
    n = len(data)
    acc = n * P64_1
    if n <= 128:
        for i in range((n - 1) // 32, -1, -1):
            acc += _mix16(data, 16 * i, 32 * i) + _mix16(data, n - 16 * (i + 1), 32 * i + 16)
        return _avalanche(acc)
    acc += sum(_mix16(data, 16 * i, 16 * i) for i in range(8))
    acc = _avalanche(acc)
    acc += sum(_mix16(data, 16 * i, 16 * (i - 8) + 3) for i in range(8, n // 16))
    return _avalanche(acc + _mix16(data, n - 16, 136 - 17))


def _accumulate(acc: list[int], data: bytes, at: int, secret: int) -> None:
    values = struct.unpack_from("<8Q", data, at)
    keys = struct.unpack_from("<8Q", SECRET, secret)
    for i in range(8):
        key = values[i] ^ keys[i]
        acc[i ^ 1] = (acc[i ^ 1] + values[i]) & MASK
        acc[i] = (acc[i] + (key & 0xFFFFFFFF) * (key >> 32)) & MASK


def _long(data: bytes) -> int:
    n = len(data)
    acc = [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1]
    stripes = (n - 1) // 64
    for stripe in range(stripes):
        _accumulate(acc, data, stripe * 64, stripe % 16 * 8)
        if stripe % 16 == 15:
            keys = struct.unpack_from("<8Q", SECRET, 128)
            acc = [((a ^ a >> 47) ^ key) * P32_1 & MASK for a, key in zip(acc, keys, strict=True)]
    _accumulate(acc, data, n - 64, 192 - 64 - 7)
    result = n * P64_1
    for i in range(4):
        result += _fold(
            acc[2 * i] ^ _u64(SECRET, 11 + 16 * i), acc[2 * i + 1] ^ _u64(SECRET, 19 + 16 * i)
        )
    return _avalanche(result)


def xxh3_64(data: bytes) -> int:
    if len(data) <= 16:
        return _short(data)
    return _medium(data) if len(data) <= 240 else _long(data)


# --- the codec ----------------------------------------------------------------------------------

MAGIC = b"\x89PMT\r\n\x1a\n"
HEADER_SIZE = 4096
RECORDING, ENDED, STOPPED = 1, 2, 3
LARGE = 513  # the size of a sizeless site
MAIN_RETURNED, FINAL, PEAK_MOVED = 1, 2, 4


def varint(value: int) -> bytes:
    assert 0 <= value <= MASK
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> bytes:
    return varint((value << 1 ^ value >> 63) & MASK)


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return varint(len(data)) + data


def chunk(kind: bytes, sequence: int, payload: bytes, flags: int = 0) -> bytes:
    head = b"CHNK" + kind + struct.pack("<IIIIQ", flags, len(payload), len(payload), 0, sequence)
    whole = head + struct.pack("<Q", xxh3_64(head + payload)) + payload
    return whole + bytes(-len(whole) % 8)


def header(
    *, major: int = 1, minor: int = 0, required: int = 0, created_ns: int = 1_700_000_000 * 10**9
) -> bytes:
    head = MAGIC + struct.pack(
        "<HHIQQ16sQ", major, minor, HEADER_SIZE, required, 1, bytes(range(16)), created_ns
    )
    return head + struct.pack("<Q", xxh3_64(head))


def slot(seq: int, status: int, data_end: int, *, reason: int = 0, error: int = 0) -> bytes:
    body = struct.pack("<QIIQQQQQQi", seq, status, reason, data_end, 0, 0, 0, 0, 0, error)
    body = body.ljust(248, b"\0")
    return body + struct.pack("<Q", xxh3_64(body))


def fact(key: str, value: object) -> bytes:
    if isinstance(value, str):
        return text(key) + b"\x02" + text(value)
    if isinstance(value, int):
        return text(key) + (b"\x01" + varint(value) if value >= 0 else b"\x04" + zigzag(value))
    assert isinstance(value, list)
    return text(key) + b"\x03" + varint(len(value)) + b"".join(map(text, value))


FACTS: dict[str, object] = {
    "pymemtrace": "0.1.0",
    "python": "3.11.7",
    "command": ["python", "app.py"],
    "sys_path": ["/app", "/usr/lib/python3.11", "/usr/lib/python3.11/site-packages"],
    "cwd": "/app",
    "pid": 4711,
    "boot_id": "not this host",
    "start_ticks": 1,
    "started_unix_ns": 1_700_000_000 * 10**9,
    "mode": "full",
}


def symbols_payload(places: dict[tuple[str, int], list[tuple[str, str, int]]]) -> bytes:
    texts: dict[str, int] = {}

    def number(value: str) -> bytes:
        return varint(texts.setdefault(value, len(texts) + 1) if value else 0)

    body = varint(len(places))
    for (path, offset), frames in places.items():
        body += number(path) + varint(offset) + varint(len(frames))
        for function, file, line in frames:
            body += number(function) + number(file) + varint(line)
    return varint(len(texts)) + b"".join(map(text, texts)) + body


@dataclass
class Row:
    site: int
    age: int
    allocs: int
    frees: int
    temps: int = 0
    large: tuple[int, int, int] | None = None  # bytes, for a sizeless site
    peak: int = 0  # blocks at the peak - blocks at the cut
    peak_bytes: int = 0


class CaptureBuilder:
    """Collects definitions; `cut` writes them with its rows as one DLTA chunk."""

    def __init__(self, **facts: object) -> None:
        self.chunks: list[bytes] = []
        self._sections: dict[int, list[bytes]] = {}
        self._counts = {1: 0, 2: 0, 3: 0, 4: 0}
        self._texts: dict[str, int] = {"": 0}
        self._codes: dict[object, int] = {}
        self._nodes: dict[object, int] = {}
        self._sites: dict[object, int] = {}
        self._site_nodes: list[int] = []
        self.cuts = 0
        facts = {**FACTS, **facts}
        self._started_ns = facts["started_unix_ns"]
        entries = [fact(key, value) for key, value in facts.items()]
        self.add_chunk(b"PROC", varint(len(entries)) + b"".join(entries))

    def add_chunk(self, kind: bytes, payload: bytes, flags: int = 0) -> None:
        self.chunks.append(chunk(kind, len(self.chunks) + 1, payload, flags))

    def _define(self, section: int, body: bytes) -> int:
        self._sections.setdefault(section, []).append(body)
        if section in self._counts:
            self._counts[section] += 1
            return self._counts[section]
        return 0

    def string(self, value: str) -> int:
        if value not in self._texts:
            self._texts[value] = self._define(1, text(value))
        return self._texts[value]

    def code(
        self,
        file: str,
        function: str,
        first_line: int = 1,
        table: bytes = b"",
        *,
        module: str = "",
        size: int = 0,
    ) -> int:
        key = (file, function, first_line, table, module)
        if key not in self._codes:
            body = varint(self.string(file)) + varint(self.string(function))
            body += varint(self.string(module)) + zigzag(first_line) + varint(0) + varint(size)
            self._codes[key] = self._define(2, body + varint(len(table)) + table)
        return self._codes[key]

    def code_object(self, code: CodeType) -> int:
        return self.code(
            code.co_filename,
            code.co_qualname,
            code.co_firstlineno,
            code.co_linetable,
            size=len(code.co_code),
        )

    def line(self, file: str, function: str, line: int) -> tuple[int, int]:
        """A code object with one instruction on this line: (code, offset)."""
        table = bytes([0x80 | 13 << 3 | 7, 0])  # 8 code units, no columns, line delta 0
        return self.code(file, function, line, table, size=16), 2

    def _node(self, parent: int, kind: int, rest: bytes) -> int:
        key = (parent, kind, rest)
        if key not in self._nodes:
            own = self._counts[3] + 1
            self._nodes[key] = self._define(3, varint(kind) + varint(own - parent) + rest)
        return self._nodes[key]

    def python(self, parent: int, code: int, offset: int | None) -> int:
        return self._node(parent, 0, varint(code) + varint(0 if offset is None else offset + 1))

    def native(self, parent: int, library: str, offset: int) -> int:
        return self._node(parent, 1, varint(self.string(library)) + varint(offset))

    def inlined(self, parent: int, function: str, file: str, line: int) -> int:
        names = varint(self.string(function)) + varint(self.string(file))
        return self._node(parent, 2, names + varint(line))

    def synthetic(self, parent: int, name: str) -> int:
        return self._node(parent, 3, varint(self.string(name)))

    def stack(self, *frames: tuple[str, str, int]) -> int:
        """The node of these frames (file, function, line), the outermost first."""
        node = 0
        for frame in frames:
            node = self.python(node, *self.line(*frame))
        return node

    def site(self, node: int, size: int, domain: int = 1, thread: int = 1) -> int:
        size = min(size, LARGE)
        key = (node, size, domain, thread)
        if key not in self._sites:
            before = self._site_nodes[-1] if self._site_nodes else 0
            self._site_nodes.append(node)
            body = zigzag(node - before) + varint(size) + varint(domain) + varint(thread)
            self._sites[key] = self._define(4, body)
        return self._sites[key]

    def thread(
        self, id: int, native_id: int, name: str, *, birth_ns: int = 0, flags: int = 0
    ) -> None:
        numbers = varint(id) + varint(native_id) + varint(native_id << 8) + varint(birth_ns)
        self._define(5, numbers + varint(self.string(name)) + varint(flags) + varint(0))

    def resident(self, figures: dict[int, int]) -> None:
        """How the resident memory is made up, without pymalloc's size classes."""
        for which, value in figures.items():
            self._define(9, varint(which) + varint(value))
        self._sections[9][-1] += varint(0)

    def mark(self, epoch: int, t_ns: int, label: str) -> None:
        self._define(6, varint(epoch) + varint(t_ns) + varint(self.string(label)))

    def sizes(self, bucket: int, allocations: int, bytes_: int) -> None:
        self._define(8, varint(bucket) + varint(allocations) + varint(bytes_))

    def sections(self) -> bytes:
        """What was defined since the last chunk. SIZES comes last, before CUT."""
        out = b""
        for kind, bodies in sorted(self._sections.items()):
            first = varint(self._counts[kind] - len(bodies) + 1) if kind in self._counts else b""
            body = first + varint(len(bodies)) + b"".join(bodies)
            out += bytes([kind]) + varint(len(body)) + body
        self._sections.clear()
        self._site_nodes.clear()
        return out

    def object(self, path: str, build_id: bytes) -> None:
        self._define(11, varint(self.string(path)) + varint(len(build_id)) + build_id)

    def symbols(
        self, places: dict[tuple[str, int], list[tuple[str, str, int]]], *, padding: bytes = b""
    ) -> None:
        """A SYMB chunk: (object, offset) to frames (function, file, line), the innermost first."""
        self.add_chunk(b"SYMB", symbols_payload(places) + padding)

    def cut(
        self,
        t_ns: int,
        rows: Iterable[Row] = (),
        *,
        epoch: int = 1,
        flags: int = 0,
        live: tuple[int, int] = (0, 0),
        allocations: int = 0,
        frees: int = 0,
        allocated_bytes: int = 0,
        peak: tuple[int, int, int] = (0, 0, 0),
        rss_bytes: int = 0,
        gc: tuple[int, int, int] = (0, 0, 0),
        counters: dict[int, int] | None = None,
    ) -> None:
        """`live` and `peak` are (bytes, blocks[, t_ns])."""
        self.cuts += 1
        numbers = [self.cuts, t_ns, 0, self._started_ns + t_ns, flags, epoch]  # type: ignore[operator]
        numbers += [*live, allocations, frees, allocated_bytes, *peak, rss_bytes, *gc, 0]
        body = b"".join(map(varint, numbers))
        counters = counters or {}
        body += varint(len(counters))
        body += b"".join(varint(which) + varint(n) for which, n in counters.items())
        rows = sorted(rows, key=lambda row: (row.site, -row.age))
        body += varint(len(rows))
        before = 0
        for row in rows:
            body += varint(row.site - before)
            body += b"".join(map(varint, (row.age, row.allocs, row.frees, row.temps)))
            if row.large is not None:
                body += b"".join(map(varint, row.large))
            if flags & PEAK_MOVED:
                body += zigzag(row.peak)
                if row.large is not None:
                    body += zigzag(row.peak_bytes)
            before = row.site
        self.add_chunk(b"DLTA", self.sections() + b"\x07" + varint(len(body)) + body)

    def end(self, t_ns: int) -> None:
        self.add_chunk(b"END ", varint(1) + varint(t_ns))

    def bytes(self, *, status: int = RECORDING, reason: int = 0, error: int = 0) -> bytes:
        data = b"".join(self.chunks)
        start = bytearray(HEADER_SIZE)
        start[:64] = header()
        start[512 : 512 + 256] = slot(1, RECORDING, HEADER_SIZE)
        start[1024 : 1024 + 256] = slot(
            2, status, HEADER_SIZE + len(data), reason=reason, error=error
        )
        return bytes(start) + data

    def write(self, path: Path, **slots: int) -> Path:
        path.write_bytes(self.bytes(**slots))
        return path


# --- made-up programs ---------------------------------------------------------------------------

Frame = tuple[str, str, int]
Stack = tuple[Frame, ...]  # the outermost first


@dataclass
class Block:
    stack: Stack
    size: int
    domain: int
    thread: int
    site: int
    epoch: int
    born: int  # cut (0, 1, …) whose span it was allocated in
    died: int | None = None
    temporary: bool = False
    at_peak: bool = False


@dataclass
class Simulation:
    """Allocates and frees; knows what every view must show."""

    builder: CaptureBuilder = field(default_factory=CaptureBuilder)
    blocks: list[Block] = field(default_factory=list)
    live: dict[int, Block] = field(default_factory=dict)
    epoch: int = 1
    cuts: int = 0
    live_bytes: int = 0
    peak_bytes: int = 0
    peak_blocks: int = 0
    peak_t_ns: int = 0
    cut_live: list[int] = field(default_factory=list)  # live bytes at each cut
    end_cut: int | None = None
    frees: int = 0
    _peak_moved: bool = False
    _at_peak: list[Block] = field(default_factory=list)
    _changes: dict[tuple[int, int], Counter[str]] = field(default_factory=dict)
    _sizes: Counter[int] = field(default_factory=Counter)
    _size_bytes: Counter[int] = field(default_factory=Counter)

    def _change(self, block: Block, what: str) -> None:
        counts = self._changes.setdefault((block.site, block.epoch), Counter())
        counts[what] += 1
        counts[what + "_bytes"] += block.size

    def allocate(self, stack: Sequence[Frame], size: int, domain: int = 1, thread: int = 1) -> int:
        frames = tuple(stack)
        site = self.builder.site(self.builder.stack(*frames), size, domain, thread)
        block = Block(frames, size, domain, thread, site, self.epoch, self.cuts)
        self.blocks.append(block)
        key = len(self.blocks) - 1
        self.live[key] = block
        self.live_bytes += size
        self._change(block, "alloc")
        if size > 512:
            self._sizes[size.bit_length() - 1] += 1
            self._size_bytes[size.bit_length() - 1] += size
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes = self.live_bytes
            self.peak_blocks = len(self.live)
            self.peak_t_ns = self.cuts * 10**9 + 5 * 10**8
            self._peak_moved = True
            self._at_peak = list(self.live.values())
        return key

    def free(self, key: int, *, temporary: bool = False) -> None:
        block = self.live.pop(key)
        block.died = self.cuts
        block.temporary = temporary
        self.live_bytes -= block.size
        self.frees += 1
        self._change(block, "free")
        if temporary:
            self._change(block, "temp")

    def mark(self, label: str, t_ns: int) -> None:
        self.builder.mark(self.epoch, t_ns, label)
        self.epoch += 1

    def cut(self, *, flags: int = 0, next_epoch: bool = True) -> None:
        """Ends a second of the program."""
        at_peak: Counter[tuple[int, int]] = Counter()
        at_peak_bytes: Counter[tuple[int, int]] = Counter()
        now: Counter[tuple[int, int]] = Counter()
        now_bytes: Counter[tuple[int, int]] = Counter()
        if self._peak_moved:
            flags |= PEAK_MOVED
            for block in self._at_peak:
                at_peak[block.site, block.epoch] += 1
                at_peak_bytes[block.site, block.epoch] += block.size
            for block in self.live.values():
                now[block.site, block.epoch] += 1
                now_bytes[block.site, block.epoch] += block.size
        sizeless = {block.site for block in self.blocks if block.size > 512}
        rows = []
        for cohort, counts in self._changes.items():
            large = (counts["alloc_bytes"], counts["free_bytes"], counts["temp_bytes"])
            rows.append(
                Row(
                    cohort[0],
                    self.epoch - cohort[1],
                    counts["alloc"],
                    counts["free"],
                    counts["temp"],
                    large if cohort[0] in sizeless else None,
                    at_peak[cohort] - now[cohort],
                    at_peak_bytes[cohort] - now_bytes[cohort],
                )
            )
        for bucket, count in self._sizes.items():
            self.builder.sizes(bucket, count, self._size_bytes[bucket])
        self.cuts += 1
        self.builder.cut(
            self.cuts * 10**9,
            rows,
            epoch=self.epoch,
            flags=flags,
            live=(self.live_bytes, len(self.live)),
            allocations=len(self.blocks),
            frees=self.frees,
            allocated_bytes=sum(block.size for block in self.blocks),
            peak=(self.peak_bytes, self.peak_blocks, self.peak_t_ns),
            rss_bytes=10**7 + self.cuts * 4096,
            gc=(self.cuts, 0, 0),
        )
        if flags & MAIN_RETURNED:
            self.end_cut = self.cuts - 1
        self.cut_live.append(self.live_bytes)
        self._changes.clear()
        self._sizes.clear()
        self._size_bytes.clear()
        self._peak_moved = False
        if self._at_peak:
            for block in self.blocks:
                block.at_peak = False
            for block in self._at_peak:
                block.at_peak = True
        if next_epoch:
            self.epoch += 1

    # what the views must show, as (bytes, blocks)

    def expect(
        self, view: str, first: int | None = None, last: int | None = None
    ) -> dict[Stack, tuple[int, int]]:
        """Per stack. first and last: cuts of a time window, both inclusive."""
        start = 0 if first is None else first
        stop = self.cuts - 1 if last is None else last
        end = self.end_cut if last is None and self.end_cut is not None else stop
        peak = max(range(start, stop + 1), key=lambda cut: self.cut_live[cut])
        result: dict[Stack, tuple[int, int]] = {}
        for block in self.blocks:
            alive_at = {
                "peak": block.at_peak
                if first is None and last is None
                else block.born <= peak and (block.died is None or block.died > peak),
                "leaks": start <= block.born <= end and (block.died is None or block.died > end),
                "total": start <= block.born <= stop,
                "temporary": block.temporary
                and block.died is not None
                and start <= block.died <= stop,
            }
            if alive_at[view]:
                bytes_, blocks = result.get(block.stack, (0, 0))
                result[block.stack] = (bytes_ + block.size, blocks + 1)
        return result
