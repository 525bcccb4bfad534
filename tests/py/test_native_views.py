"""What the views show of native frames."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import capture_builder as cb
from capture_answers import parse_flame
from test_native_frames import LIB, MAIN, PY, WORK, Stacks

from pymemtrace import _core

COMMAND = str(Path(sys.executable).parent / "pymemtrace")
IMPORT: cb.Frame = ("<frozen importlib._bootstrap>", "_find_and_load", 40)

START = (PY, 1)  # main() of the interpreter, below everything
EVAL = (PY, 2)  # between frames of Python


def build(path: Path, *, library: str = LIB) -> Any:
    stacks = Stacks()
    load, grow = (library, 3), (library, 4)
    stacks.add(START, MAIN, EVAL, WORK, load)
    stacks.add(START, MAIN, EVAL, WORK, load, grow)
    stacks.add(START, MAIN, EVAL, WORK)
    stacks.add(load)  # a thread that knows nothing of Python
    builder = stacks.end()
    builder.symbols({
        START: [("main", "", 0)],
        EVAL: [("_PyEval_Vector", "Python/ceval.c", 6000)],
        load: [("thing_load", "/src/thing.c", 10)],
        grow: [("reserve", "/usr/include/vector", 70), ("thing_grow", "/src/thing.c", 20)],
    })  # fmt: skip
    return _core.Reader(str(builder.write(path)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pmt"


@pytest.fixture
def reader(path: Path) -> Any:
    return build(path)


def run(*words: str | Path) -> str:
    done = subprocess.run([COMMAND, *map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout


def test_sites_blame_the_line_of_python(reader: Any) -> None:
    rows = reader.aggregate("leaks").sites()
    assert [(row["site"]["function"], row["blocks"]) for row in rows] == [
        ("work", 3),
        ("thing_load", 1),
    ]
    assert "_PyEval_Vector" in [site["function"] for site in rows[0]["stack"]]


def test_sites_by_native_function(reader: Any) -> None:
    rows = reader.aggregate("leaks").sites(native=True)
    assert [(row["site"]["function"], row["blocks"]) for row in rows] == [
        ("thing_load", 2),
        ("work", 1),
        ("reserve", 1),
    ]


def test_several_captures_have_the_same_functions(path: Path, tmp_path: Path) -> None:
    """Also where the library lies elsewhere."""
    readers = [build(path), build(tmp_path / "b.pmt", library="/opt/lib/libthing.so.1")]
    aggregate = _core.Combined(readers).aggregate("leaks")
    for native, expected in ((False, [("work", 6)]), (True, [("thing_load", 4), ("work", 2)])):
        rows = aggregate.sites(native=native)
        found = [(row["site"]["function"], row["blocks"]) for row in rows]
        assert found[: len(expected)] == expected
        assert all(row["by_capture"][0] == row["by_capture"][1] for row in rows)
    assert len(aggregate.stacks()) == 4


@pytest.mark.parametrize(
    ("how", "blocks"),
    [
        ({"include": ["libthing.so*"]}, 3),
        ({"include": ["/usr/lib/libthing.so.1"]}, 3),
        ({"include": ["libthing"]}, 3),  # as a module
        ({"include": ["thing.c"]}, 3),
        ({"include": ["vector"]}, 1),
        ({"include": ["python3.11"]}, 3),
        ({"include": ["libother*"]}, 0),
        ({"include": ["__main__"]}, 3),
        ({"exclude": ["libthing.so*"]}, 1),
        ({"exclude": ["vector"]}, 3),
        ({"exclude": ["app.py"]}, 1),
        ({"exclude": ["__main__"]}, 1),
        ({"exclude": ["ceval.c"]}, 4),  # it has only called the line that allocates
    ],
)
def test_patterns(how: dict[str, Any], blocks: int, reader: Any) -> None:
    assert reader.aggregate("leaks", **how).blocks == blocks


def names_of(node: dict[str, Any]) -> Any:
    function = node["site"]["function"]
    return {function: [names_of(child) for child in node["children"]]}


def test_trees_have_every_frame(reader: Any, path: Path) -> None:
    tree = reader.aggregate("leaks").tree()
    native = {"thing_load": [{"thing_grow": [{"reserve": []}]}]}
    assert names_of(tree)["[root]"][0] == {
        "main": [{"<module>": [{"_PyEval_Vector": [{"work": [native]}]}]}]
    }
    hidden = _core.Reader(str(path), hide_interpreter=True)
    assert names_of(hidden.aggregate("leaks").tree())["[root]"][0] == {
        "<module>": [{"work": [native]}]
    }
    inverted = reader.aggregate("leaks").tree(inverted=True)
    assert [child["site"]["function"] for child in inverted["children"]] == [
        "thing_load", "work", "reserve",
    ]  # fmt: skip


def test_the_table_in_words(path: Path, reader: Any) -> None:
    text = run("table", "--leaks", path)
    assert "/app/app.py:20" in text
    assert "libthing.so.1" not in text.splitlines()[0]
    assert "vector:70" not in text
    assert "/usr/include/vector:70  reserve" in run("table", "--leaks", "--native", path)
    summary = run("summary", "--leaks", path)
    assert "alive at the end: work (/app/app.py:20)" in summary
    answer = json.loads(run("table", "--leaks", "--json", path))
    assert [row["site"]["function"] for row in answer["rows"]] == ["work", "thing_load"]
    assert answer["rows"][1]["site"] == {
        "kind": "native",
        "symbol": "thing_load",
        "function": "thing_load",
        "object": LIB,
        "module": "libthing.so.1",
        "file": "/src/thing.c",
        "line": 10,
    }


def test_the_tree_in_words(path: Path, reader: Any) -> None:
    text = run("tree", "--leaks", path)
    assert "_PyEval_Vector  Python/ceval.c:6000" in text
    assert "main  python3.11" in text
    text = run("tree", "--leaks", "--hide-interpreter", path)
    assert "ceval" not in text
    assert "python3.11" not in text
    assert "note: Without native frames of the interpreter." in text
    assert "thing_grow  /src/thing.c:20" in text


def test_places_without_names_in_words(path: Path) -> None:
    stacks = Stacks()
    stacks.add(MAIN, (LIB, 3))
    stacks.end().write(path)
    [line] = [line for line in run("tree", path).splitlines() if "0x3" in line]
    assert line.endswith("libthing.so.1+0x3")


def test_statistics_count_native_stacks(reader: Any) -> None:
    stats = reader.stats(include=["vector"])
    assert stats["by_domain"]["obj"]["allocations"] == 1


# --- other programs ------------------------------------------------------------------------------


def test_collapsed_stacks(reader: Any) -> None:
    lines = reader.aggregate("leaks").export("collapsed").decode().splitlines()
    assert (
        "main (python3.11);<module> (app:10);_PyEval_Vector (python3.11:6000);work (app:20);"
        "thing_load (libthing.so.1:10);thing_grow (libthing.so.1:20);reserve (libthing.so.1:70) 100"
    ) in lines


def test_csv_names_the_line_of_python(reader: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(reader.aggregate("leaks").export("csv").decode())))
    assert sorted((row["function"], row["line"]) for row in rows) == [
        ("thing_load", "10"),
        ("work", "20"),
        ("work", "20"),
        ("work", "20"),
    ]
    assert any(row["stack"].startswith("reserve (/usr/include/vector:70);") for row in rows)


def test_speedscope(reader: Any) -> None:
    shared = json.loads(reader.aggregate("leaks").export("speedscope"))["shared"]["frames"]
    assert {"name": "reserve", "file": "/usr/include/vector", "line": 70} in shared
    assert {"name": "main", "file": PY} in shared


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def message(data: bytes) -> dict[int, list[Any]]:
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        if key & 7 == 2:
            fields.setdefault(key >> 3, []).append(data[at : at + value])
            at += value
        else:
            fields.setdefault(key >> 3, []).append(value)
    return fields


def test_pprof_has_mappings(reader: Any) -> None:
    profile = message(reader.aggregate("leaks").export("pprof"))
    strings = [text.decode() for text in profile[6]]
    mappings = {it[1][0]: it for it in map(message, profile[3])}
    assert {strings[it[5][0]] for it in mappings.values()} == {PY, LIB}
    assert all(it[field] == [1] for it in mappings.values() for field in (7, 8, 9, 10))
    functions = {it[1][0]: strings[it[2][0]] for it in map(message, profile[5])}
    found = {}
    for location in map(message, profile[4]):
        line = message(location[4][0])
        mapping = mappings.get(location.get(2, [0])[0])
        place = None if mapping is None else strings[mapping[5][0]]
        found[functions[line[1][0]], line[2][0]] = place
    assert found["thing_load", 10] == found["reserve", 70] == LIB
    assert found["_PyEval_Vector", 6000] == PY
    assert found["work", 20] is None


def test_flame_graph_data(reader: Any) -> None:
    flame = parse_flame(reader.aggregate("leaks").flame())
    strings = flame["strings"]
    found = {
        strings[function]: (flags, strings[object])
        for function, flags, object in zip(
            flame["frame_function"], flame["frame_flags"], flame["frame_object"], strict=True
        )
    }
    assert found == {
        "main": (8 | 2, PY),
        "<module>": (0, ""),
        "_PyEval_Vector": (8 | 2, PY),
        "work": (0, ""),
        "thing_load": (8, LIB),
        "thing_grow": (8, LIB),
        "reserve": (8 | 16, LIB),
    }


def test_flame_graph_data_without_native_frames(path: Path) -> None:
    stacks = Stacks()
    stacks.add(MAIN, IMPORT)
    flame = parse_flame(_core.Reader(str(stacks.end().write(path))).aggregate("leaks").flame())
    assert "frame_object" not in flame
    assert set(flame["frame_flags"]) == {0, 1}
