"""The viewer without a terminal: what is watched, what its parts draw, its screen under Pilot."""

import asyncio
import threading
from pathlib import Path

import pytest

import pymemtrace
from pymemtrace.cli._live.watch import (
    TABS,
    Column,
    Line,
    Picture,
    Watch,
    Wish,
    base_of,
    next_of,
    parse_filter,
    tree_lines,
)

textual = pytest.importorskip("textual", reason="textual is not installed")

from pymemtrace.cli._live.app import LiveApp  # noqa: E402
from pymemtrace.cli._live.head import Head, sparkline  # noqa: E402
from pymemtrace.cli._live.listing import Listing, crop, crop_both  # noqa: E402


def hoard(size: int) -> bytearray:
    return bytearray(size)


def help_out(kept: list[bytearray]) -> None:
    kept.append(hoard(100_000))


def first(picture: Picture) -> str:
    return picture.lines[0].cells[-1].split()[0].rpartition(".")[2]


# --- watching -------------------------------------------------------------------------------------


def test_a_capture_grows() -> None:
    watch = Watch(["a.pmt"])
    with pymemtrace.record("a.pmt") as recording:
        kept = [hoard(3_000_000)]
        recording.flush()
        assert watch.refresh()
        picture = watch.picture(Wish())
        assert picture.running
        assert first(picture) == "hoard"
        assert picture.live_bytes >= 3_000_000
        assert not watch.refresh()
        kept.append(hoard(2_000_000))
        recording.flush()
        assert watch.refresh()
        assert watch.picture(Wish()).live_bytes >= 5_000_000
        del kept
    assert watch.refresh()
    picture = watch.picture(Wish())
    assert not picture.running
    assert picture.shown[0].info["ended"] == "normal"


def test_it_comes_later_and_is_replaced() -> None:
    watch = Watch(["a.pmt"])
    watch.refresh()
    assert watch.picture(Wish()).processes == []
    assert watch.problems
    with pymemtrace.record("a.pmt"):
        pass
    watch.refresh()
    one = watch.picture(Wish()).shown[0].info["id"]
    with pymemtrace.record("b.pmt"):
        pass
    Path("b.pmt").replace("a.pmt")  # as the writer does when it has merged old cuts
    assert watch.refresh()
    assert watch.picture(Wish()).shown[0].info["id"] != one
    assert not watch.problems


def test_children_appear_and_earlier_runs_do_not() -> None:
    for name in ("a.1.pmt", "a.pmt", "a.2.pmt", "a.2-1.pmt", "a.x.pmt", "b.3.pmt"):
        with pymemtrace.record(name):
            pass
    watch = Watch(["a.pmt"])
    watch.refresh()
    assert [process.path for process in watch.processes()] == ["a.pmt", "a.2.pmt", "a.2-1.pmt"]
    with pymemtrace.record("a.4.pmt"):
        pass
    assert watch.refresh()
    assert len(watch.processes()) == 4
    picture = watch.picture(Wish(process="a.2.pmt"))
    assert [process.path for process in picture.shown] == ["a.2.pmt"]


def test_patterns_and_strange_files() -> None:
    Path("x.pmt").write_text("not a capture")
    with pymemtrace.record("a.pmt"):
        pass
    watch = Watch(["?.pmt"])
    watch.refresh()
    assert [process.path for process in watch.processes()] == ["a.pmt"]
    assert "x.pmt" in watch.problems[0]
    watch.picture(Wish())


@pytest.fixture
def watch() -> Watch:
    """Of two processes, as it were."""
    for name in ("a.pmt", "a.5.pmt"):
        with pymemtrace.record(name) as recording:
            kept = [hoard(3_000_000)]
            small = [str(number) * 9 for number in range(5000)]
            thread = threading.Thread(target=help_out, args=(kept,), name="helper")
            thread.start()
            thread.join()
            recording.flush()
            del small, kept
    watch = Watch(["a.pmt"])
    watch.refresh()
    return watch


@pytest.mark.parametrize("tab", TABS)
@pytest.mark.parametrize("process", [None, "a.pmt"])
def test_every_tab_has_a_picture(watch: Watch, tab: str, process: str | None) -> None:
    picture = watch.picture(Wish(tab=tab, process=process, view="peak"))
    assert all(len(line.cells) == len(picture.columns) for line in picture.lines)
    if tab == "tree":
        assert "hoard" in "".join(line.cells[-1] for line in tree_lines(picture, {}))
    elif tab != "output":
        assert picture.lines


def test_every_tab_of_a_sampled_capture() -> None:
    watch = Watch(["a.pmt"])
    with pymemtrace.record("a.pmt", sample_bytes=4096, box_bytes=1 << 20) as recording:
        kept = [hoard(3_000_000)]
        recording.flush()
        assert watch.refresh()
        for tab in TABS:
            picture = watch.picture(Wish(tab=tab))
            assert picture.running
            if tab == "threads":
                assert "-" in picture.lines[0].cells  # what was temporary is not known
        del kept


def test_order_filter_and_thread(watch: Watch) -> None:
    def names(**wish: object) -> str:
        return first(watch.picture(Wish(view="peak", **wish)))  # type: ignore[arg-type]

    assert names() == "hoard"
    assert names(order="blocks") != "hoard"
    picture = watch.picture(Wish(view="peak", include=("nothing",)))
    assert picture.lines == []
    assert picture.notes == ["the filter lets nothing through"]
    only = Wish(process="a.pmt", view="peak")
    helper = next(t for t, name in watch.picture(only).threads if name.startswith("helper"))
    picture = watch.picture(Wish(process="a.pmt", view="peak", thread=helper))
    assert first(picture) == "hoard"
    assert picture.lines[0].cells[0].startswith("97.")
    assert watch.picture(Wish(thread="12345")).notes  # there is none


def test_output_is_the_end_of_a_file() -> None:
    with pymemtrace.record("a.pmt"):
        pass
    lines = [f"line {number}" for number in range(30000)]
    Path("a.out").write_text("\n".join(["\x1b[31mred", *lines, "10 %\r20 %", "tail"]) + "\n")
    watch = Watch(["a.pmt"], "a.out")
    watch.refresh()
    picture = watch.picture(Wish(tab="output"))
    assert [line.cells[0] for line in picture.lines[-3:]] == ["line 29999", "20 %", "tail"]
    Path("a.out").write_text("\x1b[31mred")
    assert watch.picture(Wish(tab="output")).lines[0].cells == ("\\x1b[31mred",)


def test_words() -> None:
    assert parse_filter(" app.* !*/lib/* x !") == (("app.*", "x"), ("*/lib/*",))
    assert base_of("dir/app.pmt") == "dir/app"
    assert next_of(["a", "b", "c"], None, 1) == "a"
    assert next_of(["a", "b", "c"], "c", 1) == "a"
    assert next_of(["a", "b", "c"], None, -1) == "c"
    assert next_of([], None, 1) is None


def test_branches_open_and_close(watch: Watch) -> None:
    picture = watch.picture(Wish(tab="tree", process="a.pmt", view="peak"))
    lines = tree_lines(picture, {})
    root = int(str(lines[0].key))
    assert len(tree_lines(picture, {root: False})) == 1
    again = watch.picture(Wish(tab="tree", process="a.pmt", view="peak"))
    assert [line.key for line in tree_lines(again, {})] == [line.key for line in lines]


# --- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], ""),
        ([(0.0, 0), (10.0, 0)], " " * 10),
        ([(0.5, 8), (9.5, 8)], "█" * 10),
        ([(5.0, 4), (9.9, 8)], "     ▄▄▄▄█"),
        ([(-3.0, 8), (5.0, 1)], "█████▁▁▁▁▁"),
        ([(1.1, 1), (1.2, 8), (1.3, 1)], " █████████"),
    ],
)
def test_sparkline(points: list[tuple[float, int]], expected: str) -> None:
    assert sparkline(points, 0.0, 10.0, 10) == expected


def test_crop() -> None:
    assert crop("abc", 5) == "abc  "
    assert crop("abcdef", 5) == "abcd…"
    assert crop("日本語", 5) == "日本…"
    assert crop("日本語", 4) == "日 …"
    assert crop("abc", 0) == ""


def test_a_place_is_kept_whole() -> None:
    assert crop_both("function  a.py:1", 20) == "function  a.py:1    "
    assert crop_both("a_long_function  a.py:1", 20) == "a_long_func…  a.py:1"
    assert crop_both("a_long_function  a/very/long/path.py:1", 20) == "a_long_function  a/…"
    assert crop_both("f  a_long_path.py:1", 19) == "f  a_long_path.py:1"


COLUMNS = (
    Column("size", right=True),
    Column("more", right=True, rank=1),
    Column("name", flexible=True),
)
LINES = [Line(n, (f"{n} B", "123456789", f"name of {n}" + "x" * 30)) for n in range(100)]


def test_columns_go_by_rank() -> None:
    listing = Listing()
    listing.columns, listing.lines = COLUMNS, LINES
    assert listing._fit(80) == [4, 9, 64]
    assert listing._fit(30) == [4, 0, 24]
    assert listing._fit(20) == [4, 0, 14]
    assert min(listing._fit(3)) >= 0


# --- the screen -----------------------------------------------------------------------------------


async def settle(app: LiveApp, condition: object, what: str) -> None:
    for _ in range(500):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.02)
    raise AssertionError(what)


def shown(app: LiveApp) -> str:
    """The listing as text, its titles first."""
    listing = app.query_one(Listing)
    return "\n".join(listing.render_line(y).text for y in range(listing.size.height))


def test_keys(watch: Watch) -> None:
    async def drive() -> None:
        app = LiveApp(watch, Wish(view="peak"))
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(app, lambda: "hoard" in shown(app), "the top site")
            assert "0 of 2 running" in str(app.query_one(Head).render())
            for key, text in (("2", "[root]"), ("3", "helper"), ("4", "resident"), ("5", "ended")):
                await pilot.press(key)
                await settle(app, lambda text=text: text in shown(app), f"{key}: {text}")
            await pilot.press("down", "enter")
            await settle(app, lambda: app.picture.wish.process == "a.5.pmt", "one process")  # type: ignore[union-attr]
            assert app.wish.tab == "sites"
            await pilot.press("m", "tab", "shift+tab", "o", "s", "v", "z", "r")
            await settle(app, lambda: app.picture.wish == app.wish, "an answer")  # type: ignore[union-attr]
            assert (app.wish.process, app.wish.order, app.wish.view) == (None, "blocks", "total")
            await pilot.press("slash", *"nothing", "enter")
            await settle(app, lambda: not app.picture.lines, "the filter")  # type: ignore[union-attr]
            await pilot.press("escape")
            await settle(app, lambda: bool(app.picture.lines), "no filter")  # type: ignore[union-attr]
            await pilot.press("slash", *"abc", "escape")
            assert app.wish.include == ()
            await pilot.press("question_mark")
            assert len(app.screen_stack) == 2
            await pilot.press("q")
            await pilot.press("d")
            assert len(app.screen_stack) == 2
            await pilot.press("escape", "space")
            assert app.wish.paused
            await pilot.press("2", "i", "down", "right", "left", "enter", "greater_than_sign")
            await pilot.press("right_square_bracket", "left_square_bracket", "less_than_sign")
            await pilot.press("ctrl+c")
        assert app.error is None

    asyncio.run(drive())


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (20, 6), (5, 2), (200, 60)])
def test_every_size(watch: Watch, size: tuple[int, int]) -> None:
    async def drive() -> None:
        app = LiveApp(watch, Wish(view="peak"), has_output=True)
        async with app.run_test(size=size) as pilot:
            await settle(app, lambda: app.picture is not None, "a picture")
            for number in range(1, 7):
                await pilot.press(str(number))
                await settle(app, lambda: app.picture.wish == app.wish, "an answer")  # type: ignore[union-attr]
                app.query_one(Listing).action_edge(1)
                shown(app)
            await pilot.resize_terminal(80, 24)
            await pilot.press("1")
            await settle(app, lambda: "hoard" in shown(app), "the top site")
        assert app.error is None

    asyncio.run(drive())


def test_the_cursor_stays_on_its_line(watch: Watch) -> None:
    async def drive() -> None:
        app = LiveApp(watch, Wish(view="peak", paused=True))
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(app, lambda: app.picture is not None, "a picture")
            app._worker.stop()
            listing = app.query_one(Listing)
            listing.present(COLUMNS, LINES, anew=True)
            assert listing.cursor == 0
            listing.present(COLUMNS, LINES[::-1])
            assert listing.cursor == 0  # nobody has moved it
            await pilot.press("down", "down", "down")
            assert listing.current is LINES[96]
            listing.present(COLUMNS, LINES)
            assert listing.current is LINES[96]
            assert "96 B" in shown(app)
            listing.present(COLUMNS, LINES[:10])  # it has gone
            assert listing.cursor == 9
            listing.present(COLUMNS, LINES[:50], at_end=True, anew=True)
            assert listing.cursor == 49
            listing.present(COLUMNS, LINES, at_end=True)
            assert listing.cursor == 99
            assert "99 B" in shown(app)
            listing.present((), [])
            await pilot.press("down", "enter", "end")
            shown(app)

    asyncio.run(drive())


def test_what_goes_wrong_is_raised(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(wish: Wish) -> Picture:
        raise ZeroDivisionError

    monkeypatch.setattr(watch, "picture", fail)

    async def drive() -> None:
        app = LiveApp(watch)
        async with app.run_test():
            await settle(app, lambda: app.error is not None, "the error")
        assert isinstance(app.error, ZeroDivisionError)

    asyncio.run(drive())


def test_nothing_imports_textual_but_the_viewer() -> None:
    for file in Path(pymemtrace.__file__).parent.rglob("*.py"):
        if "textual" in file.read_text() and "_live" not in str(file):
            assert file.name == "live.py"
            assert "import textual" not in file.read_text()
