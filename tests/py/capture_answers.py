"""What several test files do with a reader's answers: stacks, flame graph data, leaks."""

import itertools
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import capture_builder as cb


def key_of(stack: list[dict[str, Any]]) -> cb.Stack:
    return tuple((site["file"], site["function"], site["line"]) for site in reversed(stack))


# --- flame graphs --------------------------------------------------------------------------------

FLAME_TYPES = {"u8": "B", "u16": "H", "u32": "I", "i32": "i", "f64": "d"}


def parse_flame(data: bytes) -> dict[str, Any]:
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version) == (b"PMTF", 1)
    head = json.loads(data[12 : 12 + length])
    start = (12 + length + 7) // 8 * 8
    arrays = {}
    for name, it in head["arrays"].items():
        assert it["offset"] % 8 == 0
        arrays[name] = struct.unpack_from(
            f"<{it['count']}{FLAME_TYPES[it['type']]}", data, start + it["offset"]
        )
    offsets = arrays["string_offsets"]
    raw = bytes(arrays["string_bytes"])
    assert len(offsets) == head["strings_count"] + 1
    assert offsets[-1] == len(raw)
    strings = [raw[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise(offsets)]
    for node, parent in enumerate(arrays["node_parent"][1:], 1):
        assert parent < node
    return {"head": head, "strings": strings, **arrays}


# --- leaks ---------------------------------------------------------------------------------------

COUNT_BLOCKS = """
def blocks(times):
    for _ in range(times):
        use()
    gc.collect()
    return sys.getallocatedblocks()
counts = [blocks(rounds) for _ in range(5)]
grown = [after - before for before, after in zip(counts, counts[1:])]
assert min(grown) < 25, grown  # caches of the interpreter fill up at some time; a leak grows always
"""


def assert_nothing_is_leaked(use: str, rounds: int, *paths: Path) -> None:
    """`use` defines use(), which does it all with the captures in sys.argv."""
    code = f"import gc, sys\nfrom pymemtrace import _core\nrounds = {rounds}\n{use}{COUNT_BLOCKS}"
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)
