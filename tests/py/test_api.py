"""pymemtrace.record and pymemtrace.open, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

import pymemtrace


def run(code: str, folder: Path, *options: str) -> str:
    """What the code prints; it ends with status 0 and says nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def sites(folder: Path, name: str, **filters: object) -> dict[str, int]:
    """Bytes by function."""
    rows = pymemtrace.open(folder / name).sites(**filters)  # type: ignore[arg-type]
    total: dict[str, int] = {}
    for row in rows:
        function = row["site"]["function"]
        total[function] = total.get(function, 0) + row["bytes"]
    return total


def lifetimes(path: Path, **filters: object) -> dict[int, int]:
    """Freed blocks by the lowest age of their class, in epochs."""
    rows = pymemtrace.open(path).stats(**filters)["lifetimes"]
    return {row["low"]: row["blocks"] for row in rows if row["blocks"]}


def test_what_died_before_a_mark_is_not_older_for_it(tmp_path: Path) -> None:
    code = """
import pymemtrace
class Thing:
    __slots__ = ()
def things(): return [Thing() for _ in range(1000)]
def buffers(): return [bytearray(5000) for _ in range(10)]
kept = []
with pymemtrace.record("x.pmt", interval_s=60) as rec:
    kept = things()
    for n in range(8):
        a = things()
        b = buffers()
        del a, b
        if n == 4:
            del kept  # four marks after it was made
        rec.mark(str(n))
"""
    run(code, tmp_path)
    # Nothing else is freed in `things`: a list comprehension's list grows, and so dies, at once.
    found = lifetimes(tmp_path / "x.pmt", include=["*<string>"])
    assert found.pop(0) >= 8 * 1010
    assert found[4] in range(1000, 1003)
    assert sum(found.values()) - found[4] < 40
    capture = pymemtrace.open(tmp_path / "x.pmt")
    stats = capture.stats()
    assert sum(row["blocks"] for row in stats["lifetimes"]) == stats["frees"]
    assert len(capture.epochs()) == 9
    assert [e["allocated_bytes"] > 50_000 for e in capture.epochs()] == [True] * 8 + [False]


def test_status_and_existing_captures(tmp_path: Path) -> None:
    code = """
import pymemtrace
with pymemtrace.record("x.pmt", interval_s=60) as rec:
    print(rec.status()["cuts"], rec.status()["own_bytes"] > 10_000)
try:
    with pymemtrace.record("x.pmt"):
        pass
except pymemtrace.CaptureExistsError as error:
    print(error)
"""
    first, second = run(code, tmp_path).splitlines()
    assert first == "0 True"
    assert second.endswith("x.pmt exists: choose another name, or overwrite it with force=True")


def test_importing_the_package_imports_nothing_else(tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import pymemtrace; print(sorted(set(sys.modules) - before))"
    )
    assert run(code, tmp_path) == "['pymemtrace', 'pymemtrace._core']\n"


def test_every_public_name_is_there() -> None:
    for name in pymemtrace.__all__:
        assert getattr(pymemtrace, name) is not None
    assert set(pymemtrace.__all__) <= set(dir(pymemtrace))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pymemtrace.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_with_block(tmp_path: Path) -> None:
    code = """
import os, pymemtrace
def inside(): return bytearray(1 << 20)
def outside(): return bytearray(1 << 20)
before = outside()
with pymemtrace.record("x.pmt") as rec:
    os.chdir("/")
    kept = inside()
    print(rec.path, rec.status()["recording"])
after = outside()
print(rec.status()["recording"])
"""
    assert run(code, tmp_path) == f"{tmp_path / 'x.pmt'} True\nFalse\n"
    found = sites(tmp_path, "x.pmt", view="leaks")
    assert found["inside"] - (1 << 20) in range(200)
    assert "outside" not in found
    capture = pymemtrace.open(tmp_path / "x.pmt")
    assert capture.info()["ended"] == "normal"
    assert (tmp_path / "x.pmt").stat().st_mode & 0o777 == 0o600


def test_marks_end_epochs(tmp_path: Path) -> None:
    code = """
import pymemtrace
kept = []
with pymemtrace.record("x.pmt") as rec:
    for number in (1, 2, 3):
        kept.append(bytearray(number << 20))
        print(rec.mark(f"batch {number}"))
"""
    assert run(code, tmp_path) == "1\n2\n3\n"
    capture = pymemtrace.open(tmp_path / "x.pmt")
    assert [mark["label"] for mark in capture.marks()] == ["batch 1", "batch 2", "batch 3"]
    epochs = capture.epochs()
    assert [epoch["label"] for epoch in epochs][:3] == ["batch 1", "batch 2", "batch 3"]
    for number, epoch in enumerate(epochs[:3], 1):
        assert epoch["live_bytes"] - (number << 20) in range(5000)


def test_exceptions_pass_through(tmp_path: Path) -> None:
    code = """
import pymemtrace
error = ValueError("mine")
try:
    with pymemtrace.record("x.pmt"):
        kept = bytearray(1 << 20)
        raise error
except ValueError as caught:
    print(caught is error)
"""
    assert run(code, tmp_path) == "True\n"
    assert pymemtrace.open(tmp_path / "x.pmt").totals()["heap_bytes_peak"] > 1 << 20


def test_one_recording_at_a_time(tmp_path: Path) -> None:
    code = """
import pymemtrace
with pymemtrace.record("x.pmt") as outer:
    try:
        with pymemtrace.record("y.pmt"):
            pass
    except pymemtrace.PymemtraceError as error:
        print(error)
    print(outer.mark("still on"))
"""
    printed = "this process is being recorded already: end that recording first\n1\n"
    assert run(code, tmp_path) == printed
    assert not (tmp_path / "y.pmt").exists()
    done = subprocess.run(
        [sys.executable, "-m", "pymemtrace", "run", "-o", "z.pmt", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is being recorded already" in done.stderr


def test_an_existing_file_and_force(tmp_path: Path) -> None:
    (tmp_path / "x.pmt").write_text("precious")
    code = """
import pathlib, pymemtrace
try:
    with pymemtrace.record("x.pmt"):
        print("entered")
except pymemtrace.CaptureExistsError:
    print("kept", pathlib.Path("x.pmt").read_text())
with pymemtrace.record("x.pmt", force=True):
    pass
print(pymemtrace.open("x.pmt").info()["ended"])
"""
    assert run(code, tmp_path) == "kept precious\nnormal\n"


def test_outside_its_block_a_recording_refuses(tmp_path: Path) -> None:
    code = """
import pymemtrace
rec = pymemtrace.record("x.pmt")
for act in (lambda: rec.mark("early"), rec.flush):
    try:
        act()
    except pymemtrace.PymemtraceError as error:
        print(error)
with rec:
    rec.flush()
    rec.stop()
    rec.stop()
"""
    text = "this recording is not on: use it inside its `with` block or decorated function\n"
    assert run(code, tmp_path) == 2 * text


@pytest.mark.parametrize("option", ["temporaries=0", "interval_s=0.0", "max_size_bytes=-1"])
def test_values_out_of_range(tmp_path: Path, option: str) -> None:
    code = f"""
import pymemtrace
try:
    with pymemtrace.record("x.pmt", {option}):
        print("entered")
except (ValueError, OverflowError) as error:
    print("refused")
"""
    assert run(code, tmp_path) == "refused\n"


def test_decorator_on_functions(tmp_path: Path) -> None:
    code = """
import pymemtrace
@pymemtrace.record("x-{n}.pmt")
def job(megabytes, *, add=0):
    "Does it."
    return len(bytearray((megabytes << 20) + add))
print(job.__name__, job.__doc__, job(1), job(2, add=1))
@pymemtrace.record("once.pmt")
def once(): pass
once()
try:
    once()
except pymemtrace.CaptureExistsError:
    print("the second call needs force or {n}")
@pymemtrace.record("forced.pmt", force=True)
def forced(size): return bytearray(size)
forced(1 << 20), forced(3 << 20)
"""
    assert run(code, tmp_path) == (
        "job Does it. 1048576 2097153\nthe second call needs force or {n}\n"
    )
    for number in (1, 2):
        found = sites(tmp_path, f"x-{number}.pmt")
        assert found["job"] - (number << 20) in range(200)
    assert sites(tmp_path, "forced.pmt")["forced"] - (3 << 20) in range(200)


def test_decorator_on_a_coroutine_function(tmp_path: Path) -> None:
    code = """
import asyncio, inspect, os, pymemtrace
@pymemtrace.record("x-{pid}.pmt")
async def job(size):
    data = bytearray(size)
    await asyncio.sleep(0)
    return len(data)
print(inspect.iscoroutinefunction(job), asyncio.run(job(1 << 20)))
os.rename(f"x-{os.getpid()}.pmt", "x.pmt")
"""
    assert run(code, tmp_path) == "True 1048576\n"
    assert sites(tmp_path, "x.pmt")["job"] - (1 << 20) in range(1000)


def test_generators_are_refused() -> None:
    def numbers():  # type: ignore[no-untyped-def]
        yield 1

    async def async_numbers():  # type: ignore[no-untyped-def]
        yield 1

    for function in (numbers, async_numbers):
        with pytest.raises(TypeError, match="is a generator: record with `with` inside it"):
            pymemtrace.record("x.pmt")(function)


# --- open ----------------------------------------------------------------------------------------


@pytest.fixture
def capture(tmp_path: Path) -> pymemtrace.Capture:
    code = """
import pymemtrace
def peak(): return bytearray(4 << 20)
def keep(): return bytearray(1 << 20)
with pymemtrace.record("x.pmt"):
    peak()
    kept = keep()
"""
    run(code, tmp_path)
    return pymemtrace.open(tmp_path / "x.pmt")


def test_facts_and_figures(capture: pymemtrace.Capture, tmp_path: Path) -> None:
    assert capture.path == str(tmp_path / "x.pmt")
    assert repr(capture) == f"<pymemtrace.Capture {str(tmp_path / 'x.pmt')!r}>"
    assert capture.info()["pid"] == capture.process()["pid"]
    assert capture.process()["cwd"] == str(tmp_path)
    totals = capture.totals()
    assert 4 << 20 < totals["heap_bytes_peak"] < 5 << 20
    assert 1 << 20 < totals["heap_bytes_end"] < 2 << 20
    assert [thread["name"] for thread in capture.threads()] == ["MainThread"]
    assert capture.timeline()[-1]["heap_bytes"] == totals["heap_bytes_end"]
    assert capture.stats()["allocations"] == totals["allocations"]
    assert capture.stats(exclude=["*"])["allocations"] < totals["allocations"]


def test_rows_of_a_view(capture: pymemtrace.Capture) -> None:
    [row] = capture.sites("leaks", limit=1)
    assert row["site"]["function"] == "keep"
    assert row["bytes"] - (1 << 20) in range(200)
    assert capture.stacks("leaks", limit=1)[0]["stack"] == row["stack"]
    assert capture.sites(view="peak", include=["no such module"]) == []
    assert capture.tree("peak")["bytes"] == capture.aggregate("peak").bytes
    assert capture.export("collapsed", "leaks").split(b"\n")[0].startswith(b"<module> ")
    with pytest.raises(ValueError, match="view must be"):
        capture.sites("most")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nobody"):
        capture.sites(thread="nobody")


def test_rows_to_a_dataframe(capture: pymemtrace.Capture) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    rows = capture.sites("leaks")
    frame = rows.to_dataframe()
    assert len(frame) == len(rows)
    assert frame.loc[0, "function"] == "keep"
    assert frame["bytes"].sum() == sum(row["bytes"] for row in rows)
    assert list(capture.timeline().to_dataframe()["t_s"]) == [r["t_s"] for r in capture.timeline()]


def test_without_pandas(capture: pymemtrace.Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        capture.sites().to_dataframe()


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no capture")
    with pytest.raises(pymemtrace.CaptureError, match="not a PyMemTrace capture"):
        pymemtrace.open(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        pymemtrace.open(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        pymemtrace.open(tmp_path)
