"""A progress bar on standard error, for what takes longer than a second."""

import sys
import time
from types import TracebackType
from typing import Any, Self, TextIO

from pymemtrace.cli._page import is_terminal

PATIENCE_S = 1.0


class Progress:
    """Call it with (done, total); it shows nothing before a second is over, or off a terminal."""

    def __init__(self, text: str, stream: TextIO | None = None, patience_s: float = PATIENCE_S):
        self._text = text
        self._stream = sys.stderr if stream is None else stream
        self._shown = is_terminal(self._stream)
        self._due = time.monotonic() + patience_s
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        if not self._shown:
            return
        if self._bar is None:
            if time.monotonic() < self._due:
                return
            self._start()
        self._bar.update(self._task, completed=done, total=total)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
            transient=True,
        )
        self._task = self._bar.add_task(self._text)
        self._bar.start()
