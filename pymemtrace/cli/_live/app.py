"""The screen: its keys, and what is chosen on it."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, cast

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Key, Resize
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from pymemtrace.cli._live.head import Head
from pymemtrace.cli._live.listing import Listing
from pymemtrace.cli._live.watch import (
    ORDERS,
    SORTED,
    TABS,
    VIEWS,
    Line,
    Picture,
    Watch,
    Wish,
    filter_text,
    next_of,
    parse_filter,
    tree_lines,
)
from pymemtrace.cli._live.worker import Worker

HEAD_LINES = 5
LOW, LOWER = 16, 10  # heights of the terminal below which the head has fewer lines

HELP = """\
1 … 6, Tab   sites, tree, threads, where, processes, output
v            what is counted: alive now, at the peak, in total,
             temporary (freed at once)
o            own: what a line allocated itself
             total: with all that was called from it
s            sort by bytes, blocks, allocated, temporary
i            tree: callers below callees
Enter, ← →   tree: open and close a branch
Enter        threads, processes: only this one
d            details: a line with all its columns, whole
< >          one thread after the other
[ ]          one process after the other
m            merge: all threads and all processes again
/            filter, as --include and --exclude have it:
             app.* !*/site-packages/*    (Esc: no filter)
Space        pause and go on
z            time line: the last minute, the whole run
r            draw the screen anew
q            leave; the program goes on

Figures are as old as the program's last flush, at most a second
or so. "own" and "total" count what the view counts.
"""


class Note(ModalScreen[None]):
    """A text over the screen, until a key is pressed that has no use in it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,d,question_mark,enter,space", "dismiss")
    ]

    def __init__(self, text: str | Text) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(self._text, markup=False)


class LiveApp(App[None]):
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    Head { height: 5; }
    #tabs { height: 1; }
    Listing { height: 1fr; scrollbar-size-vertical: 1; }
    #filter { display: none; height: 1; border: none; padding: 0; }
    #keys { height: 1; }
    Note { align: center middle; }
    Note VerticalScroll { width: 76; max-width: 100%; height: auto; max-height: 100%;
        border: round $foreground; padding: 0 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(n), f"tab('{tab}')", show=False) for n, tab in enumerate(TABS, 1)),
        Binding("tab", "turn(1)", priority=True),
        Binding("shift+tab", "turn(-1)", priority=True),
        Binding("v", "view"),
        Binding("o", "total"),
        Binding("s", "sort"),
        Binding("i", "invert"),
        Binding("less_than_sign", "thread(-1)"),
        Binding("greater_than_sign", "thread(1)"),
        Binding("left_square_bracket", "process(-1)"),
        Binding("right_square_bracket", "process(1)"),
        Binding("m", "merge"),
        # before the next key is on its way to who has the focus now
        Binding("slash", "filter", priority=True),
        Binding("escape", "clear"),
        Binding("space", "pause"),
        Binding("z", "span"),
        Binding("r", "redraw"),
        Binding("d", "details"),
        Binding("question_mark,h,f1", "help"),
        Binding("q", "quit"),
        Binding("ctrl+c", "interrupt", priority=True),
        Binding("ctrl+q", "quit", show=False),
        Binding("left", "branch(0)"),
        Binding("right", "branch(1)"),
    ]

    def __init__(
        self,
        watch: Watch,
        wish: Wish | None = None,
        *,
        has_output: bool = False,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        """interrupt: what Ctrl-C does; None: it leaves."""
        super().__init__(ansi_color=True)  # the colours of the terminal, whatever they are
        self.theme = "ansi-dark"
        self.wish = wish or Wish()
        self.error: BaseException | None = None
        self.picture: Picture | None = None
        self._tabs = TABS if has_output else TABS[:-1]
        self._interrupt = interrupt
        self._opened: dict[int, bool] = {}  # branches of the tree that were opened or closed
        self._about: object = None  # what the listing is about
        self._worker = Worker(watch, self._take, self._fail)

    def compose(self) -> ComposeResult:
        yield Head()
        yield Static(id="tabs", markup=False)
        yield Listing()
        yield Input(id="filter", placeholder="app.* !*/site-packages/*", select_on_focus=False)
        yield Static(id="keys", markup=False)

    def on_mount(self) -> None:
        self.query_one(Listing).focus()
        self._draw_frame()
        self._worker.start(self.wish)
        self.set_interval(1.0, self.query_one(Head).refresh)

    def on_unmount(self) -> None:
        self._worker.stop()

    def on_resize(self, event: Resize) -> None:
        height = event.size.height
        self.query_one(Head).styles.height = (
            HEAD_LINES if height >= LOW else 3 if height >= LOWER else 2
        )
        self._draw_frame()

    # --- from the worker ---

    def _take(self, picture: Picture) -> None:
        try:
            self.call_from_thread(self._show, picture)
        except RuntimeError:
            self._worker.stop()  # the screen has gone

    def _fail(self, error: BaseException) -> None:
        self.error = error
        try:
            self.call_from_thread(self.exit)
        except RuntimeError:
            pass

    def _show(self, picture: Picture) -> None:
        if picture.wish != self.wish:
            return  # asked for something else meanwhile
        self.picture = picture
        self.query_one(Head).present(picture)
        self._list()

    def _list(self) -> None:
        picture = self.picture
        if picture is None:
            return
        wish = picture.wish
        lines: Sequence[Line] = picture.lines
        if wish.tab == "tree":
            lines = tree_lines(picture, self._opened)
        about = (wish.tab, wish.view, wish.order, wish.total, wish.inverted, wish.process)
        self.query_one(Listing).present(
            picture.columns, lines, at_end=wish.tab == "output", anew=about != self._about
        )
        self._about = about

    # --- the frame ---

    def _ask(self, **changes: object) -> None:
        self.wish = replace(self.wish, **changes)  # type: ignore[arg-type]
        self._draw_frame()
        self._worker.ask(self.wish)

    def _draw_frame(self) -> None:
        head = self.query_one(Head)
        head.wish = self.wish
        head.refresh()
        tabs = Text()
        for number, tab in enumerate(self._tabs, 1):
            style = "reverse bold" if tab == self.wish.tab else ""
            tabs += Text.assemble((f"{number}", "dim"), (f"{tab.capitalize()}", style), " ")
        self.query_one("#tabs", Static).update(tabs)
        self.query_one("#keys", Static).update(self._keys())

    def _keys(self) -> Text:
        pairs = [("q", "quit"), ("?", "help"), ("v", "view"), ("/", "filter")]
        if self.wish.tab == "sites":
            pairs += [("s", "sort"), ("o", "own" if self.wish.total else "total")]
        if self.wish.tab == "tree":
            pairs += [("Enter", "open"), ("i", "invert")]
        if self.wish.tab in ("threads", "processes"):
            pairs += [("Enter", "only this")]
        pairs += [("Space", "go on" if self.wish.paused else "pause"), ("d", "details")]
        pairs += [("m", "merge")]
        pairs += [("<>", "thread"), ("[]", "process"), ("z", "time")]
        text = Text()
        for key, what in pairs:
            text += Text.assemble((key, "bold"), f" {what}  ")
        text.truncate(max(1, self.size.width), overflow="ellipsis")
        return text

    # --- keys ---

    def action_tab(self, tab: str) -> None:
        if tab in self._tabs:
            self._ask(tab=tab)

    def action_turn(self, step: int) -> None:
        self._ask(tab=next_of(self._tabs, self.wish.tab, step))

    def action_view(self) -> None:
        self._ask(view=next_of(VIEWS, self.wish.view, 1))

    def action_total(self) -> None:
        self._ask(total=not self.wish.total)

    def action_sort(self) -> None:
        self._ask(order=next_of(ORDERS, self.wish.order, 1))

    def action_invert(self) -> None:
        self._opened.clear()
        self._ask(inverted=not self.wish.inverted)

    def action_thread(self, step: int) -> None:
        threads = [thread for thread, _ in self.picture.threads] if self.picture else []
        self._ask(thread=next_of(threads, self.wish.thread, step))

    def action_process(self, step: int) -> None:
        paths = [process.path for process in self.picture.processes] if self.picture else []
        if len(paths) > 1:
            self._ask(process=next_of(paths, self.wish.process, step), thread=None)

    def action_merge(self) -> None:
        self._ask(process=None, thread=None)

    def action_pause(self) -> None:
        self._ask(paused=not self.wish.paused)

    def action_span(self) -> None:
        head = self.query_one(Head)
        head.whole = not head.whole
        head.refresh()

    def action_redraw(self) -> None:
        self.refresh(layout=True)

    def action_help(self) -> None:
        self.push_screen(Note(HELP))

    def action_details(self) -> None:
        listing = self.query_one(Listing)
        if listing.current is None:
            return
        text = Text()
        for column, cell in zip(listing.columns, listing.current.cells, strict=True):
            if cell.strip():
                text += Text.assemble(
                    (f"{column.title.strip(SORTED):<12}", "dim"), cell.strip(), "\n"
                )
        self.push_screen(Note(text))

    def action_interrupt(self) -> None:
        if self._interrupt is None:
            self.exit()
        else:
            self._interrupt()

    def action_branch(self, is_open: int) -> None:
        line = self.query_one(Listing).current
        if self.wish.tab == "tree" and line is not None:
            self._opened[cast(int, line.key)] = bool(is_open)
            self._list()

    def on_listing_chosen(self, event: Listing.Chosen) -> None:
        key = event.line.key
        if self.wish.tab == "tree":
            branch = cast(int, key)
            self._opened[branch] = not self._opened.get(branch, False)
            self._list()
        elif self.wish.tab == "processes":
            self._ask(process=str(key), thread=None, tab="sites")
        elif self.wish.tab == "threads" and isinstance(key, tuple):
            path, native_id = key
            one = len(self.picture.processes) == 1 if self.picture else True
            self._ask(
                process=None if one else path,
                thread=str(native_id) if native_id else None,
                tab="sites",
            )
        else:
            self.action_details()

    # --- the filter ---

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Keys that belong to what is typed, or to a text over the screen, go on to it."""
        if action in ("filter", "turn"):
            return len(self.screen_stack) == 1 and not self.query_one("#filter").display
        return True

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.value = filter_text(self.wish)
        box.cursor_position = len(box.value)
        box.display = True
        self.query_one("#keys").display = False
        self.set_focus(box)

    def _close_filter(self) -> None:
        self.query_one("#filter").display = False
        self.query_one("#keys").display = True
        self.set_focus(self.query_one(Listing))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        include, exclude = parse_filter(event.value)
        self._close_filter()
        self._ask(include=include, exclude=exclude)

    def on_key(self, event: Key) -> None:
        if event.key == "escape" and self.query_one("#filter").display:
            event.stop()
            event.prevent_default()
            self._close_filter()

    def action_clear(self) -> None:
        self._ask(include=(), exclude=())


def show(app: LiveApp) -> None:
    """Until the user leaves. Raises what went wrong in the worker."""
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    for name in ("COLUMNS", "LINES"):  # a shell's, or readline's, before the terminal was resized
        os.environ.pop(name, None)
    threading.Thread(target=end_with_terminal, daemon=True).start()
    app.run(mouse=True)
    if app.error is not None:
        raise app.error


def end_with_terminal() -> None:
    """Where nobody sends SIGHUP when the terminal goes, the screen would wait for it for ever."""
    waiting = select.poll()
    waiting.register(0, 0)  # a hang-up is always told
    while not waiting.poll():
        pass
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(1.0)
    os._exit(128 + signal.SIGHUP)  # it is ignored
