"""The thread that reads captures and makes pictures, so that keys are answered meanwhile.

It looks for something new every POLL_S seconds, which costs some system calls. What a look and the
drawing of its picture cost decides when the next one is: the viewer takes at most a tenth of a CPU,
whatever the size of the captures. What the user asks for is done at once.
"""

import threading
import time
from collections.abc import Callable

from pymemtrace.cli._live.watch import Picture, Watch, Wish

POLL_S = 0.25
SHARE = 0.1  # of one CPU


class Worker:
    """show: called in the worker's thread with each new picture. fail: with what went wrong."""

    def __init__(
        self, watch: Watch, show: Callable[[Picture], None], fail: Callable[[BaseException], None]
    ) -> None:
        self._watch = watch
        self._show = show
        self._fail = fail
        self._lock = threading.Lock()
        self._wish = Wish()  # protected by the lock
        self._asked = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="pymemtrace live", daemon=True)

    def start(self, wish: Wish) -> None:
        self._wish = wish
        self._thread.start()

    def ask(self, wish: Wish) -> None:
        with self._lock:
            self._wish = wish
        self._asked.set()

    def stop(self) -> None:
        self._ended = True
        self._asked.set()

    def _run(self) -> None:
        try:
            self._watch_on()
        except BaseException as error:
            if not self._ended:
                self._fail(error)

    def _watch_on(self) -> None:
        shown: Wish | None = None
        while not self._ended:
            began = time.process_time()
            self._asked.clear()
            with self._lock:
                wish = self._wish
            changed = False if wish.paused and shown is not None else self._watch.refresh()
            # What a program prints is no part of its capture.
            if changed or wish != shown or (wish.tab == "output" and not wish.paused):
                picture = self._watch.picture(wish)
                if self._ended:
                    return
                self._show(picture)
                shown = wish
            cost = time.process_time() - began
            self._asked.wait(max(POLL_S, cost * (1 / SHARE - 1)))
