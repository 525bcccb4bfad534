"""Writes the golden pair of the current version of the format.

usage: python tests/golden/make.py [--force]
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "py"))

import capture_builder as cb
from test_golden import figures

HERE = Path(__file__).resolve().parent
MAIN: cb.Frame = ("/app/app.py", "<module>", 10)
LOAD: cb.Frame = ("/app/shop/cache.py", "Cache.load", 20)
PARSE: cb.Frame = ("/usr/lib/python3.11/json/__init__.py", "loads", 30)


def build() -> bytes:
    """Every kind of section, node, row and fact of version 1.0."""
    it = cb.Simulation(cb.CaptureBuilder(depth=-3))
    it.builder.thread(1, 1001, "MainThread")
    it.builder.thread(2, 1002, "wörker", birth_ns=5 * 10**8)
    for size in (0, 1, 48, 512, 513, 100_000):
        it.allocate((MAIN, LOAD), size)
        it.free(it.allocate((MAIN, LOAD, PARSE), size, 2, thread=2), temporary=True)
    it.cut()
    it.mark("batch 1", 15 * 10**8)
    keys = [it.allocate((MAIN, PARSE), 64, domain) for domain in (1, 2, 3, 4, 5, 6)]
    it.cut()
    for key in keys[:4]:
        it.free(key)
    it.cut(flags=cb.MAIN_RETURNED)
    b = it.builder
    code = b.code_object(build.__code__.replace(co_filename="/app/golden.py"))
    nodes = [
        b.python(0, code, None),
        b.native(b.stack(MAIN), "/lib/libx.so.1", 0x1234),
        b.inlined(b.stack(MAIN), "fast", "fast.c", 7),
        b.synthetic(0, "[folded]"),
    ]
    b.cut(
        4 * 10**9,
        [cb.Row(b.site(node, 8), 0, 3, 1, 1) for node in nodes],
        epoch=it.epoch,
        flags=cb.FINAL,
        live=(it.live_bytes + 64, len(it.live) + 8),
        allocations=len(it.blocks) + 12,
        frees=it.frees + 4,
        allocated_bytes=sum(block.size for block in it.blocks) + 96,
        peak=(it.peak_bytes, it.peak_blocks, it.peak_t_ns),
        rss_bytes=10**7,
        counters={1: 5, 2: 7},
    )
    b.end(5 * 10**9)
    return b.bytes(status=cb.ENDED)


def main() -> int:
    capture = HERE / "v1.0.pmt"
    if capture.exists() and "--force" not in sys.argv[1:]:
        print(f"{capture} is there; golden captures are not written anew", file=sys.stderr)
        return 1
    capture.write_bytes(build())
    figures_text = json.dumps(figures(capture), indent=1, ensure_ascii=False, sort_keys=True)
    capture.with_suffix(".json").write_text(figures_text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
